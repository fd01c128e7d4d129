//! The archive that COCO's evaluation servers take for test-dev, whose truth is not public.
//!
//! `detections_test-dev2017_<algorithm>_results.zip` holds one file, the results list of the same name, and
//! no folder: servers refuse anything else.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime};

use super::{ResultEntry, archive};
use crate::whole;

/// Writes the archive of `results` into `folder`, whole or not at all, and gives its path. `algorithm` is
/// a word for its name. Boxes are rounded to a tenth of a pixel, as COCO advises, since that halves the
/// size.
pub fn write(folder: &Path, algorithm: &str, results: &[ResultEntry]) -> io::Result<PathBuf> {
    let stem = format!("detections_test-dev2017_{algorithm}_results");
    let path = folder.join(format!("{stem}.zip"));
    whole::write(&path, |file| {
        // Without a time, the same results are the same bytes.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644)
            .large_file(results.len() > 10_000_000);
        archive::write(file, |archive| {
            archive.start_file(format!("{stem}.json"), options)?;
            list(archive, results)
        })
    })?;
    Ok(path)
}

/// The results list, an entry a line.
fn list(out: &mut impl Write, results: &[ResultEntry]) -> io::Result<()> {
    let tenth = |x: f64| (x * 10.).round() / 10.;
    out.write_all(b"[")?;
    for (i, entry) in results.iter().enumerate() {
        let entry = json!({
            "image_id": entry.image_id,
            "category_id": entry.category_id,
            "bbox": entry.bbox.map(tenth),
            "score": entry.score,
        });
        let comma: &[u8] = if i == 0 { b"\n" } else { b",\n" };
        out.write_all(comma)?;
        serde_json::to_writer(&mut *out, &entry)?;
    }
    out.write_all(b"\n]\n")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_archive_holds_one_results_list_and_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |image_id, x: f64| ResultEntry {
            image_id,
            category_id: 18,
            bbox: [x, 2.25, 30.04, 4.],
            score: 0.123_456_789,
        };
        let path = write(dir.path(), "detect", &[entry(1, 0.149), entry(581_929, -1.)]).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(name, "detections_test-dev2017_detect_results.zip");
        let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(archive.len(), 1);
        let mut file = archive.by_index(0).unwrap();
        assert_eq!(file.name().unwrap(), "detections_test-dev2017_detect_results.json");
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            list,
            json!([
                { "image_id": 1, "category_id": 18, "bbox": [0.1, 2.3, 30.0, 4.0], "score": 0.123_456_789 },
                { "image_id": 581_929, "category_id": 18, "bbox": [-1.0, 2.3, 30.0, 4.0], "score": 0.123_456_789 },
            ])
        );
        drop(file);
        let again = std::fs::read(&path).unwrap();
        write(dir.path(), "detect", &[entry(1, 0.149), entry(581_929, -1.)]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), again);
        let none = write(dir.path(), "none", &[]).unwrap();
        assert!(none.is_file());
    }
}
