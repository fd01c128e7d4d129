//! SIGINT, SIGTERM, SIGUSR1, and processes that share a run folder.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::program::program;
use super::{Bench, Draws, ends, leftovers, lines, record, said, send, text, trials, wait_until};

/// `detect`, which hands over to `detect-torch`, where it was built too.
fn front() -> Option<PathBuf> {
    let detect = PathBuf::from(program().get_program()).with_file_name("detect");
    detect.is_file().then_some(detect)
}

#[test]
fn a_signal_saves_and_ends_the_run() {
    let bench = Bench::new(7, 2);
    let mut draws = Draws(1);
    for trial in 0..trials(6, 50) {
        let (signal, code) = [("INT", 130), ("TERM", 143), ("USR1", 143)][trial % 3];
        let name = format!("run-{trial}");
        let run = bench.run(&name);
        let mut child = bench.train(&name, &["--steps", "100000"]).spawn().unwrap();
        let first = 1 + draws.below(8);
        wait_until(&mut child, || lines(&run) >= first);
        std::thread::sleep(Duration::from_secs_f64(draws.next() * 0.1));
        let sent = Instant::now();
        send(&child, signal);
        let said = ends(child, code);
        let took = sent.elapsed();
        assert!(took < Duration::from_secs(2), "{signal}: {took:?}");
        assert!(said.contains("--resume"), "{said}");
        assert_eq!(bench.state(&name).step, lines(&run), "the last step was saved");
        assert_eq!(leftovers(&run), [""; 0]);
    }
}

#[test]
fn a_signal_reaches_the_run_through_detect() {
    let Some(detect) = front() else {
        eprintln!("skipped: detect is not built beside detect-torch");
        return;
    };
    let bench = Bench::new(4, 1);
    let out = bench.run("run");
    let mut child = std::process::Command::new(detect)
        .args(["train", "--config", "tiny", "--threads", "1", "--data", text(&bench.data)])
        .args(["--out", text(&out), "--steps", "100000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until(&mut child, || lines(&out) >= 2);
    send(&child, "INT");
    ends(child, 130);
    assert_eq!(bench.state("run").step, lines(&out));
}

#[test]
fn a_second_signal_ends_at_once() {
    let bench = Bench::new(8, 1);
    let run = bench.run("run");
    // A step of many seconds.
    let long = ["--image-size", "1000x1024", "--batch", "8", "--steps", "9"];
    let mut child = bench.train("run", &long).spawn().unwrap();
    wait_until(&mut child, || run.join("last.safetensors").exists());
    std::thread::sleep(Duration::from_millis(500));
    send(&child, "TERM");
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "the step goes on");
    let sent = Instant::now();
    send(&child, "INT");
    ends(child, 130);
    assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
    assert_eq!(bench.state("run").step, 0);
}

#[test]
fn an_evaluation_that_is_left_is_made_by_the_resumed_run() {
    let bench = Bench::new(4, 40);
    let steps = ["--steps", "3", "--set", "train.batch=1"];
    said(&bench.train("straight", &steps).output().unwrap(), 0);
    let run = bench.run("stopped");
    let mut child = bench.train("stopped", &steps).spawn().unwrap();
    wait_until(&mut child, || lines(&run) == 3);
    send(&child, "TERM");
    ends(child, 143);
    assert!(bench.state("stopped").evaluation_due, "it came before the end of the evaluation");
    // Stopped in the evaluation again.
    let mut child = bench.resume("stopped", &[]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(900));
    if child.try_wait().unwrap().is_none() {
        send(&child, "INT");
    }
    let _ = child.wait().unwrap();
    said(&bench.resume("stopped", &[]).output().unwrap(), 0);
    assert_eq!(record(&bench.run("straight")), record(&run));
    assert_eq!(bench.state("straight").best, bench.state("stopped").best);
    let [a, b] = ["straight", "stopped"]
        .map(|name| std::fs::read(bench.run(name).join("best.safetensors")).unwrap());
    assert_eq!(a, b, "the best model");
}

#[test]
fn a_lock_keeps_others_out_and_dies_with_its_process() {
    let bench = Bench::new(4, 1);
    let run = bench.run("run");
    let mut child = bench.train("run", &["--steps", "100000"]).spawn().unwrap();
    wait_until(&mut child, || lines(&run) >= 1);
    let started = Instant::now();
    for mut second in [bench.resume("run", &[]), bench.train("run", &["--steps", "1"])] {
        let said = said(&second.output().unwrap(), 6);
        assert!(said.contains("in use by another process"), "{said}");
    }
    // Two programs that load libtorch, which takes most of it.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child = bench.resume("run", &[]).spawn().unwrap();
    let before = lines(&run);
    wait_until(&mut child, || lines(&run) > before + 1);
    send(&child, "INT");
    ends(child, 130);
}
