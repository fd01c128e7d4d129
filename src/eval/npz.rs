//! Arrays as numpy reads them: an `.npz`, which is a zip archive of `.npy` files, stored as they are.

use std::io::{self, Seek, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::archive;
use super::coco::Arrays;

/// Writes `precision [T, R, K, A, M]`, `recall [T, K, A, M]` and `scores [T, R, K, A, M]`, as
/// `numpy.load` hands them over.
pub fn write(arrays: &Arrays, out: impl Write) -> io::Result<()> {
    let Arrays { precision, recall, scores } = arrays;
    archive::write(out, |archive| {
        add(archive, "precision", precision.shape(), precision.iter())?;
        add(archive, "recall", recall.shape(), recall.iter())?;
        add(archive, "scores", scores.shape(), scores.iter())
    })
}

fn add<'a>(
    archive: &mut ZipWriter<impl Write + Seek>,
    name: &str,
    shape: &[usize],
    values: impl ExactSizeIterator<Item = &'a f64>,
) -> io::Result<()> {
    // Stored, as numpy's own `savez` does; without a time, the same arrays are the same bytes.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(values.len() > 1 << 28);
    archive.start_file(format!("{name}.npy"), options)?;
    let mut array = npy_header(shape);
    array.extend(values.flat_map(|x| x.to_le_bytes()));
    archive.write_all(&array)
}

/// Version 1.0 of the format: float64, C order, padded so that the values start at a multiple of 64.
fn npy_header(shape: &[usize]) -> Vec<u8> {
    let shape = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({shape},), }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((length as u16).to_le_bytes());
    header.extend(format!("{text:<width$}\n", width = length - 1).into_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use ndarray::{Array4, Array5};

    use super::*;

    #[test]
    fn the_archive_is_whole() {
        let arrays = Arrays {
            precision: Array5::zeros((2, 3, 1, 1, 1)),
            recall: Array4::ones((2, 1, 1, 1)),
            scores: Array5::zeros((2, 3, 1, 1, 1)),
        };
        let mut bytes = io::Cursor::new(Vec::new());
        write(&arrays, &mut bytes).unwrap();
        let mut archive = zip::ZipArchive::new(bytes).unwrap();
        let names: Vec<String> =
            archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        assert_eq!(names, ["precision.npy", "recall.npy", "scores.npy"]);
        let mut array = Vec::new();
        archive.by_index(0).unwrap().read_to_end(&mut array).unwrap();
        // 128 bytes of head and 6 values.
        assert_eq!(array.len(), 128 + 6 * 8);
        assert_eq!(&array[..8], b"\x93NUMPY\x01\x00");
        let text = String::from_utf8_lossy(&array[10..128]);
        assert!(text.contains("'shape': (2, 3, 1, 1, 1,), }"), "{text}");
        assert_eq!(array[127], b'\n');
    }
}
