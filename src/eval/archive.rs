//! Zip archives.

use std::io::{self, Cursor, Write};

use zip::ZipWriter;

/// Writes the archive that `body` fills. It is whole before the first byte goes to `out`: a `ZipWriter`
/// over a file that can't be written tells that on stderr by itself when it is dropped.
pub(super) fn write(
    mut out: impl Write,
    body: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>) -> io::Result<()>,
) -> io::Result<()> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    body(&mut archive)?;
    out.write_all(archive.finish()?.get_ref())?;
    out.flush()
}
