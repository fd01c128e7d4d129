//! Arrays as numpy reads them: an `.npz`, which is a zip archive of `.npy` files, stored as they are.

use std::io::{self, Write};

use super::coco::Arrays;

/// Writes `precision [T, R, K, A, M]`, `recall [T, K, A, M]` and `scores [T, R, K, A, M]`, as
/// `numpy.load` hands them over.
pub fn write(arrays: &Arrays, out: impl Write) -> io::Result<()> {
    let mut archive = Archive { out, directory: Vec::new(), entries: 0, offset: 0 };
    let Arrays { precision, recall, scores } = arrays;
    archive.add("precision", precision.shape(), precision.iter())?;
    archive.add("recall", recall.shape(), recall.iter())?;
    archive.add("scores", scores.shape(), scores.iter())?;
    archive.finish()
}

struct Archive<W> {
    out: W,
    directory: Vec<u8>,
    entries: u16,
    offset: usize,
}

impl<W: Write> Archive<W> {
    fn add<'a>(
        &mut self,
        name: &str,
        shape: &[usize],
        values: impl Iterator<Item = &'a f64>,
    ) -> io::Result<()> {
        let mut array = npy_header(shape);
        array.extend(values.flat_map(|x| x.to_le_bytes()));
        let too_large = || io::Error::other("the arrays are too large for one .npz file (4 GiB)");
        // The classic form of a zip archive has 32 bits for sizes and places.
        let size = u32::try_from(array.len()).map_err(|_| too_large())?;
        let offset = u32::try_from(self.offset).map_err(|_| too_large())?;
        let name = format!("{name}.npy");

        let mut fields = Vec::new();
        fields.extend(20_u16.to_le_bytes()); // version that is needed: 2.0
        fields.extend(0_u16.to_le_bytes()); // flags
        fields.extend(0_u16.to_le_bytes()); // stored
        fields.extend(0_u16.to_le_bytes()); // midnight
        fields.extend(0x21_u16.to_le_bytes()); // 1 January 1980: the same bytes whenever written
        fields.extend(crc32fast::hash(&array).to_le_bytes());
        fields.extend(size.to_le_bytes()); // as stored
        fields.extend(size.to_le_bytes()); // as it is
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend(0_u16.to_le_bytes()); // extra field

        self.write(b"PK\x03\x04")?;
        self.write(&fields)?;
        self.write(name.as_bytes())?;
        self.write(&array)?;

        self.directory.extend(b"PK\x01\x02");
        self.directory.extend(20_u16.to_le_bytes()); // version that wrote it
        self.directory.extend(fields);
        self.directory.extend([0; 10]); // comment, disk, attributes
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.entries += 1;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let offset = u32::try_from(self.offset).map_err(io::Error::other)?;
        let directory = std::mem::take(&mut self.directory);
        self.write(&directory)?;
        let mut end = b"PK\x05\x06".to_vec();
        end.extend([0; 4]); // disks
        end.extend(self.entries.to_le_bytes());
        end.extend(self.entries.to_le_bytes());
        end.extend((directory.len() as u32).to_le_bytes());
        end.extend(offset.to_le_bytes());
        end.extend([0; 2]); // comment
        self.write(&end)?;
        self.out.flush()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len();
        self.out.write_all(bytes)
    }
}

/// Version 1.0 of the format: float64, C order, padded so that the values start at a multiple of 64.
fn npy_header(shape: &[usize]) -> Vec<u8> {
    let shape: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let text =
        format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((length as u16).to_le_bytes());
    header.extend(format!("{text:<width$}\n", width = length - 1).into_bytes());
    header
}

#[cfg(test)]
mod tests {
    use ndarray::{Array4, Array5};

    use super::*;

    #[test]
    fn the_archive_is_whole() {
        let arrays = Arrays {
            precision: Array5::zeros((2, 3, 1, 1, 1)),
            recall: Array4::ones((2, 1, 1, 1)),
            scores: Array5::zeros((2, 3, 1, 1, 1)),
        };
        let mut bytes = Vec::new();
        write(&arrays, &mut bytes).unwrap();
        // Three arrays of 128 bytes of head and 6, 2 and 6 values.
        let head = 30 + "precision.npy".len();
        assert_eq!(&bytes[..4], b"PK\x03\x04");
        assert_eq!(&bytes[head..head + 8], b"\x93NUMPY\x01\x00");
        let text = String::from_utf8_lossy(&bytes[head + 10..head + 128]);
        assert!(text.contains("'shape': (2, 3, 1, 1, 1,), }"), "{text}");
        assert_eq!(bytes[head + 127], b'\n');
        let end = &bytes[bytes.len() - 22..];
        assert_eq!(&end[..4], b"PK\x05\x06");
        assert_eq!(end[10], 3);
    }
}
