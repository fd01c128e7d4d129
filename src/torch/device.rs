//! Where a network runs: `--device` and `--threads`.

use detect::cli::RunOn;
use detect::cli::engine::DeviceName;
use detect::fail;
use detect::failure::Exit;
use tch::{Cuda, Device};

/// Sets the number of threads and gives the device.
pub fn choose(run_on: &RunOn) -> anyhow::Result<Device> {
    tch::set_num_threads(run_on.threads() as i32);
    match run_on.device()? {
        DeviceName::Auto => Ok(Device::cuda_if_available()),
        DeviceName::Cpu => Ok(Device::Cpu),
        DeviceName::Cuda(index) => {
            let devices = Cuda::device_count();
            if (index as i64) < devices {
                return Ok(Device::Cuda(index));
            }
            fail!(
                Exit::Usage,
                "--device cuda:{index}: this program sees {devices} GPUs; `detect doctor` says why, `make CUDA=1` builds for one"
            )
        }
    }
}

/// As it is named on the command line.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
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
