//! What computes a network, where and in which numbers: `--engine`, `--device`, `--threads`, `--precision`.
//!
//! The verbs are written once, for any [`Engine`]: `detect` runs them with [`Native`], `detect-torch` with
//! its own.

use std::path::Path;

use clap::{Args, ValueEnum};

use detect_kernel::Instructions;

use crate::engine::{self, Cpu};
use crate::failure::Exit;
use crate::network::{ClassifierModel, DetectorModel, FeatureModel};
use crate::weights::import::About;
use crate::weights::{ClassifierInfo, Contents, WeightsError};

/// The engine of a CPU where none is named.
const ON_A_CPU: EngineName = EngineName::Native;

/// Where and how a network runs.
#[derive(Debug, Clone, Args)]
pub struct RunOn {
    /// auto, cpu or cuda:N; auto takes the first GPU where there is one
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// CPU threads of the network [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// A device as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// The first GPU where there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl RunOn {
    /// The device that is named.
    ///
    /// # Errors
    /// It is none: wrong usage.
    pub fn device(&self) -> anyhow::Result<DeviceName> {
        match self.device.as_str() {
            "auto" => Ok(DeviceName::Auto),
            "cpu" => Ok(DeviceName::Cpu),
            "cuda" => Ok(DeviceName::Cuda(0)),
            other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(index) => Ok(DeviceName::Cuda(index)),
                None => crate::fail!(Exit::Usage, "--device {other}: expected auto, cpu or cuda:N"),
            },
        }
    }

    /// Threads of the network on a CPU: what was asked for, else one a core.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }
}

/// What computes a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// Ours, on a CPU, in this program.
    Native,
    /// libtorch, on a CPU or a GPU, in `detect-torch`.
    Torch,
}

/// Where a network runs that learns nothing.
#[derive(Debug, Clone, Args)]
pub struct InferOn {
    /// Device and threads.
    #[command(flatten)]
    pub run_on: RunOn,
    /// What computes: native, which is for CPUs alone, or torch, which is libtorch
    #[arg(long, value_enum, value_name = "ENGINE", hide_possible_values = true)]
    pub engine: Option<EngineName>,
    /// What the native engine multiplies: float32, or bf16, which is faster for large networks and less exact
    #[arg(
        long,
        value_enum,
        value_name = "PRECISION",
        default_value = "float32",
        hide_possible_values = true
    )]
    pub precision: Precision,
}

/// What products of a network's featurizer are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// As trained.
    Float32,
    /// Inputs and weights in bfloat16, sums in float32.
    Bf16,
}

impl InferOn {
    /// The engine that these arguments mean on this machine.
    ///
    /// # Errors
    /// Wrong usage: no device, or one that the engine can't use.
    pub fn engine(&self) -> anyhow::Result<EngineName> {
        chosen(self.engine, self.run_on.device()?, has_nvidia_driver)
    }
}

fn chosen(
    engine: Option<EngineName>,
    device: DeviceName,
    has_gpu: impl FnOnce() -> bool,
) -> anyhow::Result<EngineName> {
    match (engine, device) {
        (Some(EngineName::Native), DeviceName::Cuda(index)) => crate::fail!(
            Exit::Usage,
            "--engine native is for CPUs: it does not go with --device cuda:{index}; leave one of the two out"
        ),
        (Some(engine), _) => Ok(engine),
        (None, DeviceName::Cuda(_)) => Ok(EngineName::Torch),
        (None, DeviceName::Auto) if has_gpu() => Ok(EngineName::Torch),
        (None, DeviceName::Auto | DeviceName::Cpu) => Ok(ON_A_CPU),
    }
}

/// Whether this machine has a driver for NVIDIA's GPUs, found as `make setup` finds it. Whether it works is
/// libtorch's to say.
fn has_nvidia_driver() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Path::new("/proc/driver/nvidia/version").exists()
        || std::env::split_paths(&path).any(|folder| folder.join("nvidia-smi").is_file())
}

/// Opens networks for the verbs.
pub trait Engine: Sized {
    /// A detector that is ready.
    type Detector: DetectorModel;
    /// A classifier that is ready.
    type Classifier: ClassifierModel;
    /// A featurizer that is ready.
    type Features: FeatureModel;

    /// The engine on the device and with the threads that `on` asks for.
    ///
    /// # Errors
    /// Wrong usage: it can't use this device.
    fn start(on: &InferOn) -> anyhow::Result<Self>;

    /// What it is, for people.
    fn describe(&self) -> Described;

    /// Reads a detector's model file.
    fn detector(&self, path: &Path) -> Result<Self::Detector, WeightsError>;

    /// Reads a classifier's model file.
    fn classifier(&self, path: &Path) -> Result<Self::Classifier, WeightsError>;

