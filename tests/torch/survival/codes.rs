//! Exit codes, memory that runs out, and output that nobody reads.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};

use detect::failure::Exit;

use super::program::{program, tree};
use super::{Bench, said, text};

/// No terminal is there: no colours, no bars.
#[track_caller]
fn plain(output: &Output) {
    for stream in [&output.stdout, &output.stderr] {
        assert!(!stream.contains(&0x1b), "{}", String::from_utf8_lossy(stream));
    }
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

const VICTIM: &str = "DETECT_TEST_PANIC";

/// The victim of the next test: a program with a bug. Its output is read there.
#[test]
fn a_program_that_panics() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let code = detect::cli::finish(|| -> anyhow::Result<Exit> { panic!("as this test wants it") });
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(9)));
}

/// Elsewhere file names are text.
#[cfg(target_os = "linux")]
#[test]
fn a_data_folder_that_no_checkpoint_can_name_is_refused_before_training() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut bench = Bench::new(2, 1);
    let odd = bench.dir.path().join(std::ffi::OsStr::from_bytes(b"n\xff n"));
    fs::rename(&bench.data, &odd).unwrap();
    bench.data = odd;
    let out = bench.run("run");
    let mut command = program();
    command.args(["train", "--config", "tiny", "--steps", "1", "--data"]).arg(&bench.data);
    let output = command.arg("--out").arg(&out).output().unwrap();
    let told = said(&output, 2);
    assert!(told.contains("n\u{fffd} n is not UTF-8") && told.contains("rename it"), "{told}");
    assert!(!told.contains("panicked"), "{told}");
    assert!(!out.exists(), "nothing was begun");
}

/// 6, 130 and 143 are in signals.rs, 8 in numbers.rs and pipeline.rs.
#[test]
fn every_exit_code() {
    let bench = Bench::new(2, 1);
    let sample = tree().join("data/samples/sample_0001.jpg");
    let sample = text(&sample);
    let data = text(&bench.data);
    let blocked = bench.data.join("images/none.jpg/run");
    let in_the_way = format!("{sample}/run");
    for (code, args, words) in [
        (0, &[sample, "--json"][..], "INFO"),
        (1, &[sample, text(&blocked), "--json"], "none.jpg"),
        (2, &["train", "--data", data, "--set", "train.lr=-1"], "train.lr"),
        (3, &["train", "--data", "/dev/null"], "/dev/null"),
        (4, &[sample, "--weights", sample], "sample_0001.jpg"),
        (5, &["train", "--data", data, "--config", "tiny", "--out", &in_the_way], "run folder"),
    ] {
        let output = run(args);
        let told = said(&output, code);
        assert!(told.contains(words), "{code}: {told}");
        assert!(!told.contains("panicked"), "{code}: {told}");
        plain(&output);
        if args.contains(&"--json") {
            let parsed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(parsed.as_array().unwrap().len(), 1);
        }
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "codes::a_program_that_panics", "--nocapture"])
        .env(VICTIM, "1")
        .output()
        .unwrap();
    let told = said(&output, 0);
    assert!(
        told.contains("internal error (a bug in detect)") && told.contains("please report"),
        "{told}"
    );
}

#[test]
fn output_that_nobody_reads_is_no_failure() {
    let sample = tree().join("data/samples/sample_0001.jpg");
    for args in [&[text(&sample)][..], &[text(&sample), "--json"]] {
        let mut child =
            program().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take()); // as `| head -0`, which has gone before the first line
        let output = child.wait_with_output().unwrap();
        let told = said(&output, 0);
        assert!(!told.contains("panicked") && !told.contains("internal error"), "{told}");
    }
}

fn advised(output: &Output) {
    let told = said(output, 7);
    for part in ["memory", "--batch", "--image-size", "--accumulate"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("internal error") && !told.contains("panicked"), "{told}");
}

#[test]
fn memory_that_can_not_be_had_is_told_with_advice() {
    let bench = Bench::new(4, 1);
    // More than 10^14 floats for one convolution.
    let huge = ["--steps", "1", "--set", "rpn.channels=1000000000000"];
    advised(&bench.train("huge", &huge).output().unwrap());
    assert!(!bench.run("huge").exists());
}

/// Linux counts a process's addresses; what libtorch maps at its start is measured first.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_runs_out_is_told_with_advice() {
    let bench = Bench::new(8, 1);
    let small = ["--steps", "2", "--image-size", "64x96", "--set", "train.loader.prefetch=1"];
    let large = ["--steps", "2", "--image-size", "1500x1536", "--batch", "8"];
    let limited = |name: &str, flags: &[&str], kibibytes: u64| {
        let command = bench.train(name, &[flags, &["--set", "train.loader.prefetch=1"]].concat());
        let mut shell = Command::new("sh");
        let script = format!("ulimit -v {kibibytes}; exec \"$@\"");
        shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
        // One arena: else each thread's takes addresses of its own.
        shell.env("OMP_NUM_THREADS", "1").env("MALLOC_ARENA_MAX", "1").env_remove("RUST_LOG");
        shell.output().unwrap()
    };
    let limit = peak(&mut bench.train("plain", &small)) + 1_200_000;
    said(&limited("small", &small[..4], limit), 0);
    let output = limited("large", &large, limit);
    let told = said(&output, 7);
    assert!(told.contains("memory"), "{told}");
}

/// The most addresses that a program has taken, in KiB.
#[cfg(target_os = "linux")]
fn peak(command: &mut Command) -> u64 {
    let mut child = command.spawn().unwrap();
    let status = Path::new("/proc").join(child.id().to_string()).join("status");
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmPeak:"));
        let found = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(found.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(most > 0);
    most
}

/// With images of one size, and glibc's own settings: those that `detect` gives to `detect-torch` keep what
/// was freed, so that the process grows to the largest step that it has met, and then no more.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_steps() {
    if super::trials(0, 1) == 0 {
        eprintln!("skipped: 2,500 steps take minutes; DETECT_SURVIVAL is not 'full'");
        return;
    }
    let bench = Bench::new(7, 1);
    let run = bench.run("run");
    let mut child = bench
        .train("run", &["--steps", "2500", "--set", "train.augment.scale=[1.0, 1.0]"])
        .spawn()
        .unwrap();
    let status = Path::new("/proc").join(child.id().to_string()).join("status");
    let mut seen: Vec<(f64, f64)> = Vec::new(); // thousands of steps, MB
    while child.try_wait().unwrap().is_none() {
        let steps = super::lines(&run);
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        if let Some(rss) = rss.filter(|_| (500..2500).contains(&steps)) {
            seen.push((steps as f64 / 1000., rss / 1000.));
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let count = seen.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| seen.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let slope = seen.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>()
        / seen.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>();
    let at = |share: f64| seen[((count - 1.) * share) as usize].1;
    eprintln!("{slope:.3} MB a thousand steps; {:.1}, {:.1}, {:.1} MB", at(0.), at(0.5), at(1.));
    assert!(slope < 1., "{slope} MB a thousand steps");
}
