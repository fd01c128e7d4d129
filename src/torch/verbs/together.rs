//! What has to hold before several processes train as one.

use anyhow::Context as _;
use detect::config::Config;
use detect::data::{Dataset, Fingerprint};
use detect::fail;
use detect::failure::{Exit, OrExit as _};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::ranks::Ranks;

/// What all processes of a run must have alike.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Same {
    version: String,
    libtorch: String,
    config: Config,
    train: Fingerprint,
    val: Option<Fingerprint>,
    /// Where it stands, as its checkpoint says.
    standing: String,
}

impl Same {
    /// What the process `rank` has otherwise, in words.
    fn difference(&self, rank: usize, other: &Self) -> Option<String> {
        let mut parts = Vec::new();
        let mut told = |what: &str, a: &dyn ToString, b: &dyn ToString| {
            let (a, b) = (a.to_string(), b.to_string());
            if a != b {
                parts.push(format!("{what}: {a} -> {b}"));
            }
        };
        told("version of detect", &self.version, &other.version);
        told("version of libtorch", &self.libtorch, &other.libtorch);
        told("where the run stands", &self.standing, &other.standing);
        parts.extend(self.config.differences(&other.config));
        let split = |what: &str, a: Option<&Fingerprint>, b: Option<&Fingerprint>| match (a, b) {
            (Some(a), Some(b)) => a.difference(b).map(|d| format!("{what}: {d}")),
            (None, None) => None,
            _ => Some(format!("{what}: one has it, the other has not")),
        };
        parts.extend(split("training split", Some(&self.train), Some(&other.train)));
        parts.extend(split("validation split", self.val.as_ref(), other.val.as_ref()));
        (!parts.is_empty())
            .then(|| format!("process 0 -> process {rank}\n  {}", parts.join("\n  ")))
    }
}

/// Refuses to go on where a process has another program, configuration or data set, or stands elsewhere.
pub(super) fn check(
    ranks: &dyn Ranks,
    config: &Config,
    train: &Dataset,
    val: Option<&Dataset>,
    standing: String,
) -> anyhow::Result<()> {
    let count = ranks.share().count;
    if count == 1 {
        return Ok(());
    }
    let same = Same {
        version: env!("CARGO_PKG_VERSION").into(),
        libtorch: env!("DETECT_LIBTORCH_VERSION").into(),
        config: config.clone(),
        train: Fingerprint::of(train),
        val: val.map(Fingerprint::of),
        standing,
    };
    let all = ranks.gather(&serde_json::to_vec(&same).expect("plain structs become JSON"));
    let difference = |(rank, bytes): (usize, &Vec<u8>)| match serde_json::from_slice(bytes) {
        Ok(other) => same.difference(rank, &other),
        // Only another version writes another form.
        Err(_) => Some(format!("process {rank} is another version of the program")),
    };
    let found = all.iter().enumerate().find_map(difference).unwrap_or_default();
    let found = String::from_utf8_lossy(&ranks.broadcast(found.into_bytes())).into_owned();
    if !found.is_empty() {
        return fail!(
            Exit::Usage,
            "processes that train together must have the same program, configuration and data:\n  {found}"
        );
    }
    let (batch, accumulate) = (config.train.batch, config.train.accumulate);
    if accumulate < count {
        return fail!(
            Exit::Usage,
            "a step has train.accumulate = {accumulate} batches of {batch} images, which {count} processes can't \
             share: start as many processes, or give --accumulate {count} for steps of {} images (and a \
             train.lr for that)",
            batch * count
        );
    }
    if !accumulate.is_multiple_of(count) && ranks.leads() {
        tracing::warn!(
            "train.accumulate = {accumulate} batches a step are no multiple of {count} processes: some will wait"
        );
    }
    Ok(())
}

/// The GPU of this process, where `name` leaves the choice and `device` is one: each process of a machine takes
/// the next.
pub(super) fn device(ranks: &dyn Ranks, name: &str, device: Device) -> anyhow::Result<Device> {
    let free = ["auto", "cuda"].contains(&name) && device.is_cuda();
    if ranks.share().count == 1 || !free {
        return Ok(device);
    }
    let (local, devices) = (ranks.local_rank(), tch::Cuda::device_count());
    if local as i64 >= devices {
        return fail!(
            Exit::Usage,
            "process {local} of this machine has no GPU of its own: there are {devices}. Start as many processes, \
             or say --device cpu"
        );
    }
    Ok(Device::Cuda(local))
}

/// The run folder of process 0, for all.
pub(super) fn folder(
    ranks: &dyn Ranks,
    choose: impl FnOnce() -> anyhow::Result<std::path::PathBuf>,
) -> anyhow::Result<std::path::PathBuf> {
    if ranks.share().count == 1 {
        return choose();
    }
    let own =
        if ranks.leads() { choose()?.into_os_string().into_encoded_bytes() } else { Vec::new() };
    let path = String::from_utf8(ranks.broadcast(own));
    Ok(path.context("the name of the run folder is not UTF-8").or_exit(Exit::Usage)?.into())
}