    /// The classifier `info` with the tensors `backbone.*` of `contents`, which came from `path`.
    fn classifier_of(
        &self,
        info: ClassifierInfo,
        contents: Contents,
        path: &Path,
    ) -> Result<Self::Classifier, WeightsError>;

    /// The featurizer of what `about` describes, with the tensors `backbone.*` of `contents`, which came
    /// from `path`: a classifier whole, a detector up to where its cut needs it. Other tensors are passed
    /// over.
    fn features(
        &self,
        about: About,
        contents: Contents,
        path: &Path,
    ) -> Result<Self::Features, WeightsError>;
}

/// What an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Which one.
    pub name: EngineName,
    /// Its version, or its kernels: one or two words.
    pub with: String,
    /// cpu or cuda:N.
    pub device: String,
    /// CPU threads.
    pub threads: usize,
}

/// The engine of this program.
#[derive(Debug)]
pub struct Native {
    cpu: Cpu,
}

impl Engine for Native {
    type Detector = engine::Detector;
    type Classifier = engine::Classifier;
    type Features = engine::Features;

    fn start(on: &InferOn) -> anyhow::Result<Self> {
        // `auto` is the CPU here: where there is a GPU, the other program was chosen.
        let _ = chosen(Some(EngineName::Native), on.run_on.device()?, || false)?;
        let available = Instructions::available();
        if let Some(asked) = Instructions::not_there() {
            let there: Vec<_> = available.iter().map(|set| set.name()).collect();
            tracing::warn!(
                "DETECT_INSTRUCTIONS={asked} is not there; this processor has {}, and the widest is taken",
                there.join(", ")
            );
        }
        let threads = on.run_on.threads();
        let cpu = match on.precision {
            Precision::Float32 => Some(Cpu::float32(threads)),
            Precision::Bf16 => Cpu::bf16(threads),
        };
        if let Some(cpu) = cpu {
            return Ok(Self { cpu });
        }
        let asked = std::env::var("DETECT_INSTRUCTIONS").ok();
        let asked = asked.filter(|name| available.iter().any(|set| set.name() == name));
        let who = asked.map_or("this processor has".into(), |name| {
            format!("DETECT_INSTRUCTIONS={name} leaves")
        });
        crate::fail!(
            Exit::Usage,
            "--precision bf16: {who} no instructions for it (AVX512-BF16); leave it out, or set \
             DETECT_INSTRUCTIONS=portable to see what it finds, slowly"
        )
    }

    fn describe(&self) -> Described {
        Described {
            name: EngineName::Native,
            with: self.cpu.title().into(),
            device: "cpu".into(),
            threads: self.cpu.threads(),
        }
    }

    fn detector(&self, path: &Path) -> Result<Self::Detector, WeightsError> {
        engine::Detector::read(path, self.cpu)
    }

    fn classifier(&self, path: &Path) -> Result<Self::Classifier, WeightsError> {
        engine::Classifier::read(path, self.cpu)
    }

    fn classifier_of(
        &self,
        info: ClassifierInfo,
        contents: Contents,
        path: &Path,
    ) -> Result<Self::Classifier, WeightsError> {
        engine::Classifier::new(info, contents, path, self.cpu)
    }

    fn features(
        &self,
        about: About,
        contents: Contents,
        path: &Path,
    ) -> Result<Self::Features, WeightsError> {
        engine::Features::new(about, contents, path, self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_torch_s_and_a_cpu_has_a_default() {
        use DeviceName::{Auto, Cpu, Cuda};
        use EngineName::{Native, Torch};
        for (engine, device, gpu, expected) in [
            (None, Cuda(1), false, Torch),
            (None, Auto, true, Torch),
            (None, Auto, false, ON_A_CPU),
            (None, Cpu, true, ON_A_CPU),
            (Some(Torch), Cpu, false, Torch),
            (Some(Torch), Cuda(0), true, Torch),
            (Some(Native), Auto, true, Native),
            (Some(Native), Cpu, true, Native),
        ] {
            assert_eq!(chosen(engine, device, || gpu).unwrap(), expected, "{engine:?} {device:?}");
        }
        let refused = chosen(Some(Native), Cuda(2), || true).unwrap_err();
        assert_eq!(Exit::of(&refused), Exit::Usage);
        assert!(refused.to_string().contains("--device cuda:2"), "{refused}");
    }

    #[test]
    fn devices_are_read_as_they_are_named() {
        let device = |text: &str| RunOn { device: text.into(), threads: None }.device();
        assert_eq!(device("auto").unwrap(), DeviceName::Auto);
        assert_eq!(device("cpu").unwrap(), DeviceName::Cpu);
        assert_eq!(device("cuda").unwrap(), DeviceName::Cuda(0));
        assert_eq!(device("cuda:3").unwrap(), DeviceName::Cuda(3));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "CPU"] {
            let error = device(wrong).unwrap_err();
            assert_eq!(Exit::of(&error), Exit::Usage, "{wrong}");
        }
    }
}
