//! What a run stands on: processor, memory, system, GPU driver; and the memory that this process holds.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const KIB_A_MIB: f64 = 1024.;
/// How long another program may take to answer; a broken GPU driver never does.
const PATIENCE: Duration = Duration::from_secs(20);

/// Memory that this process holds at the moment (the resident set), in MiB; `None` where the system has no
/// /proc to say it.
pub fn resident_mib() -> Option<f64> {
    let kib = kib(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS")?;
    Some(kib as f64 / KIB_A_MIB)
}

/// The most memory that this process has held (resident) at any time, in MiB; `None` as above.
pub fn peak_mib() -> Option<f64> {
    let kib = kib(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM")?;
    Some(kib as f64 / KIB_A_MIB)
}

/// Memory that could be taken now without swapping, in MiB; `None` where the system does not tell.
pub fn available_mib() -> Option<f64> {
    let kib = kib(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")?;
    Some(kib as f64 / KIB_A_MIB)
}

/// Processor, cores, memory and system, and the GPUs where `gpu` asks for them. What the system does not tell is left out.
pub fn describe(gpu: bool) -> Value {
    let mut about =
        json!({ "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH) });
    let cpu = fs::read_to_string("/proc/cpuinfo").ok();
    if let Some(model) = cpu.as_deref().and_then(cpu_model) {
        about["cpu"] = json!(model);
    }
    if let Ok(cores) = std::thread::available_parallelism() {
        about["cores"] = json!(cores);
    }
    let memory = fs::read_to_string("/proc/meminfo").ok();
    if let Some(kib) = memory.as_deref().and_then(|text| kib(text, "MemTotal")) {
        about["memory_mib"] = json!(kib / 1024);
    }
    if let Ok(kernel) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        about["kernel"] = json!(kernel.trim());
    }
    if let Some(gpus) = gpu.then(nvidia_smi).flatten() {
        about["gpu"] = json!(gpus);
    }
    about
}

/// The GPUs that the driver knows: name, memory, driver version.
pub(crate) fn nvidia_smi() -> Option<String> {
    let query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"];
    let text = answer(Command::new("nvidia-smi").args(query)).ok()?;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// What `command` prints on stdout, or why it did not end well within [`PATIENCE`].
pub(crate) fn answer(command: &mut Command) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                // A process that hangs in the driver may not even be killed; it is not waited for.
                let _ = child.kill();
                return Err(format!("no answer within {} s", PATIENCE.as_secs()));
            }
            Err(e) => return Err(e.to_string()),
        }
    };
    // What these programs print fits the pipe, so reading after the end is enough.
    let mut text = String::new();
    let mut stdout = child.stdout.take().expect("stdout is piped");
    stdout.read_to_string(&mut text).map_err(|e| e.to_string())?;
    if status.success() {
        return Ok(text);
    }
    let mut words = String::new();
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let _ = stderr.read_to_string(&mut words); // its words are a courtesy
    let last = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Err(format!("{status}: {last}"))
}

/// The number of a line such as `MemTotal:  1024 kB`, in KiB.
pub(crate) fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"))?;
    let model = line.trim_start().strip_prefix(':')?.trim();
    (!model.is_empty()).then_some(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo why >&2; exit 127"]);
        let problem = answer(&mut command).unwrap_err();
        assert!(problem.contains("127") && problem.contains("why"), "{problem}");
        assert_eq!(answer(Command::new("sh").args(["-c", "echo out"])), Ok("out\n".into()));
        assert!(answer(&mut Command::new("/no/such/program")).is_err());
    }

    #[test]
    fn files_of_proc_are_read() {
        let status = "Name:\tdetect\nVmHWM:\t   900 kB\nVmRSS:\t   2048 kB\n";
        assert_eq!(kib(status, "VmRSS"), Some(2048));
        assert_eq!(kib(status, "Name"), None);
        assert_eq!(kib(status, "VmSwap"), None);
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: A B @ 2 GHz\n"), Some("A B @ 2 GHz"));
        assert_eq!(cpu_model("model name\t:\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_taken_and_touched_is_counted() {
        let before = resident_mib().unwrap();
        let taken = vec![1_u8; 64 << 20];
        let after = resident_mib().unwrap();
        assert!(peak_mib().unwrap() >= after);
        // Tests beside this one take and free memory too.
        assert!(
            after > before + 32.,
            "{before} to {after} with {} bytes",
            std::hint::black_box(taken).len()
        );
    }
}
