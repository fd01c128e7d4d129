//! A seal on a checkpoint file: a SHA-256 over every byte of it, in its own metadata.
//!
//! The digest is taken with zeros in its own place. Checksums of pieces say where a damaged file is damaged.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use detect::weights::Contents;
use sha2::{Digest as _, Sha256};

const DIGEST: &str = "sha256";
const PIECES: &str = "pieces";
/// Of 64 hexadecimal digits.
const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Bytes of tensors that share a checksum.
const PIECE: usize = 1 << 20;

/// Adds the seal to the metadata; nothing may be changed afterwards.
pub(super) fn seal(contents: &mut Contents) {
    contents.metadata.remove(DIGEST);
    contents.metadata.remove(PIECES);
    let pieces = scan(contents).pieces();
    contents.metadata.insert(PIECES.into(), pieces);
    contents.metadata.insert(DIGEST.into(), BLANK.into());
    let digest = scan(contents).digest();
    contents.metadata.insert(DIGEST.into(), digest);
}

fn scan(contents: &Contents) -> Scan {
    let mut scan = Scan::default();
    contents.write_to(&mut scan).expect("nothing here can fail");
    scan
}

/// Whether a file of this metadata has a seal; the first versions had a digest of the tensors alone.
pub(super) fn is_sealed(contents: &Contents) -> bool {
    contents.metadata.contains_key(PIECES)
}

/// What is wrong with the file `path`, from which `contents` were read.
pub(super) fn broken(path: &Path, contents: &Contents) -> io::Result<Option<String>> {
    let get = |key: &str| contents.metadata.get(key).map(String::as_str).unwrap_or_default();
    let digest = get(DIGEST);
    let mut scan = Scan { own: digest.as_bytes().to_vec(), ..Scan::default() };
    io::copy(&mut io::BufReader::with_capacity(PIECE, File::open(path)?), &mut scan)?;
    let (start, pieces) = (scan.start(), scan.pieces());
    if scan.digest() == digest {
        return Ok(None);
    }
    let differs = |(a, b): (&[u8], &[u8])| a != b;
    let mut pairs = get(PIECES).as_bytes().chunks(8).zip(pieces.as_bytes().chunks(8));
    Ok(Some(match pairs.position(differs) {
        Some(piece) => {
            let from = start + piece * PIECE;
            format!(
                "its checksum is wrong; the damage lies in the {PIECE} bytes from byte {from} on"
            )
        }
        None => format!("its checksum is wrong; the damage lies in its first {start} bytes"),
    }))
}

/// Bytes in hexadecimal.
trait Hex: Iterator<Item = u8> + Sized {
    fn hex(self) -> String {
        self.fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

impl<I: Iterator<Item = u8>> Hex for I {}

/// Takes the bytes of a file in order.
#[derive(Default)]
struct Scan {
    /// The first 8 bytes and the header, until it is whole.
    header: Vec<u8>,
    whole: bool,
    /// The file's own digest, which counts as zeros.
    own: Vec<u8>,
    sha: Sha256,
    /// Of the piece at work, and bytes in it.
    crc: crc32fast::Hasher,
    filled: usize,
    done: Vec<u32>,
}

impl Scan {
    /// Where the tensors begin.
    fn start(&self) -> usize {
        self.header.len()
    }

    /// Length of the header with its 8 bytes, once these are known. A length beyond all sense counts as
    /// any other: then the header never ends.
    fn header_length(&self) -> Option<usize> {
        let (length, _) = self.header.split_first_chunk::<8>()?;
        Some(usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX).saturating_add(8))
    }

    fn header_ends(&mut self) {
        self.whole = true;
        if self.own.len() == BLANK.len() {
            let places = self.header.windows(BLANK.len()).position(|w| w == self.own);
            if let Some(at) = places {
                self.header[at..at + BLANK.len()].copy_from_slice(BLANK.as_bytes());
            }
        }
        self.sha.update(&self.header);
    }

    fn pieces(&self) -> String {
        let open = (self.filled > 0).then(|| self.crc.clone().finalize());
        self.done.iter().copied().chain(open).flat_map(u32::to_be_bytes).hex()
    }

    fn digest(mut self) -> String {
        if !self.whole {
            self.header_ends();
        }
        self.sha.finalize().iter().copied().hex()
    }
}

impl Write for Scan {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.whole {
            let missing = self.header_length().map_or(8, |n| n) - self.header.len();
            let taken = missing.min(bytes.len());
            self.header.extend_from_slice(&bytes[..taken]);
            if self.header_length().is_some_and(|n| n == self.header.len()) {
                self.header_ends();
            }
            return Ok(taken);
        }
        let taken = (PIECE - self.filled).min(bytes.len());
        self.sha.update(&bytes[..taken]);
        self.crc.update(&bytes[..taken]);
        self.filled += taken;
        if self.filled == PIECE {
            let full = std::mem::take(&mut self.crc);
            self.done.push(full.finalize());
            self.filled = 0;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use detect::weights::{Element, StoredTensor};

    use super::*;

    #[test]
    fn a_broken_seal_tells_where() {
        let tensor = StoredTensor {
            element: Element::U8,
            shape: vec![3 * PIECE],
            bytes: vec![7; 3 * PIECE],
        };
        let mut contents = Contents::default();
        contents.tensors.insert("a".into(), tensor);
        contents.metadata.insert("format".into(), "a test".into());
        seal(&mut contents);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        contents.write(&path).unwrap();
        assert_eq!(broken(&path, &contents).unwrap(), None);
        // The digest as anybody can take it: of the file with zeros where it stands.
        let bytes = std::fs::read(&path).unwrap();
        let own = contents.metadata[DIGEST].clone();
        let at = bytes.windows(own.len()).position(|w| w == own.as_bytes()).unwrap();
        let mut blank = bytes.clone();
        blank[at..at + own.len()].fill(b'0');
        assert_eq!(Sha256::digest(blank).iter().copied().hex(), own);
        let start = bytes.len() - 3 * PIECE;
        for (place, words) in [
            (start + PIECE + 5, format!("from byte {} on", start + PIECE)),
            (bytes.len() - 1, format!("from byte {} on", start + 2 * PIECE)),
            (start - 1, format!("first {start} bytes")),
        ] {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let found = broken(&path, &contents).unwrap().unwrap();
            assert!(found.contains(&words), "{found}: {words}");
        }
    }
}
