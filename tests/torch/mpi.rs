//! Several processes under `mpirun`: they give what one gives, end together, and refuse what can't be shared.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]
#![cfg(unix)]

#[path = "common/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use detect::config::Config;
use detect::data::Dataset;
use detect::data::loader::TrainLoader;
use detect::data::sampling::{Epochs, Share};
use detect::weights::Contents;
use detect_torch::train::checkpoint::{self, State};

use program::{expect_code, program, small_scenes};

/// Steps that do not hang on how they are cut into batches.
const STEADY: [&str; 16] = [
    // All images are padded to 64 x 64: none for the sake of another.
    "--set",
    "input.resize={ kind = \"short_side\", short_side = 64, long_side = 64 }",
    "--set",
    "backbone.norm=frozen",
    "--set",
    "backbone.tail_norm=frozen",
    "--set",
    "backbone.drop_path_keep=1.0",
    "--set",
    "train.augment.scale=[1.0, 1.0]",
    "--set",
    "train.schedule={ kind = \"constant\" }",
    "--set",
    "train.loss_weights.auxiliary=0.4",
    "--batch",
    "1",
];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Whether there is a launcher; says so where there is none.
fn launcher() -> bool {
    let found = Command::new("mpirun").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: mpirun is not installed");
    }
    found
}

/// `mpirun` for processes of this machine alone, of which there may be more than cores.
fn mpirun() -> Command {
    let mut command = Command::new("mpirun");
    for (name, _) in
        std::env::vars().filter(|(name, _)| name == "DETECT_DATA" || name == "RUST_LOG")
    {
        command.env_remove(name);
    }
    // Open MPI's; other launchers have no use for them.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.env("OMPI_MCA_rmaps_base_oversubscribe", "1").env("OMPI_MCA_btl", "self,vader");
    command.env("OMPI_MCA_hwloc_base_binding_policy", "none").env("OMP_NUM_THREADS", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0., |most, (x, y)| most.max((x - y).abs()))
}

/// A small data set and room for runs on it.
struct Bench {
    dir: tempfile::TempDir,
    data: PathBuf,
}

impl Bench {
    fn new(train: usize, val: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        small_scenes(&data, train, val);
        Self { dir, data }
    }

