//! What a resumed run gives is what a straight one gives, bit for bit; and what it goes on with is what it
//! began with.

use std::fs;

use detect::config::Optimizer;
use detect::weights::Contents;
use serde_json::{Value, json};

use super::{Bench, Draws, lines, record, said, text, trials, wait_until};

/// Evaluates after every epoch, and saves out of step with it.
const OFTEN: [&str; 6] =
    ["--steps", "40", "--set", "train.eval_every=1", "--set", "train.checkpoint_every=3"];

fn same_end(bench: &Bench, a: &str, b: &str) {
    let read = |name: &str| Contents::read(&bench.run(name).join("last.safetensors")).unwrap();
    let (left, right) = (read(a), read(b));
    for prefix in ["model.", "ema.", "optim."] {
        assert!(left.tensors.keys().any(|name| name.starts_with(prefix)), "{prefix} is saved");
    }
    assert_eq!(left.tensors, right.tensors, "weights, average and momentum");
    assert_eq!(record(&bench.run(a)), record(&bench.run(b)), "losses, norms, rates and scores");
    let best = |name: &str| fs::read(bench.run(name).join("best.safetensors")).unwrap();
    assert_eq!(best(a), best(b), "the best model");
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_like_one_that_is_not() {
    let bench = Bench::new(7, 3); // in batches of 2: the last step of an epoch is short
    said(&bench.train("straight", &OFTEN).output().unwrap(), 0);
    let all = lines(&bench.run("straight"));
    assert_eq!(all, 40 + 10);
    let run = bench.run("killed");
    let mut draws = Draws(4);
    let kills = trials(4, 10);
    for kill in 0..kills {
        let mut command =
            if kill == 0 { bench.train("killed", &OFTEN) } else { bench.resume("killed", &[]) };
        let mut child = command.spawn().unwrap();
        // Anywhere in its part of the run: in a step, an evaluation or a save.
        let target = (all - 8) * kill / kills + 4 + draws.below(all / kills);
        let target = target.min(all - 4);
        wait_until(&mut child, || lines(&run) >= target);
        std::thread::sleep(std::time::Duration::from_secs_f64(draws.next() * 0.05));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "it was killed");
    }
    said(&bench.resume("killed", &[]).output().unwrap(), 0);
    same_end(&bench, "straight", "killed");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bench = Bench::new(4, 2);
    let steps = ["--steps", "4", "--set", "train.eval_every=1"];
    let run = |name: &str, more: &[&str]| {
        said(&bench.train(name, &[&steps[..], more].concat()).output().unwrap(), 0);
    };
    run("a", &[]);
    for (name, threads) in [("b", "1"), ("c", "3")] {
        run(name, &["--set", &format!("train.loader.threads={threads}")]);
        let read = |name: &str| Contents::read(&bench.run(name).join("last.safetensors")).unwrap();
        assert_eq!(read("a").tensors, read(name).tensors, "{threads} threads read images");
        assert_eq!(record(&bench.run("a")), record(&bench.run(name)));
    }
    // Two threads: one after the other, and beside each other.
    let two = |name: &str| {
        let mut command = super::program::program();
        command.env("OMP_NUM_THREADS", "2");
        command.args(["train", "--config", "tiny", "--threads", "2", "--data", text(&bench.data)]);
        command.args(steps).args(["--out", text(&bench.run(name))]);
        command
    };
    for name in ["two", "too"] {
        said(&two(name).output().unwrap(), 0);
    }
    same_end(&bench, "two", "too");
}

#[test]
fn a_changed_configuration_is_refused_with_what_changed() {
    let bench = Bench::new(4, 1);
    let steps = ["--steps", "2"];
    said(&bench.train("run", &steps).output().unwrap(), 0);
    let run = bench.run("run");
    let flags = ["--lr", "0.5", "--batch", "1"];
    let told = said(&bench.resume("run", &flags).output().unwrap(), 2);
    for part in ["train.lr: 0.02 -> 0.5", "train.batch: 2 -> 1", "--override-resume"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // Flags that change nothing are no change.
    said(&bench.resume("run", &["--lr", "0.02"]).output().unwrap(), 0);

    let path = run.join("config.json");
    let written = fs::read_to_string(&path).unwrap();
    let mut config: Value = serde_json::from_str(&written).unwrap();
    config["train"]["optimizer"]["momentum"] = json!(0.5);
    fs::write(&path, config.to_string()).unwrap();
    let told = said(&bench.resume("run", &[]).output().unwrap(), 2);
    assert!(told.contains("train.optimizer.momentum: 0.9 -> 0.5"), "{told}");
    // Meant: the edited file counts, and flags on top of it; the run has more steps to do.
    let meant = ["--steps", "4", "--override-resume"];
    said(&bench.resume("run", &meant).output().unwrap(), 0);
    let state = bench.state("run");
    assert_eq!((state.step, state.total), (4, 4));
    assert_eq!(state.config.train.optimizer, Optimizer::Sgd { momentum: 0.5 });
    assert_eq!(state.config.train.steps, 4);
    let now: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(now["train"]["steps"], 4, "config.json says what the run goes on with");
    said(&bench.resume("run", &[]).output().unwrap(), 0);

    fs::write(&path, "{").unwrap();
    assert!(said(&bench.resume("run", &[]).output().unwrap(), 2).contains("config.json"));
    fs::remove_file(&path).unwrap();
    said(&bench.resume("run", &[]).output().unwrap(), 0);
}

#[test]
fn a_changed_data_set_is_refused_with_what_changed() {
    let bench = Bench::new(4, 1);
    said(&bench.train("run", &["--steps", "2"]).output().unwrap(), 0);
    let path = bench.data.join("annotations/train.json");
    let whole: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let resume = |change: &dyn Fn(&mut Value), more: &[&str], code: i32| {
        let mut set = whole.clone();
        change(&mut set);
        fs::write(&path, set.to_string()).unwrap();
        said(&bench.resume("run", more).output().unwrap(), code)
    };
    let fewer = |set: &mut Value| {
        let id = set["images"].as_array_mut().unwrap().pop().unwrap()["id"].clone();
        set["annotations"].as_array_mut().unwrap().retain(|a| a["image_id"] != id);
    };
    let told = resume(&fewer, &[], 3);
    assert!(told.contains("images: 4 -> 3") && told.contains("annotations: "), "{told}");
    let moved = |set: &mut Value| set["annotations"][0]["bbox"][0] = json!(1.25);
    assert!(resume(&moved, &[], 3).contains("not the same"));
    resume(&moved, &["--override-resume"], 0);
    // More classes than the network has outputs: labels would reach past its table.
    let class = |set: &mut Value| {
        let all = set["categories"].as_array_mut().unwrap();
        all.push(json!({ "id": 99, "name": "extra" }));
    };
    for more in [&[][..], &["--override-resume"]] {
        assert!(resume(&class, more, 3).contains("99 extra"), "{more:?}");
    }
}
