//! Damages a good file of weights in every way that a disk or a network does, for the reader of any
//! format: no panic, no hang, and no tensor that silently is another one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use detect::weights::{StoredTensor, WeightsError};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Flips and cuts for each file.
pub(crate) const CASES: usize = 1000;
/// A small file that takes this long hangs; the slowest machine needs milliseconds.
const HANG: Duration = Duration::from_secs(20);

/// What became of the flipped files that were read without an error.
#[derive(Debug, Default)]
pub(crate) struct Survivors {
    /// Flips that were reported.
    pub(crate) refused: usize,
    /// Flips of what no tensor depends on.
    pub(crate) same: usize,
    /// Positions of flips after which names and shapes were right, but values were not; and how many values.
    pub(crate) changed: Vec<(usize, usize)>,
    /// Positions of flips after which a name, shape or kind of element was another: what compares a file
    /// with the network reports these.
    pub(crate) misnamed: Vec<usize>,
}

/// Reads `good` with [`CASES`] single bytes changed, one at a time, and cut at [`CASES`] lengths.
///
/// `covered` says which bytes a checksum covers: a change there must be an error. A cut must be one, too,
/// unless all tensors are still as they were. Both are drawn from a fixed seed.
pub(crate) fn flips_and_cuts(
    good: &[u8],
    covered: impl Fn(usize) -> bool,
    read_all: impl Fn(&Path) -> Result<Vec<(String, StoredTensor)>, WeightsError>,
) -> Survivors {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let read = |bytes: &[u8], what: &str| {
        write_anew(&path, bytes);
        let start = Instant::now();
        let read = read_all(&path);
        assert!(start.elapsed() < HANG, "{what} takes {:?}", start.elapsed());
        read.map(|tensors| tensors.into_iter().collect::<BTreeMap<_, _>>())
    };
    let whole = read(good, "the good file").expect("the good file is read");
    assert!(!whole.is_empty(), "the good file has tensors");
    let kinds = |tensors: &BTreeMap<String, StoredTensor>| -> Vec<_> {
        tensors.iter().map(|(n, t)| (n.clone(), t.element, t.shape.clone())).collect()
    };

    let mut random = ChaCha8Rng::seed_from_u64(20);
    let mut survivors = Survivors::default();
    let mut bytes = good.to_vec();
    for _ in 0..CASES {
        let at = random.random_range(0..good.len());
        let mask = random.random_range(1..=u8::MAX);
        bytes[at] ^= mask;
        let what = format!("byte {at} flipped by {mask:#04x}");
        match read(&bytes, &what) {
            Err(_) => survivors.refused += 1,
            Ok(_) if covered(at) => panic!("{what} is covered by a checksum, but is not reported"),
            Ok(tensors) if tensors == whole => survivors.same += 1,
            Ok(tensors) if kinds(&tensors) == kinds(&whole) => {
                survivors.changed.push((at, differing(&tensors, &whole)));
            }
            Ok(_) => survivors.misnamed.push(at),
        }
        bytes[at] ^= mask;
    }
    for _ in 0..CASES {
        let length = random.random_range(0..good.len());
        if let Ok(tensors) = read(&good[..length], &format!("cut at {length}")) {
            assert_eq!(tensors, whole, "cut at {length}");
        }
    }
    survivors
}

/// Writes a file that is not there yet: ext4 waits for the disk when one is cut to nothing and written again.
pub(crate) fn write_anew(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

/// How many elements differ between tensors of the same names and shapes.
fn differing(
    some: &BTreeMap<String, StoredTensor>,
    others: &BTreeMap<String, StoredTensor>,
) -> usize {
    let elements = |a: &StoredTensor, b: &StoredTensor| {
        let size = a.element.bytes();
        a.bytes.chunks(size).zip(b.bytes.chunks(size)).filter(|(a, b)| a != b).count()
    };
    some.iter().map(|(name, tensor)| elements(tensor, &others[name])).sum()
}
