//! What `detect doctor` asks this machine: processor, memory, disk.

use std::path::Path;

use detect_kernel::Instructions;

use super::Finding;
use crate::engine::Cpu;
use crate::watch::machine::kib;
pub(super) use crate::watch::machine::{answer, nvidia_smi};

/// Below this, training runs soon fail to save.
const LITTLE_DISK: u64 = 1 << 30;
/// Below this, detection at full size may not fit.
const LITTLE_MEMORY: u64 = 2 << 30;

pub(super) fn cpu() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let engine = format!(
        "the native engine uses {}{}",
        Cpu::float32(cores).title(),
        if Cpu::bf16(cores).is_some() { " and has --precision bf16" } else { "" }
    );
    #[cfg(target_arch = "x86_64")]
    {
        let (avx2, avx512) =
            (is_x86_feature_detected!("avx2"), is_x86_feature_detected!("avx512f"));
        let no = |has| if has { "" } else { "no " };
        let found = format!("{cores} cores, {}AVX2, {}AVX-512; {engine}", no(avx2), no(avx512));
        if !avx2 {
            return Finding::warn("CPU", found, "networks run slowly; use a CPU with AVX2");
        }
        Finding::ok("CPU", found)
    }
    #[cfg(not(target_arch = "x86_64"))]
    Finding::ok(
        "CPU",
        format!("{cores} cores; the native engine uses {}", Cpu::float32(cores).title()),
    )
}

/// `asked` is what DETECT_INSTRUCTIONS names and this processor has not.
pub(super) fn instructions(asked: &str) -> Finding {
    let sets: Vec<_> = Instructions::available().iter().map(|set| set.name()).collect();
    Finding::warn(
        "instructions",
        format!("DETECT_INSTRUCTIONS={asked} is not there, and the widest are taken"),
        format!("unset it, or ask for one of {}", sets.join(", ")),
    )
}

/// `meminfo` is the text of /proc/meminfo, `limit` that of the control group's memory.max.
pub(super) fn memory(meminfo: &str, limit: Option<&str>) -> Finding {
    let field = |name: &str| kib(meminfo, name)?.checked_mul(1024);
    let (Some(total), Some(available)) = (field("MemTotal"), field("MemAvailable")) else {
        return Finding::warn("memory", "unknown: /proc/meminfo is not readable", "mount /proc");
    };
    // A container without a limit says "max".
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok()).filter(|&l| l < total);
    let limited = limit.map(|l| format!(", limited to {}", gibibytes(l))).unwrap_or_default();
    let found = format!("{} free of {}{limited}", gibibytes(available), gibibytes(total));
    if available.min(limit.unwrap_or(u64::MAX)) < LITTLE_MEMORY {
        return Finding::warn(
            "memory",
            found,
            "close other programs, or use small --image-size and --batch",
        );
    }
    Finding::ok("memory", found)
}

pub(super) fn disk(check: &'static str, folder: &Path) -> Finding {
    let shown = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    match crate::whole::free_space(folder) {
        Ok(free) => free_disk(check, &shown, free.unwrap_or(u64::MAX)),
        Err(error) => Finding::warn(
            check,
            format!("{}: {error}", shown.display()),
            "work in a folder that exists and may be read",
        ),
    }
}

/// `free` is in bytes.
fn free_disk(check: &'static str, folder: &Path, free: u64) -> Finding {
    let found = format!("{} free in {}", gibibytes(free), folder.display());
    if free < LITTLE_DISK {
        return Finding::warn(check, found, "make room: a training run keeps several checkpoints");
    }
    Finding::ok(check, found)
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn memory_is_the_smaller_of_machine_and_container() {
        let text = "MemTotal:       25165824 kB\nMemFree: 1 kB\nMemAvailable:   20971520 kB\n";
        let finding = memory(text, Some("max\n"));
        assert_eq!((finding.verdict, &*finding.found), (Verdict::Ok, "20.0 GiB free of 24.0 GiB"));
        assert_eq!(memory(text, Some("1073741824\n")).verdict, Verdict::Warn);
        assert_eq!(memory("", None).verdict, Verdict::Warn);
    }

    #[test]
    fn a_full_disk_is_a_warning() {
        assert_eq!(free_disk("disk", Path::new("/"), LITTLE_DISK - 1).verdict, Verdict::Warn);
        assert_eq!(free_disk("disk", Path::new("/"), LITTLE_DISK).verdict, Verdict::Ok);
        assert_eq!(disk("disk", Path::new("/no/such/folder")).verdict, Verdict::Warn);
    }
}
