//! Checkpoints under kills, damage and full disks: one of the two can always be read.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use detect::config::Config;
use detect::failure::Exit;
use detect::weights::{Contents, Element, StoredTensor};
use detect_torch::train::checkpoint::{self, LAST, PREVIOUS, State};

use super::{Bench, Draws, ends, leftovers, lines, said, send, text, trials, wait_until};

fn state(step: usize) -> State {
    State {
        step,
        total: 1_000_000,
        best: Some((0.25, 1)),
        stale: 0,
        seconds: 1.5,
        evaluation_due: false,
        skipped: 0,
        left_out: 0,
        loss_scale: None,
        config: Config::recipe("tiny", &[]).unwrap(),
        categories: Vec::new(),
        data: "data".into(),
        split: None,
        val: None,
        computing: None,
    }
}

/// Some floats, other ones for each step.
fn contents(step: usize, numbers: usize) -> Contents {
    let bytes = (0..numbers).flat_map(|i| ((i + step) as f32).to_le_bytes()).collect();
    let tensor = StoredTensor { element: Element::F32, shape: vec![numbers], bytes };
    Contents { tensors: [("model.a".to_owned(), tensor)].into(), ..Contents::default() }
}

fn bytes_of(run: &Path) -> [Vec<u8>; 2] {
    [LAST, PREVIOUS].map(|name| fs::read(run.join(name)).unwrap())
}

const LOOP_FOLDER: &str = "DETECT_TEST_SAVE_LOOP";

/// The victim of the next test: saves without end.
#[test]
fn a_loop_of_saves() {
    let Some(run) = std::env::var_os(LOOP_FOLDER).map(PathBuf::from) else { return };
    checkpoint::sweep(&run);
    let first = checkpoint::load(&run).map_or(0, |(_, state, _)| state.step);
    for step in first + 1.. {
        checkpoint::save(&run, contents(step, 200_000), &state(step)).unwrap();
    }
}

#[test]
fn a_kill_at_any_time_leaves_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    checkpoint::save(run, contents(0, 200_000), &state(0)).unwrap();
    let mut draws = Draws(2);
    let (mut saves, mut cut) = (0, 0);
    for _ in 0..trials(12, 200) {
        let (_, before, _) = checkpoint::load(run).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "saves::a_loop_of_saves"])
            .env(LOOP_FOLDER, run)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let step = || checkpoint::read(&run.join(LAST)).map_or(before.step, |(_, s)| s.step);
        wait_until(&mut child, || step() > before.step);
        std::thread::sleep(Duration::from_secs_f64(draws.next() * 0.03));
        child.kill().unwrap();
        child.wait().unwrap();
        let (found, after, path) = checkpoint::load(run).unwrap();
        assert!(after.step > before.step, "{} after {}", after.step, before.step);
        assert_eq!(found.tensors, contents(after.step, 200_000).tensors, "{}", path.display());
        saves += after.step - before.step;
        cut += leftovers(run).len();
        checkpoint::sweep(run);
        assert_eq!(leftovers(run), [""; 0]);
    }
    eprintln!("{saves} saves; {cut} of the kills came in the middle of one");
}

#[test]
fn what_others_keep_under_such_names_stays() {
    let dir = tempfile::tempdir().unwrap();
    let others = [".notes.part", "a.part", ".abc-12.part", ".abcdef.part.txt"];
    for name in [".aB3dEf.part", "metrics.jsonl.part"].iter().chain(&others) {
        fs::write(dir.path().join(name), "").unwrap();
    }
    checkpoint::sweep(dir.path());
    let mut left: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    let mut others = others.map(std::ffi::OsString::from);
    others.sort();
    assert_eq!(left, others);
}

#[test]
fn flipped_bytes_and_cuts_are_all_found() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    checkpoint::save(run, contents(1, 500), &state(1)).unwrap();
    checkpoint::save(run, contents(2, 500), &state(2)).unwrap();
    let path = run.join(LAST);
    let whole = fs::read(&path).unwrap();
    let mut draws = Draws(3);
    for trial in 0..2000 {
        let mut damaged = whole.clone();
        let at = draws.below(whole.len());
        if trial % 2 == 0 {
            damaged[at] ^= 1 + draws.below(255) as u8;
        } else {
            damaged.truncate(at);
        }
        fs::write(&path, &damaged).unwrap();
        let said = checkpoint::read(&path).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains(text(&path)), "{said}");
        let place = ["byte", "bytes", "header", "line"].iter().any(|word| said.contains(word));
        assert!(place || said.contains("not a valid"), "{said}");
        let (_, found, used) = checkpoint::load(run).unwrap();
        assert_eq!((found, used), (state(1), run.join(PREVIOUS)));
    }
    // A run that goes on from `prev` keeps it, whatever happens next.
    checkpoint::set_aside(run).unwrap();
    checkpoint::save(run, contents(3, 500), &state(3)).unwrap();
    assert_eq!(checkpoint::load(run).unwrap().1.step, 3);
    assert_eq!(checkpoint::read(&run.join(PREVIOUS)).unwrap().1.step, 1);
}