    fn run(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `detect`, which hands over to `detect-torch`, where it was built too; and the arguments of the run `name`.
    fn words(&self, name: &str, more: &[&str]) -> Vec<String> {
        let torch = PathBuf::from(program().get_program());
        let front = torch.with_file_name("detect");
        let own = if front.is_file() { front } else { torch };
        let mut words = vec![text(&own).to_owned()];
        let (data, out) = (&self.data, self.run(name));
        let fixed = ["train", "--config", "tiny", "--threads", "1", "--device", "cpu"];
        words.extend(fixed.map(str::to_owned));
        words.extend(["--data", text(data), "--out", text(&out)].map(str::to_owned));
        words.extend(more.iter().map(|&word| word.to_owned()));
        words
    }

    fn together(&self, count: usize, name: &str, more: &[&str]) -> Command {
        let mut command = mpirun();
        command.args(["-n", &count.to_string()]).args(self.words(name, more));
        command
    }

    fn alone(&self, name: &str, more: &[&str]) -> Output {
        let words = self.words(name, more);
        program().args(&words[1..]).output().unwrap()
    }

    fn state(&self, name: &str) -> State {
        checkpoint::load(&self.run(name)).unwrap().1
    }

    /// The tensors of a run's checkpoint.
    fn tensors(&self, name: &str) -> BTreeMap<String, Vec<f32>> {
        let contents = Contents::read(&self.run(name).join("last.safetensors")).unwrap();
        let numbers = |bytes: &[u8]| {
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        contents.tensors.iter().map(|(n, t)| (n.clone(), numbers(&t.bytes))).collect()
    }

    /// The largest difference between the tensors of two runs, as a share of the tensor's largest number.
    fn difference(&self, a: &str, b: &str) -> f32 {
        let (a, b) = (self.tensors(a), self.tensors(b));
        assert!(a.len() > 100 && a.keys().eq(b.keys()));
        let mut most = 0_f32;
        for (a, b) in a.values().zip(b.values()) {
            let scale = a.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
            most = most.max(farthest(a, b) / scale);
        }
        most
    }

    /// The largest difference between the networks of two runs.
    fn apart(&self, a: &str, b: &str) -> f32 {
        let (a, b) = (self.tensors(a), self.tensors(b));
        let model = a.iter().filter(|(name, _)| name.starts_with("model."));
        let far: Vec<f32> = model.map(|(name, a)| farthest(a, &b[name])).collect();
        assert!(far.len() > 100);
        far.into_iter().fold(0., f32::max)
    }

    /// Starts a run without end and waits for its first steps.
    fn begun(&self, name: &str) -> Child {
        let endless = ["--steps", "100000", "--accumulate", "2", "--batch", "1"];
        let mut child = self.together(2, name, &endless).spawn().unwrap();
        let record = self.run(name).join("metrics.jsonl");
        let started = Instant::now();
        let steps =
            || fs::read_to_string(&record).unwrap_or_default().matches("\"kind\":\"step\"").count();
        while steps() < 2 {
            assert!(child.try_wait().unwrap().is_none(), "it ended too early");
            assert!(started.elapsed() < Duration::from_mins(2), "no progress");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }
}

fn send(pid: &str, signal: &str) {
    assert!(Command::new("kill").args(["-s", signal, pid]).status().unwrap().success());
}

/// The processes that `parent` started.
fn children(parent: &Child) -> Vec<String> {
    let id = parent.id();
    let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn each_image_is_shown_once_an_epoch_by_one_process() {
    let bench = Bench::new(11, 1);
    let data = Arc::new(Dataset::open(&bench.data, "train").unwrap());
    let images = data.images.len();
    let mut config = Config::recipe("tiny", &[]).unwrap();
    (config.train.batch, config.train.accumulate) = (2, 3);
    let train = &config.train;
    let epoch = train.steps_per_epoch(images);
    let read = |steps: std::ops::Range<usize>, share: Share| -> Vec<Vec<usize>> {
        let epochs = Epochs::uniform(images, 5);
        TrainLoader::shared(epochs, Arc::clone(&data), train, &config.input, steps, share)
            .map(|batch| batch.unwrap().samples.iter().map(|s| s.index).collect())
            .collect()
    };
    for count in 1..=4 {
        let shares = (0..count).map(|rank| Share { rank, count });
        for first in 0..2 {
            // The second epoch by a run that begins there, or in the midst of the first.
            let mut seen: Vec<usize> = shares
                .clone()
                .flat_map(|share| read(epoch * first..epoch * (first + 1), share))
                .flatten()
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..images).collect::<Vec<_>>(), "{count} processes");
        }
        // Step by step, what one process takes, dealt in turn.
        for step in 0..2 * epoch {
            let whole = read(step..step + 1, Share::WHOLE);
            for share in shares.clone() {
                let dealt = whole.iter().enumerate().filter(|(i, _)| share.takes(*i));
                let dealt: Vec<_> = dealt.map(|(_, batch)| batch.clone()).collect();
                assert_eq!(share.of(whole.len()), dealt.len());
                assert_eq!(read(step..step + 1, share), dealt, "step {step} {share:?}");
            }
        }
    }
}

#[test]
fn two_processes_make_the_steps_of_one() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(7, 1);
    for steps in ["1", "5"] {
        let steady = [&STEADY[..], &["--set", "data.val=none", "--steps", steps]].concat();
        let accumulated = [&steady[..], &["--accumulate", "2"]].concat();
        let name = |kind: &str| format!("{kind}-{steps}");
        let output = bench.together(2, &name("two"), &accumulated).output().unwrap();
        expect_code(&output, 0);
        expect_code(&bench.alone(&name("one"), &accumulated), 0);
        let more = ["--batch", "2", "--set", "data.val=none", "--steps", steps];
        let large = [&STEADY[..STEADY.len() - 2], &more].concat();
        expect_code(&bench.alone(&name("large"), &large), 0);
        for other in ["one", "large"] {
            let far = bench.difference(&name(other), &name("two"));
            assert!(far < 1e-6, "{other} after {steps}: {far}");
        }
    }
    // The weights have moved at all.
    assert!(bench.difference("two-1", "two-5") > 1e-3);
}

#[test]
fn synchronised_norms_take_the_batches_of_all_as_one() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(7, 1);
    let norms = |how: &str| {
        ["norm", "tail_norm"]
            .map(|key| ["--set".to_owned(), format!("backbone.{key}={how}")])
            .concat()
    };
    let flags = |how: &str, more: &[&str]| -> Vec<String> {
        let steady = STEADY[..STEADY.len() - 2].iter().chain(&["--set", "data.val=none"]);
        steady.chain(more).map(|word| (*word).to_owned()).chain(norms(how)).collect()
    };
    // Against one process with all images of a step in one batch. The second step of 4 images has 3: of 4 processes
    // one takes part with nothing.
    for (steps, count, images, bound) in [("1", 2, "2", 1e-6), ("2", 4, "4", 1e-5)] {
        let name = |kind: &str| format!("{kind}-{steps}-{count}");
        let parts = ["--steps", steps, "--batch", "1", "--accumulate", images];
        for how in ["synchronised", "live"] {
            let flags = flags(how, &parts);
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            expect_code(&bench.together(count, &name(how), &flags).output().unwrap(), 0);
        }
        let flags = flags("synchronised", &["--steps", steps, "--batch", images]);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        expect_code(&bench.alone(&name("one"), &flags), 0);
        let far = bench.apart(&name("one"), &name("synchronised"));
        assert!(far < bound, "{steps} steps of {count}: {far}");
        let unlike = bench.apart(&name("one"), &name("live"));
        assert!(unlike > 10. * bound, "{steps} steps of {count}: {unlike} without");
    }
    // Two rounds a step, of 3 batches and of 1.
    let flags = flags("synchronised", &["--steps", "2", "--batch", "1", "--accumulate", "4"]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    expect_code(&bench.together(3, "odd", &flags).output().unwrap(), 0);
}

#[test]
fn processes_without_a_batch_and_odd_shares_change_nothing() {
    if !launcher() {
        return;
    }
    // Steps of 4 and of 3 batches: for 4 processes, one has nothing to do in each second step; for 3, one has two.
    let bench = Bench::new(7, 5);
    // Every image gives all it has, which differs: the first guess of the counts is wrong.
    let all = ["--steps", "4", "--accumulate", "4", "--set", "rpn.sampled=10000"];
    let flags = [&STEADY[..], &all, &["--set", "roi.sampled=10000"]].concat();
    expect_code(&bench.alone("one", &flags), 0);
    for count in [3, 4] {
        let name = format!("of-{count}");
        let output = bench.together(count, &name, &flags).output().unwrap();
        expect_code(&output, 0);
        let far = bench.difference("one", &name);
        assert!(far < 1e-5, "{count}: {far}");
    }
}

#[test]
fn an_evaluation_is_that_of_one_process() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(4, 7);
    let flags = [&STEADY[..], &["--steps", "2", "--accumulate", "2"]].concat();
    let one = bench.alone("one", &flags);
    expect_code(&one, 0);
    let two = bench.together(2, "two", &flags).output().unwrap();
    expect_code(&two, 0);
    assert_eq!(String::from_utf8_lossy(&one.stdout), String::from_utf8_lossy(&two.stdout));
    let read = |run: &str, file: &str| fs::read(bench.run(run).join(file)).unwrap();
    assert!(read("one", "detections.json").len() > 1000);
    for file in ["detections.json", "evaluation.json", "best.safetensors"] {
        assert!(read("one", file) == read("two", file), "{file}");
    }
    assert_eq!(bench.state("one").best, bench.state("two").best);
}

