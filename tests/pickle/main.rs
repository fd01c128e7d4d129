//! The reader of PyTorch checkpoints: against torch's own reading, against damage, and against files
//! that want to run something or to fill the memory.

#![expect(clippy::unwrap_used, reason = "a test; clippy allows it only inside #[test] functions")]

mod counting;
#[path = "../damage/mod.rs"]
mod damage;
mod hostile;
mod make;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use detect::weights::pickle::PickleFile;
use detect::weights::{Contents, Source as _, StoredTensor, WeightsError};
use safetensors::SafeTensors;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pickle")
}

/// Every checkpoint of the folder.
fn checkpoints() -> Vec<PathBuf> {
    let files = fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e != "safetensors")).collect();
    files.sort();
    files
}

/// Opens a file and reads all of its tensors, within the bound on memory.
fn read_all(path: &Path) -> Result<Vec<(String, StoredTensor)>, WeightsError> {
    let (read, peak) = counting::peak(|| {
        let mut file = PickleFile::open(path)?;
        let names: Vec<_> = file.tensors().keys().cloned().collect();
        names
            .into_iter()
            .map(|name| {
                let tensor = file.read(&name)?;
                assert_eq!(tensor.shape, file.tensors()[&name].shape);
                assert_eq!(tensor.element, file.tensors()[&name].element);
                Ok((name, tensor))
            })
            .collect()
    });
    let length = fs::metadata(path).map_or(0, |m| m.len()) as usize;
    assert!(peak <= 2 * length + (64 << 20), "{length} bytes of file, {peak} of memory");
    read
}

#[test]
fn every_tensor_is_as_torch_reads_it() {
    let files = checkpoints();
    assert_eq!(files.len(), 19, "{files:?}");
    for path in files {
        let expected = path.with_extension("safetensors");
        let tensors = Contents::read(&expected).unwrap().tensors;
        let found: std::collections::BTreeMap<_, _> =
            read_all(&path).unwrap_or_else(|e| panic!("{e}")).into_iter().collect();
        assert_eq!(found, tensors, "{}", path.display());

        let bytes = fs::read(&expected).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let place = metadata.metadata().as_ref().unwrap()["place"].clone();
        let opened = PickleFile::open(&path).unwrap();
        assert_eq!(opened.place().unwrap_or_default(), place, "{}", path.display());
    }
}

#[test]
fn damage_to_the_zip_form_is_reported() {
    for name in ["views_zip.pth", "kinds_zip.pth", "training_zip.pth", "stored_zip.bin"] {
        let good = fs::read(golden().join(name)).unwrap();
        // The optimizer's tensors are not read.
        let all = name != "training_zip.pth";
        let read = |record: &str| {
            record.ends_with("/data.pkl")
                || record.ends_with("/byteorder")
                || all && record.contains("/data/")
        };
        let covered: Vec<Range<usize>> = make::records(&good)
            .into_iter()
            .filter(|(name, _)| read(name))
            .map(|(_, range)| range)
            .collect();
        let survivors = damage::flips_and_cuts(
            &good,
            |at| covered.iter().any(|range| range.contains(&at)),
            read_all,
        );
        // There is no checksum over the table itself: what is changed there may not matter, but it never
        // changes a tensor.
        assert!(survivors.changed.is_empty() && survivors.misnamed.is_empty(), "{survivors:?}");
        assert!(survivors.refused > damage::CASES / 4, "{survivors:?}");
    }
}

#[test]
fn damage_to_packed_records_is_reported() {
    let good = fs::read(golden().join("deflated_zip.bin")).unwrap();
    // The checksum is of what was packed: a flip that unpacks to the same does no harm.
    let survivors = damage::flips_and_cuts(&good, |_| false, read_all);
    assert!(survivors.changed.is_empty() && survivors.misnamed.is_empty(), "{survivors:?}");
}

#[test]
fn damage_to_the_older_form_changes_no_more_than_it_must() {
    for name in ["module_legacy.pth", "python2_legacy.bin", "parameters_legacy.pth"] {
        let path = golden().join(name);
        let good = fs::read(&path).unwrap();
        // No two tensors share a storage here; the storages are the end of the file.
        let stored: usize =
            read_all(&path).unwrap().iter().map(|(_, tensor)| tensor.bytes.len() + 8).sum();
        let data = good.len() - stored;
        let survivors = damage::flips_and_cuts(&good, |_| false, read_all);
        assert!(survivors.refused > damage::CASES / 4, "{name} {survivors:?}");
        // There is no checksum: a name or shape can be another one, which the comparison with the
        // network reports, and a flip in a value changes that value alone.
        assert!(survivors.misnamed.iter().all(|&at| at < data), "{survivors:?}");
        assert!(survivors.changed.len() > 20, "{survivors:?}");
        assert!(
            survivors.changed.iter().all(|&(at, values)| at >= data && values == 1),
            "{survivors:?}"
        );
    }
    // Views that share storages can be read through another stride, but that is all.
    let good = fs::read(golden().join("views_legacy.pth")).unwrap();
    let survivors = damage::flips_and_cuts(&good, |_| false, read_all);
    assert!(survivors.refused > damage::CASES / 4, "{survivors:?}");
}

#[test]
fn no_bit_of_an_older_description_changes_values() {
    let path = golden().join("module_legacy.pth");
    let whole = read_all(&path).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let stored: usize = whole.iter().map(|(_, tensor)| tensor.bytes.len() + 8).sum();
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.pth");
    let kind = |(name, tensor): &(String, StoredTensor)| {
        (name.clone(), tensor.element, tensor.shape.clone())
    };
    for bit in 0..8 * (bytes.len() - stored) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        damage::write_anew(&damaged, &bytes);
        if let Ok(tensors) = read_all(&damaged) {
            let alike = tensors.iter().map(kind).eq(whole.iter().map(kind));
            assert!(!alike || tensors == whole, "byte {} bit {}", bit / 8, bit % 8);
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}
