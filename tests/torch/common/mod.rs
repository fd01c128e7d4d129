//! Golden tensors and how they are compared.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use detect::weights::Contents;
use detect_torch::detector::rpn::Proposals;
use detect_torch::weights::from_stored;
use tch::{Device, Kind, Tensor};

#[path = "../../common/oracle.rs"]
mod oracle_files;

#[allow(unused_imports, reason = "a part of each test program; classify.rs uses none of it")]
pub(crate) use oracle_files::*;

/// Where networks and goldens lie: a GPU where `DETECT_TEST_DEVICE=cuda:N` names one.
pub(crate) fn device() -> Device {
    match std::env::var("DETECT_TEST_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => Device::Cpu,
        Ok(name) => {
            let index = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
            Device::Cuda(index.unwrap_or_else(|| panic!("DETECT_TEST_DEVICE={name}")))
        }
    }
}

/// Held by a test whose outcome hangs on libtorch's generator: all threads draw from the one.
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The tensors of a golden file by name.
pub(crate) struct Golden {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let contents = Contents::read(path).unwrap();
        let here = |t| from_stored(t).to_device(device());
        let tensors = contents.tensors.iter().map(|(n, t)| (n.clone(), here(t))).collect();
        Self { path: path.into(), tensors }
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        let found = self.tensors.get(name);
        found.unwrap_or_else(|| panic!("{} has no {name}", self.path.display()))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.tensors.iter()
    }
}

/// The largest difference, as a share of the golden tensor's largest value.
pub(crate) fn difference(golden: &Tensor, candidate: &Tensor) -> f64 {
    assert_eq!(golden.size(), candidate.size(), "shapes differ");
    if golden.numel() == 0 {
        return 0.;
    }
    let [g, c] = [golden, candidate].map(|t| t.detach().to_device(Device::Cpu));
    let (g, c) = (g.to_kind(Kind::Double), c.to_kind(Kind::Double));
    let worst = (&g - &c).abs().max().double_value(&[]);
    let scale = g.abs().max().double_value(&[]);
    assert!(!worst.is_nan(), "NaN in a comparison");
    if scale == 0. { worst } else { worst / scale }
}

/// Fails unless `candidate` is `golden` to within `limit` of its largest value.
#[track_caller]
pub(crate) fn assert_close(what: &str, golden: &Tensor, candidate: &Tensor, limit: f64) {
    assert_eq!(golden.size(), candidate.size(), "{what}: shapes differ");
    let found = difference(golden, candidate);
    assert!(
        found <= limit,
        "{what}: differs by {found:.2e} of the largest value (limit {limit:.0e})"
    );
}

/// Fails unless two tensors of integers are the same.
#[track_caller]
pub(crate) fn assert_exact(what: &str, golden: &Tensor, candidate: &Tensor) {
    assert_eq!(golden.size(), candidate.size(), "{what}: shapes differ");
    let [golden, candidate] =
        [golden, candidate].map(|t| t.to_device(Device::Cpu).to_kind(Kind::Int64));
    assert!(
        golden.equal(&candidate),
        "{what}: differs\n golden    {golden:?}\n candidate {candidate:?}"
    );
}

/// Boxes and scores of proposals of a pass that went ahead; fails if they are not settled.
#[track_caller]
pub(crate) fn settled(proposals: &Proposals) -> [Tensor; 2] {
    let unread = proposals.unread.as_ref().expect("a pass that went ahead");
    assert!(bool::try_from(&unread.settled).unwrap(), "not settled");
    let real = unread.real.nonzero().squeeze_dim(1);
    [&proposals.boxes, &proposals.scores].map(|rows| rows.index_select(0, &real))
}
