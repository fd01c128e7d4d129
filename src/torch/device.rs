//! Where a network runs: `--device` and `--threads`.

use detect::cli::RunOn;
use detect::fail;
use detect::failure::Exit;
use tch::{Cuda, Device};

/// Sets the number of threads and gives the device.
pub fn choose(run_on: &RunOn) -> anyhow::Result<Device> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tch::set_num_threads(run_on.threads.map_or(cores, usize::from) as i32);
    let devices = Cuda::device_count();
    let first = |index: usize| {
        if (index as i64) < devices {
            return Ok(Device::Cuda(index));
        }
        fail!(
            Exit::Usage,
            "--device cuda:{index}: this program sees {devices} GPUs; `detect doctor` says why, `make CUDA=1` builds for one"
        )
    };
    match run_on.device.as_str() {
        "auto" => Ok(Device::cuda_if_available()),
        "cpu" => Ok(Device::Cpu),
        "cuda" => first(0),
        other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(index) => first(index),
            None => fail!(Exit::Usage, "--device {other}: expected auto, cpu or cuda:N"),
        },
    }
}

/// What libtorch has here: the answer to `detect doctor`.
pub fn describe() -> serde_json::Value {
    serde_json::json!({
        "libtorch": env!("DETECT_LIBTORCH_VERSION"),
        "cuda_available": Cuda::is_available(),
        "cuda_devices": Cuda::device_count(),
        "threads": tch::get_num_threads(),
    })
}