#[test]
fn a_run_goes_on_with_any_number_of_processes() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(7, 1);
    let flags = [&STEADY[..], &["--accumulate", "2", "--set", "data.val=none"]].concat();
    expect_code(&bench.alone("straight", &[&flags[..], &["--steps", "6"]].concat()), 0);
    let half =
        bench.together(2, "run", &[&flags[..], &["--steps", "3"]].concat()).output().unwrap();
    expect_code(&half, 0);
    let run = bench.run("run");
    let rest =
        ["train", "--threads", "1", "--resume", text(&run), "--steps", "6", "--override-resume"];
    expect_code(&program().args(rest).output().unwrap(), 0);
    let far = bench.difference("straight", "run");
    assert!(far < 1e-6, "{far}");
    // Another total batch is another run.
    let refused = ["train", "--resume", text(&run), "--accumulate", "4"];
    let mut four = mpirun();
    four.args(["-n", "2", text(Path::new(program().get_program()))]).args(refused);
    let told = expect_code(&four.output().unwrap(), 2);
    assert!(told.contains("train.accumulate: 2 -> 4"), "{told}");
}

#[test]
fn what_can_not_be_shared_is_refused() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(4, 1);
    let told = expect_code(&bench.together(2, "run", &["--steps", "2"]).output().unwrap(), 2);
    assert!(told.contains("--accumulate 2"), "{told}");
    let mut unlike = mpirun();
    let flags = ["--steps", "2", "--accumulate", "2"];
    unlike.args(["-n", "1"]).args(bench.words("run", &flags));
    unlike
        .args([":", "-n", "1"])
        .args(bench.words("run", &[&flags[..], &["--lr", "0.5"]].concat()));
    let told = expect_code(&unlike.output().unwrap(), 2);
    assert!(told.contains("train.lr: 0.02 -> 0.5"), "{told}");
    assert!(!bench.run("run").exists(), "nothing was begun");
}

