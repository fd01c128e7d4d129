//! Hands a command over to `detect-torch`, the program beside this one that links libtorch: training, and
//! networks on a GPU or where `--engine torch` asks for it.
//!
//! `detect` itself does not link it: loading libtorch alone costs 0.4 s and 110 MiB.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::failure::{Exit, OrExit as _};

/// The program's name, beside this one.
pub const TORCH_PROGRAM: &str = "detect-torch";

/// Settings of glibc's allocator for `detect-torch`. By default it gives large blocks back to the system,
/// which hands them out again one zeroed page at a time: a quarter of a training step's CPU time on small
/// networks. With these, freed blocks are kept and used again. Other allocators ignore them.
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "17179869184")];

/// How often libtorch's threads look for work, by GNU's OpenMP, before they sleep; by default 300,000 times, which is a
/// millisecond or so, after each operation. Where other work has one of their cores, one thread spends that on waiting for
/// another that would need it: with two threads, a step of `peer_c4` beside one busy core took 50 times as long as
/// without. By this it takes 4 times as long, and without other work no longer than before. OpenMP reads it when the
/// program is loaded.
const SPINS: (&str, &str) = ("GOMP_SPINCOUNT", "5000");

/// What says how OpenMP's threads wait, besides the number of [`SPINS`], which would win over it.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// The settings of `detect-torch`, of which a user's own, as `is_set` knows, win.
fn settings(is_set: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    let spins = Some(SPINS).filter(|_| !is_set(WAIT_POLICY));
    ALLOCATOR.into_iter().chain(spins).filter(|(name, _)| !is_set(name)).collect()
}

/// Where `detect-torch` lies: in the folder of the running program.
pub fn torch_program() -> std::io::Result<PathBuf> {
    // `current_exe` follows links, so that a link to `detect` somewhere on the PATH works.
    let own = std::env::current_exe()?.canonicalize()?;
    Ok(own.with_file_name(TORCH_PROGRAM))
}

/// Becomes `detect-torch` with the same arguments; comes back only when that fails.
pub fn to_torch() -> anyhow::Result<Exit> {
    let program =
        torch_program().context("cannot tell where this program lies").or_exit(Exit::Usage)?;
    if !program.is_file() {
        return crate::fail!(
            Exit::Usage,
            "this command needs {}, which is not there; build both programs with `make`, and keep them in one folder \
             (all but train runs on a CPU without it: --engine native)",
            program.display()
        );
    }
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1));
    command.envs(settings(|name| std::env::var_os(name).is_some()));
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        let error = command.exec();
        Err(error)
            .with_context(|| format!("cannot start {}", program.display()))
            .or_exit(Exit::Usage)
    }
    #[cfg(not(unix))]
    {
        let status = command
            .status()
            .with_context(|| format!("cannot start {}", program.display()))
            .or_exit(Exit::Usage)?;
        #[expect(clippy::exit, reason = "passes the other program's code on")]
        std::process::exit(status.code().unwrap_or(Exit::Internal as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_own_settings_win() {
        let names = |set: &[&str]| {
            let left = settings(|name| set.contains(&name));
            left.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let all = ["MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GOMP_SPINCOUNT"];
        assert_eq!(names(&[]), all);
        assert_eq!(names(&["MALLOC_MMAP_MAX_"]), all[1..]);
        assert_eq!(names(&["GOMP_SPINCOUNT"]), all[..2]);
        assert_eq!(names(&["OMP_WAIT_POLICY"]), all[..2]);
    }
}
