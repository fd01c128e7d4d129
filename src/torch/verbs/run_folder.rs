//! The folder of a run: made, found, held for one process, and given up.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use detect::fail;
use detect::failure::{Exit, OrExit as _};
use detect::watch::{self, record};

use crate::train::{CONFIG, checkpoint};

const LOCK: &str = ".lock";

/// Makes the folder of a new run and holds it; one that holds a run already is not touched.
pub(super) fn begin(run: &Path) -> anyhow::Result<fs::File> {
    fs::create_dir_all(run)
        .with_context(|| format!("cannot make the run folder {}", run.display()))
        .or_exit(Exit::Output)?;
    // Whether a run is in it can be told once no other process changes it.
    let unlocked = !run.join(LOCK).exists();
    let held = lock(run)?;
    let free = check_free(run);
    if free.is_err() && unlocked {
        let _ = fs::remove_file(run.join(LOCK)); // it is nobody's, and the folder is as it was
    }
    free.map(|()| held)
}

/// Refuses a folder that holds a run, or what is left of one.
fn check_free(run: &Path) -> anyhow::Result<()> {
    let first = |names: &[&'static str]| names.iter().copied().find(|name| run.join(name).exists());
    if checkpoint::is_run(run) || run.join(CONFIG).exists() {
        return fail!(
            Exit::Usage,
            "{0} holds a run already; continue it with --resume {0}, or choose another folder",
            run.display()
        );
    }
    // Of a run whose checkpoints were deleted, or of `detect eval --out`: it would be cut or replaced.
    if let Some(left) =
        first(&[checkpoint::BEST, record::RECORD, watch::DETECTIONS, watch::EVALUATION])
    {
        return fail!(
            Exit::Usage,
            "{} holds {left} of another run or of an evaluation; move it away, or choose another folder",
            run.display()
        );
    }
    Ok(())
}

/// Holds the folder of a run that goes on.
pub(super) fn hold(run: &Path) -> anyhow::Result<fs::File> {
    if !run.is_dir() {
        return fail!(Exit::Data, "there is no run folder {}", run.display());
    }
    if !checkpoint::is_run(run) {
        return fail!(
            Exit::Data,
            "{} holds no checkpoint of a run ({} or {})",
            run.display(),
            checkpoint::LAST,
            checkpoint::PREVIOUS
        );
    }
    lock(run)
}

/// The next free `runs/NAME-n`.
pub(super) fn next_free(name: &str) -> anyhow::Result<PathBuf> {
    let failed = |path: &Path| format!("cannot make the run folder {}", path.display());
    let runs = Path::new("runs");
    fs::create_dir_all(runs).with_context(|| failed(runs)).or_exit(Exit::Output)?;
    for n in 1_u32.. {
        let path = runs.join(format!("{name}-{n}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| failed(&path)).or_exit(Exit::Output),
        }
    }
    unreachable!("some number is free")
}

/// Holds the run folder for this process; the system lets go when it ends, however it ends.
fn lock(run: &Path) -> anyhow::Result<fs::File> {
    let path = run.join(LOCK);
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
        .or_exit(Exit::Output)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            fail!(Exit::Busy, "the run folder {} is in use by another process", run.display())
        }
        Err(fs::TryLockError::Error(e)) => {
            Err(e).with_context(|| format!("cannot lock {}", path.display())).or_exit(Exit::Output)
        }
    }
}

/// Takes back what a run that never got a checkpoint has written, and the folder if nothing else is in
/// it, so that the same command can be given again.
#[derive(Debug)]
pub(super) struct TakenBack<'a>(pub(super) &'a Path);

impl Drop for TakenBack<'_> {
    fn drop(&mut self) {
        let run = self.0;
        if checkpoint::is_run(run) {
            return;
        }
        checkpoint::sweep(run);
        // What can't be removed stays: the error that brought us here is the one to tell.
        record::remove(run);
        let _ = fs::remove_file(run.join(LOCK));
        let _ = fs::remove_dir(run);
    }
}