#[test]
fn all_begin_with_the_weights_of_the_first() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(4, 1);
    for (name, seed) in [("a", "1"), ("b", "2")] {
        expect_code(&bench.alone(name, &["--steps", "1", "--seed", seed]), 0);
    }
    let flags = [&STEADY[..], &["--accumulate", "2", "--steps", "2"]].concat();
    let words = |name: &str, init: &str| {
        let init = bench.run(init).join("last.safetensors");
        bench.words(name, &[&flags[..], &["--init", text(&init)]].concat())
    };
    for (name, second) in [("alike", "a"), ("unlike", "b")] {
        let mut both = mpirun();
        both.args(["-n", "1"]).args(words(name, "a"));
        both.args([":", "-n", "1"]).args(words(name, second));
        expect_code(&both.output().unwrap(), 0);
    }
    let far = bench.difference("alike", "unlike");
    assert!(far < 1e-7, "{far}");
    assert!(bench.apart("a", "b") > 1e-3, "they would have made a difference");
}

#[test]
fn an_image_that_one_process_can_not_read_is_told_and_costs_no_step() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(4, 2);
    let flags = [&STEADY[..], &["--accumulate", "2", "--steps", "2"]].concat();
    let (mut stopped, mut failed) = (Vec::new(), 0);
    let images: Vec<_> = fs::read_dir(bench.data.join("images")).unwrap().collect();
    for (n, image) in images.into_iter().enumerate() {
        let (name, file) = (format!("run{n}"), image.unwrap().path());
        let whole = fs::read(&file).unwrap();
        fs::write(&file, "no image").unwrap();
        let output = bench.together(2, &name, &flags).output().unwrap();
        fs::write(&file, whole).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let image = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(told.matches(&format!("{image} is not an image")).count(), 1, "{told}");
        let record = fs::read_to_string(bench.run(&name).join("metrics.jsonl")).unwrap();
        if output.status.code() == Some(0) {
            // Of the other split; whichever process has it.
            assert!(
                record.contains("\"failed\":1") && told.contains("without detections"),
                "{told}"
            );
            failed += 1;
            continue;
        }
        assert_eq!(output.status.code(), Some(3), "{told}");
        let step = bench.state(&name).step;
        assert_eq!(step, record.matches("\"kind\":\"step\"").count(), "{told}");
        stopped.push(step);
    }
    stopped.sort_unstable();
    assert_eq!(
        (stopped, failed),
        (vec![0, 0, 1, 1], 2),
        "two of the processes' images in each step"
    );
}

