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
    // A user's own settings win.
    command.envs(ALLOCATOR.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()));
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
