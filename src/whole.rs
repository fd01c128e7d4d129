//! Files and folders that are written whole or not at all.
//!
//! A kill, a full disk or an error in the middle leaves what was there before.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Makes the file `path` of what `body` writes: to a temporary file beside it, flushed to the disk,
/// then renamed. The folder must exist. Where `path` is a link, it stays one, and the file that it leads to is made.
///
/// # Errors
/// What the disk says, and that `path` is something else than a file: a device or a pipe would be replaced by one.
pub fn write(path: &Path, body: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let path = followed(path)?;
    if !may_become_file(&path) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    stage(&path, body)?.commit()
}

/// Where `path` leads if it is a link.
fn followed(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        followed => followed,
    }
}

/// Whether `path` is a file, or nothing.
pub fn may_become_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|there| there.is_file()) || !path.exists()
}

/// Names of temporary files are these with so many letters and digits between them.
const TEMPORARY: ([&str; 2], usize) = ([".", ".part"], 6);

/// Whether a file's name is that of a temporary file, which a kill leaves.
pub fn is_temporary(name: &str) -> bool {
    let ([prefix, suffix], random) = TEMPORARY;
    let between = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
    between.is_some_and(|random_part| {
        random_part.len() == random && random_part.chars().all(|c| c.is_ascii_alphanumeric())
    })
}

/// The first half of [`write()`]: the file lies whole beside `path`, and goes away unless it is committed.
pub fn stage(path: &Path, body: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Staged> {
    let ([prefix, suffix], random) = TEMPORARY;
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(suffix).rand_bytes(random);
    // Temporary files are private; what takes a file's name gets the usual mode.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o644));
    }
    let mut beside = builder.tempfile_in(folder(path))?;
    body(beside.as_file_mut())?;
    beside.as_file().sync_all()?;
    Ok(Staged { beside, path: path.to_owned() })
}

/// A file that waits beside its name.
#[derive(Debug)]
pub struct Staged {
    beside: tempfile::NamedTempFile,
    path: PathBuf,
}

impl Staged {
    /// Gives it its name.
    pub fn commit(self) -> io::Result<()> {
        self.beside.persist(&self.path).map_err(|e| e.error)?;
        // The new name, too, is on the disk.
        File::open(folder(&self.path))?.sync_all()
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Bytes that may still be written into `folder`; `None` where the system does not say.
pub fn free_space(folder: &Path) -> io::Result<Option<u64>> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(folder)?;
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        Ok(None)
    }
}

/// Makes the folder `path`, which must not exist or be empty, of what `body` puts into the folder that
/// it is given: one beside it, which is then renamed. The parent folders are made. Where `path` is a link, it stays one.
///
/// # Errors
/// The outer one where the folder could not be made, the inner one is `body`'s. That an empty folder can't be replaced is
/// found out before `body` begins.
pub fn write_folder<E>(
    path: &Path,
    body: impl FnOnce(&Path) -> Result<(), E>,
) -> io::Result<Result<(), E>> {
    let path = &followed(path)?;
    let parent = folder(path);
    std::fs::create_dir_all(parent)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o755));
    }
    if path.exists() {
        give_way(path, &builder.tempdir_in(parent)?.keep())?;
    }
    let beside = builder.tempdir_in(parent)?;
    if let Err(error) = body(beside.path()) {
        // Dropping it would hide what could not be removed.
        beside.close()?;
        return Ok(Err(error));
    }
    std::fs::rename(beside.path(), path)?;
    let _ = beside.keep(); // it has another name now
    File::open(parent)?.sync_all()?;
    Ok(Ok(()))
}

/// Puts the empty folder `new` in the place of the empty folder `path`.
fn give_way(path: &Path, new: &Path) -> io::Result<()> {
    let here = std::env::current_dir().is_ok_and(|here| here == path);
    let busy = io::Error::from(io::ErrorKind::ResourceBusy);
    let replaced = if here { Err(busy) } else { std::fs::rename(new, path) };
    replaced.map_err(|error| {
        // Nothing can be done about one that stays.
        let _ = std::fs::remove_dir(new);
        match error.kind() {
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => io::Error::new(
                error.kind(),
                "a new folder can't take the place of the one that the program stands in, nor of a mount point: name a \
                 folder inside of it",
            ),
            _ => error,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_fails_leaves_the_old_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write(&path, |file| file.write_all(b"first")).unwrap();
        let failed = write(&path, |file| {
            file.write_all(b"half of the")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        write(&path, |file| file.write_all(b"second")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        assert!(write(&dir.path().join("no/such.txt"), |_| Ok(())).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one_and_a_pipe_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["a.txt", "link.txt", "pipe"].map(|name| dir.path().join(name));
        fs::write(&file, "first").unwrap();
        std::os::unix::fs::symlink("a.txt", &link).unwrap();
        write(&link, |file| file.write_all(b"second")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "second");
        assert!(link.is_symlink());
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let refused = write(&pipe, |file| file.write_all(b"x")).unwrap_err();
        assert_eq!(refused.to_string(), "it is no regular file");
        assert!(!fs::metadata(&pipe).unwrap().is_file());
    }

    #[test]
    fn a_folder_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let failed = write_folder(&path, |new| {
            fs::write(new.join("half"), "x").unwrap();
            Err("the disk is full")
        });
        assert_eq!(failed.unwrap(), Err("the disk is full"));
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
        let fill = |new: &Path| fs::write(new.join("whole"), "x");
        write_folder(&path, fill).unwrap().unwrap();
        assert_eq!(fs::read_to_string(path.join("whole")).unwrap(), "x");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
        assert!(write_folder(&path, fill).is_err(), "it is not empty any more");
        fs::create_dir(dir.path().join("empty")).unwrap();
        write_folder(&dir.path().join("empty"), fill).unwrap().unwrap();
        #[cfg(unix)]
        {
            let (link, behind) = (dir.path().join("link"), dir.path().join("behind"));
            fs::create_dir(&behind).unwrap();
            std::os::unix::fs::symlink("behind", &link).unwrap();
            write_folder(&link, fill).unwrap().unwrap();
            assert!(link.is_symlink() && behind.join("whole").is_file());
        }
    }

    #[test]
    fn the_folder_that_the_program_stands_in_does_not_give_way() {
        let here = std::env::current_dir().unwrap();
        let refused = give_way(&here, Path::new("no/such")).unwrap_err();
        assert!(refused.to_string().contains("inside of it"), "{refused}");
        assert!(here.is_dir());
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write(&path, |_| Ok(())).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o444, 0o444);
    }
}