#[test]
fn what_is_not_finite_stops_all_in_the_same_step() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(4, 1);
    let blown = ["--steps", "6", "--accumulate", "2", "--set", "train.loss_weights.class=1e38"];
    let told = expect_code(&bench.together(2, "run", &blown).output().unwrap(), 8);
    assert_eq!(told.matches("the gradient is not finite at step 1").count(), 1, "{told}");
    assert_eq!(bench.state("run").step, 0, "what was saved before the first step");
    // Both pass the step over: if one did not, the other would wait for it.
    let skip = [&blown[..], &["--on-nan", "skip=2"]].concat();
    let told = expect_code(&bench.together(2, "skip", &skip).output().unwrap(), 8);
    assert!(told.contains("not finite at step 3"), "{told}");
}

#[test]
fn half_precision_has_one_factor_for_all() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(4, 1);
    let half = ["--set", "train.precision=fp16", "--accumulate", "2", "--steps", "3"];
    let half = [&STEADY[..], &half].concat();
    expect_code(&bench.together(2, "two", &half).output().unwrap(), 0);
    expect_code(&bench.alone("one", &half), 0);
    let factor = |name: &str| bench.state(name).loss_scale.unwrap().factor;
    assert_eq!(factor("two").to_bits(), factor("one").to_bits());
    // A step that overflows is left out, and says nothing of sums.
    let record = fs::read_to_string(bench.run("two").join("metrics.jsonl")).unwrap();
    let made = record.lines().filter(|l| l.contains("\"kind\":\"step\""));
    let made = made.filter(|l| !l.contains("\"grad_norm\":null")).count();
    assert!(made > 0, "all steps were left out: {record}");
    // Sums in another order make an input round the other way here and there, by a thousandth.
    let far = bench.difference("one", "two");
    assert!(far < 1e-3, "{far}");
}

#[test]
fn a_process_that_dies_ends_all() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(4, 1);
    let child = bench.begun("run");
    let processes = children(&child);
    assert_eq!(processes.len(), 2, "{processes:?}");
    let killed = Instant::now();
    send(&processes[1], "KILL");
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(killed.elapsed() < Duration::from_mins(1), "{:?}", killed.elapsed());
    let left =
        || processes.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).count();
    while left() > 0 {
        assert!(killed.elapsed() < Duration::from_mins(1), "{} are left", left());
        std::thread::sleep(Duration::from_millis(50));
    }
    checkpoint::load(&bench.run("run")).unwrap();
}

#[test]
fn a_signal_saves_once_and_ends_all() {
    if !launcher() {
        return;
    }
    let bench = Bench::new(4, 1);
    // mpirun passes USR1 on. TERM it passes on and kills a second later, and ends with a code of its own.
    for (signal, code) in [("USR1", Some(143)), ("TERM", None)] {
        let child = bench.begun(signal);
        send(&child.id().to_string(), signal);
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        if let Some(code) = code {
            assert_eq!(output.status.code(), Some(code), "{told}");
        }
        assert_eq!(told.matches("--resume").count(), 1, "{told}");
        let record = fs::read_to_string(bench.run(signal).join("metrics.jsonl")).unwrap();
        let steps = record.matches("\"kind\":\"step\"").count();
        assert_eq!(bench.state(signal).step, steps, "the last step was saved");
    }
    // One of the processes alone, as a batch system may do: both stop.
    let child = bench.begun("one");
    send(&children(&child)[1], "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    assert!(bench.state("one").step >= 2);
}
