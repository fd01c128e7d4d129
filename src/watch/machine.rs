//! What a run stands on: processor, memory, system; and the memory that this process holds.

use std::fs;

use serde_json::{Value, json};

const KIB_A_MIB: f64 = 1024.;

/// Memory that this process holds at the moment (the resident set), in MiB; `None` where the system has no
/// /proc to say it.
pub fn resident_mib() -> Option<f64> {
    let kib = field(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS")?;
    Some(kib as f64 / KIB_A_MIB)
}

/// Processor, cores, memory and system. What the system does not tell is left out.
pub fn describe() -> Value {
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
    if let Some(kib) = memory.as_deref().and_then(|text| field(text, "MemTotal")) {
        about["memory_mib"] = json!((kib as f64 / KIB_A_MIB).round());
    }
    if let Ok(kernel) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        about["kernel"] = json!(kernel.trim());
    }
    about
}

/// The number of a line such as `MemTotal:  1024 kB`, in KiB.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
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
    fn files_of_proc_are_read() {
        let status = "Name:\tdetect\nVmHWM:\t   900 kB\nVmRSS:\t   2048 kB\n";
        assert_eq!(field(status, "VmRSS"), Some(2048));
        assert_eq!(field(status, "Name"), None);
        assert_eq!(field(status, "VmSwap"), None);
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: A B @ 2 GHz\n"), Some("A B @ 2 GHz"));
        assert_eq!(cpu_model("model name\t:\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_taken_and_touched_is_counted() {
        let before = resident_mib().unwrap();
        let taken = vec![1_u8; 64 << 20];
        let after = resident_mib().unwrap();
        // Tests beside this one take and free memory too.
        assert!(
            after > before + 32.,
            "{before} to {after} with {} bytes",
            std::hint::black_box(taken).len()
        );
    }
}