/// A disk with room for so many bytes.
struct Disk<'a> {
    file: &'a mut fs::File,
    room: usize,
}

impl Write for Disk<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.file.write(&bytes[..bytes.len().min(self.room)])?;
        self.room -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[test]
fn a_disk_that_is_full_at_any_byte_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    checkpoint::save(run, contents(1, 2000), &state(1)).unwrap();
    checkpoint::save(run, contents(2, 2000), &state(2)).unwrap();
    let before = bytes_of(run);
    let length = before[0].len();
    for k in 0..100 {
        let room = length * k / 100;
        let failed = checkpoint::save_through(run, contents(3, 2000), &state(3), |all, file| {
            all.write_to(&mut Disk { file, room })
        });
        let error = failed.unwrap_err();
        assert_eq!(error.exit(), Exit::Output, "{error}");
        assert_eq!(bytes_of(run), before, "{room}");
        assert_eq!(fs::read_dir(run).unwrap().count(), 2, "nothing else is left");
    }
    assert_eq!(checkpoint::load(run).unwrap().1, state(2));
    let fits = checkpoint::save_through(run, contents(3, 2000), &state(3), |all, file| {
        all.write_to(&mut Disk { file, room: length + 64 })
    });
    fits.unwrap();
    assert_eq!(checkpoint::load(run).unwrap().1, state(3));
}

#[test]
fn what_is_not_finite_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    checkpoint::save(run, contents(1, 50), &state(1)).unwrap();
    checkpoint::save(run, contents(2, 50), &state(2)).unwrap();
    let before = bytes_of(run);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut all = contents(3, 50);
        all.tensors.get_mut("model.a").unwrap().bytes[40..44].copy_from_slice(&bad.to_le_bytes());
        let error = checkpoint::save(run, all, &state(3)).unwrap_err();
        assert_eq!(error.exit(), Exit::NonFinite);
        assert!(error.to_string().contains("model.a"), "{error}");
        assert_eq!(bytes_of(run), before);
    }
}

/// `command` in a shell that lets no file grow beyond 512 KiB: less than a checkpoint.
fn with_small_files(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    // Without the trap, the system would kill it.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$@\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

#[test]
fn a_run_that_can_not_save_ends_and_leaves_what_it_had() {
    let bench = Bench::new(4, 1);
    let run = bench.run("run");
    let output = with_small_files(&bench.train("run", &["--steps", "5"])).output().unwrap();
    assert!(said(&output, 5).contains("last.safetensors"));
    assert!(!run.exists(), "no part of a run is left");

    let mut child = bench
        .train("run", &["--steps", "100000", "--set", "train.checkpoint_every=1"])
        .spawn()
        .unwrap();
    wait_until(&mut child, || lines(&run) >= 2);
    send(&child, "INT");
    ends(child, 130);
    let before = bytes_of(&run);
    let output = with_small_files(&bench.resume("run", &[])).output().unwrap();
    assert!(said(&output, 5).contains("last.safetensors"));
    assert_eq!(bytes_of(&run), before);
    assert_eq!(leftovers(&run), [""; 0]);
    bench.state("run");
}

/// A file system in memory of so many KiB, where the system lets this test mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(kibibytes: u32) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let size = format!("size={kibibytes}k");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(disk.0.path());
        mount.stderr(Stdio::null()).status().is_ok_and(|s| s.success()).then_some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).stderr(Stdio::null()).status();
    }
}

#[test]
fn a_small_disk_is_told_before_the_first_step_and_survived_after_it() {
    let Some(disk) = SmallDisk::mount(5000) else {
        eprintln!("skipped: this system mounts no tmpfs for a test");
        return;
    };
    let bench = Bench::new(4, 1);
    let run = disk.0.path().join("run");
    let train = || {
        let mut command = super::program::program();
        command.args(["train", "--config", "tiny", "--threads", "1", "--data", text(&bench.data)]);
        command.args([
            "--steps",
            "100000",
            "--set",
            "train.checkpoint_every=3",
            "--out",
            text(&run),
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let fill = disk.0.path().join("fill");
    fs::write(&fill, vec![0; 3_000_000]).unwrap();
    let told = said(&train().output().unwrap(), 5);
    assert!(told.contains("3 checkpoints and the model need"), "{told}");
    assert!(!run.exists(), "no part of a run is left");
    fs::remove_file(&fill).unwrap();
    let mut child = train().spawn().unwrap();
    wait_until(&mut child, || lines(&run) >= 4);
    let started = Instant::now();
    let _ = fs::write(&fill, vec![0; 6_000_000]); // as much as fits
    let told = ends(child, 5);
    assert!(told.contains("No space left"), "{told}");
    assert!(started.elapsed() < Duration::from_mins(1));
    let found = checkpoint::load(&run).unwrap().1;
    assert!(found.step >= 3);
    assert!(checkpoint::read(&run.join(PREVIOUS)).is_ok(), "both can be read");
    assert_eq!(leftovers(&run), [""; 0]);
}
