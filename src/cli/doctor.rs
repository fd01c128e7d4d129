//! `detect doctor`: what this installation has, what is missing, and the command that brings it.
//!
//! A check is a function from what it looks at to a [`Finding`]; [`run`] looks at this machine.

mod machine;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use detect_kernel::Instructions;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{DoctorArgs, handover};
use crate::data::{coco, layout};
use crate::failure::Exit;
use crate::weights::model::DEFAULT_MODEL;
use crate::weights::shipped;

/// The libtorch that tch is made for.
const LIBTORCH: &str = "2.11.0";
/// The cure for most of it.
const BUILD: &str = "run `make` in the source tree";
/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Something that some commands need is missing.
    Warn,
    /// The program does not work as it is.
    Fail,
}

/// What one check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), cure: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, found: found.into(), cure: Some(cure.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, found: found.into(), cure: Some(cure.into()) }
    }
}

pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<Exit> {
    let findings = examine();
    let failed: Vec<_> =
        findings.iter().filter(|f| f.verdict == Verdict::Fail).map(|f| f.check).collect();
    let mut out = std::io::stdout().lock();
    if args.json {
        let value = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ok": failed.is_empty(),
            "findings": findings,
        });
        writeln!(out, "{value:#}")?;
    } else {
        write!(out, "{}", table(&findings))?;
    }
    if failed.is_empty() {
        return Ok(Exit::Done);
    }
    // Code 1 is DESIGN's "done, but something that was looked at failed, and is named on stderr". The
    // codes from 2 on say why a command could not do its work, and the doctor did.
    tracing::error!("failed: {}", failed.join(", "));
    Ok(Exit::SomeInputsFailed)
}

/// Looks at this machine.
fn examine() -> Vec<Finding> {
    let mut findings = vec![Finding::ok("version", env!("CARGO_PKG_VERSION"))];
    let gpu = machine::nvidia_smi();
    match handover::torch_program() {
        Ok(program) => findings.extend(torch(&program, gpu.as_deref())),
        Err(error) => findings.push(Finding::fail(
            "programs",
            format!("cannot tell where this program lies: {error}"),
            "run it by its full path",
        )),
    }
    findings.push(machine::cpu());
    findings.extend(Instructions::not_there().map(|asked| machine::instructions(&asked)));
    findings.push(machine::memory(
        &std::fs::read_to_string("/proc/meminfo").unwrap_or_default(),
        std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().as_deref(),
    ));
    findings.push(machine::disk("disk, here", Path::new(".")));
    findings.push(machine::disk("disk, temporary", &std::env::temp_dir()));
    findings.push(match gpu {
        Some(names) => Finding::ok("GPU driver", names),
        None => Finding::ok("GPU driver", "none (nvidia-smi is absent or does not answer)"),
    });
    findings.push(models(&shipped::models_dirs()));
    findings.push(data_set(&coco::default_root()));
    findings
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    let lines = findings.iter().map(|f| {
        let verdict = match f.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let cure = f.cure.as_ref().map(|cure| format!("      {:<width$}  -> {cure}\n", ""));
        let cure = cure.unwrap_or_default();
        format!("{verdict:<4}  {:<width$}  {}\n{cure}", f.check, f.found)
    });
    lines.collect()
}

/// What `detect-torch doctor-torch` prints.
#[derive(Debug, Deserialize)]
struct TorchReport {
    libtorch: String,
    cuda_available: bool,
    cuda_devices: i64,
    threads: i64,
}

/// `program` is where `detect-torch` has to lie; `gpu` says which GPU the driver knows, if any.
fn torch(program: &Path, gpu: Option<&str>) -> Vec<Finding> {
    if !program.is_file() {
        return vec![Finding::fail(
            "programs",
            format!(
                "{} is missing: nothing can be trained, and no network can run on a GPU",
                program.display()
            ),
            format!("{BUILD}, and keep both programs in one folder"),
        )];
    }
    let folder = program.parent().unwrap_or(program).display();
    let mut findings = vec![Finding::ok("programs", format!("detect, detect-torch in {folder}"))];
    findings.extend(libtorch(machine::answer(Command::new(program).arg("doctor-torch")), gpu));
    findings
}

/// `answer` is what `detect-torch doctor-torch` said, or why it said nothing.
fn libtorch(answer: Result<String, String>, gpu: Option<&str>) -> Vec<Finding> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(problem) => {
            return vec![Finding::fail(
                "libtorch",
                format!("{} does not run: {problem}", handover::TORCH_PROGRAM),
                format!("{BUILD}: it finds or fetches libtorch {LIBTORCH} and links it anew"),
            )];
        }
    };
    let report: TorchReport = match serde_json::from_str(&answer) {
        Ok(report) => report,
        Err(error) => {
            return vec![Finding::fail(
                "libtorch",
                format!("the answer of {} is not understood: {error}", handover::TORCH_PROGRAM),
                format!("{BUILD}: the two programs are of different versions"),
            )];
        }
    };
    // A build says 2.11.0+cu130 or 2.11.0+cpu.
    let found = if report.libtorch.split('+').next() == Some(LIBTORCH) {
        Finding::ok("libtorch", format!("{}, {} threads", report.libtorch, report.threads))
    } else {
        Finding::fail(
            "libtorch",
            format!("{}, but {LIBTORCH} is needed", report.libtorch),
            format!("{BUILD} with LIBTORCH unset"),
        )
    };
    let cuda = match (report.cuda_available, gpu) {
        (true, _) => Finding::ok("CUDA", format!("{} device(s)", report.cuda_devices)),
        (false, None) => Finding::ok("CUDA", "no GPU; networks run on the CPU"),
        (false, Some(_)) => Finding::warn(
            "CUDA",
            "there is a GPU, but libtorch does not see it; networks run on the CPU",
            "run `CUDA=1 make` in the source tree",
        ),
    };
    vec![found, cuda]
}

