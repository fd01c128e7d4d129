//! `detect check`: what [`data::check`](crate::data::check) found, as a table or JSON.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::data::check::{Report, Severity, check};
use crate::failure::{Exit, OrExit as _};
use crate::page::printable;
use crate::watch::progress::Reported;

/// Places of each finding in the table; JSON has them all.
const SHOWN: usize = 3;

/// `detect check`
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Data set folder
    #[arg(value_name = "DIR")]
    pub data: PathBuf,
    /// Write a copy with all repaired that has one right answer; must not exist or be empty
    #[arg(long, value_name = "OUT")]
    pub fix: Option<PathBuf>,
    /// Hard links in place of copies of the images: no space, but a change to one changes both
    #[arg(long, requires = "fix")]
    pub link: bool,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<Exit> {
    let bar = Reported::start("files");
    let report = check(&args.data, &|done, all| bar.set(done, all)).or_exit(Exit::Data)?;
    bar.finish_and_clear();

    let mut out = std::io::stdout().lock();
    if args.json {
        let mut value = serde_json::to_value(&report)?;
        value["errors"] = report.count(Severity::Error).into();
        value["warnings"] = report.count(Severity::Warning).into();
        writeln!(out, "{value:#}")?;
    } else {
        table(&report, &mut out)?;
    }
    Ok(if report.count(Severity::Error) == 0 { Exit::Done } else { Exit::Data })
}

fn table(report: &Report, out: &mut impl std::io::Write) -> std::io::Result<()> {
    let name_width = report.splits.iter().map(|s| s.name.len()).max().unwrap_or(0).max(7);
    writeln!(
        out,
        "{:<name_width$} {:>9} {:>11} {:>10}",
        "split", "images", "annotations", "categories"
    )?;
    for s in &report.splits {
        writeln!(
            out,
            "{:<name_width$} {:>9} {:>11} {:>10}",
            s.name, s.images, s.annotations, s.categories
        )?;
    }
    let mut last = None;
    for finding in &report.findings {
        if last != Some(finding.severity) {
            last = Some(finding.severity);
            let title = match finding.severity {
                Severity::Error => "Errors: training or evaluation would refuse these or go wrong",
                Severity::Warning => "Warnings: used as they are, probably mistakes",
                Severity::Note => "Notes",
            };
            writeln!(out, "\n{title}")?;
        }
        let split = finding.split.as_deref().unwrap_or("between");
        let (count, meaning) = (finding.count, finding.kind.meaning());
        writeln!(out, "{split:<name_width$} {count:>9}  {meaning}")?;
        for example in finding.examples.iter().take(SHOWN) {
            // Names come from strangers; a line is a line.
            let example = printable(&example.to_string());
            writeln!(out, "{:<name_width$} {:>9}    {example}", "", "")?;
        }
        if finding.count > SHOWN {
            writeln!(out, "{:<name_width$} {:>9}    ...", "", "")?;
        }
    }
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    writeln!(out, "\n{errors} errors, {warnings} warnings")
}