fn models(dirs: &[PathBuf]) -> Finding {
    let names = shipped::names_in(dirs);
    if let Some(file) = shipped::find_in(dirs, DEFAULT_MODEL) {
        let folder = file.parent().unwrap_or(&file).display();
        return Finding::ok("models", format!("{} in {folder}", names.join(", ")));
    }
    let places: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    Finding::fail(
        "models",
        format!("the default model, '{}', is in none of {}", DEFAULT_MODEL, places.join(", ")),
        "take data/models from the source tree, or name a model file with --weights",
    )
}

fn data_set(root: &Path) -> Finding {
    let cure = "only for COCO itself: name its folder with DETECT_DATA, or another set with --data";
    if !root.is_dir() {
        return Finding::warn("data set", format!("{} is absent", root.display()), cure);
    }
    let splits = layout::splits(root);
    if splits.is_empty() {
        let found = format!("{} has no split (annotations/*.json)", root.display());
        return Finding::warn("data set", found, cure);
    }
    // Splits that are made of others have no file of their own.
    let made = [layout::MINIVAL, layout::TRAINVAL_MINUS_MINIVAL];
    let broken: Vec<_> = splits
        .iter()
        .filter(|split| !made.contains(&split.as_str()))
        .filter_map(|split| layout::find(root, split).err())
        .map(|error| error.to_string())
        .collect();
    if !broken.is_empty() {
        return Finding::warn(
            "data set",
            broken.join("; "),
            "unpack the images beside annotations/",
        );
    }
    Finding::ok("data set", format!("{}: {}", root.display(), splits.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"libtorch": "2.11.0", "cuda_available": false, "cuda_devices": 0, "threads": 2}"#;

    fn verdicts(findings: &[Finding]) -> Vec<(&str, Verdict)> {
        findings.iter().map(|f| (f.check, f.verdict)).collect()
    }

    #[test]
    fn a_missing_detect_torch_is_a_failure_with_a_cure() {
        let folder = tempfile::tempdir().unwrap();
        let findings = torch(&folder.path().join("detect-torch"), None);
        assert_eq!(verdicts(&findings), [("programs", Verdict::Fail)]);
        assert!(findings[0].cure.as_ref().unwrap().contains("`make`"));
    }

    #[test]
    fn libtorch_is_judged_by_what_detect_torch_says() {
        let judge = |text: &str, gpu| {
            let findings = libtorch(Ok(text.to_owned()), gpu);
            findings.into_iter().map(|f| f.verdict).collect::<Vec<_>>()
        };
        assert_eq!(judge(GOOD, None), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(judge(GOOD, Some("a GPU")), [Verdict::Ok, Verdict::Warn]);
        assert_eq!(judge(&GOOD.replace("11.0", "11.0+cu130"), None), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(judge(&GOOD.replace("2.11.0", "2.12.0"), None), [Verdict::Fail, Verdict::Ok]);
        assert_eq!(judge("usage: detect-torch", None), [Verdict::Fail]);
        let findings = libtorch(Err("libtorch_cpu.so: cannot open".into()), None);
        assert_eq!(verdicts(&findings), [("libtorch", Verdict::Fail)]);
        assert!(findings[0].found.contains("libtorch_cpu.so"));
    }

    #[test]
    fn without_models_the_places_are_named() {
        let root = tempfile::tempdir().unwrap();
        let dirs = [root.path().join("models")];
        let finding = models(&dirs);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.found.contains(&dirs[0].display().to_string()));
        std::fs::create_dir(&dirs[0]).unwrap();
        std::fs::write(dirs[0].join("scenes.safetensors"), "").unwrap();
        assert_eq!(models(&dirs).verdict, Verdict::Ok);
    }

    #[test]
    fn a_data_set_needs_its_images() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(data_set(&root.path().join("absent")).verdict, Verdict::Warn);
        assert_eq!(data_set(root.path()).verdict, Verdict::Warn);
        std::fs::create_dir(root.path().join("annotations")).unwrap();
        std::fs::write(root.path().join("annotations/instances_val2017.json"), "{}").unwrap();
        assert_eq!(data_set(root.path()).verdict, Verdict::Warn);
        std::fs::create_dir(root.path().join("val2017")).unwrap();
        let finding = data_set(root.path());
        assert_eq!(finding.verdict, Verdict::Ok);
        assert!(finding.found.ends_with("val2017"), "{}", finding.found);
    }

    #[test]
    fn every_finding_that_is_not_ok_stands_above_its_cure() {
        let findings = [Finding::ok("CPU", "2 cores"), Finding::warn("disk", "full", "make room")];
        assert_eq!(
            table(&findings),
            "ok    CPU   2 cores\nwarn  disk  full\n            -> make room\n"
        );
    }
}
