//! `detect report`: what a run has done, as a page and as a table.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::output;
use crate::failure::{Exit, OrExit as _};
use crate::watch::report::{Run, html, text};
use crate::whole;

/// `detect report`
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Run folders, of runs that ended or go on; several are drawn over each other
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// The page to write [default: report.html in the first run folder]
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Data set folder [default: the one that the run names]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &ReportArgs) -> anyhow::Result<Exit> {
    if let Some(data) = args.data.as_deref().filter(|data| !data.is_dir()) {
        return crate::fail!(Exit::Data, "--data {}: there is no such folder", data.display());
    }
    let read = |folder: &PathBuf| Run::read(folder, args.data.as_deref());
    let runs: Vec<Run> =
        args.runs.iter().map(read).collect::<Result<_, _>>().or_exit(Exit::Data)?;
    let path = args.html.clone().unwrap_or_else(|| args.runs[0].join("report.html"));
    // Only an older page may be replaced: all else in a run folder is the run, and a page reads a data set, too.
    if path.extension().is_none_or(|e| e != "html" && e != "htm") {
        return crate::fail!(Exit::Usage, "--html {}: pages end in .html", path.display());
    }
    output::check("--html", &path, &[])?;
    let page = html::html(&runs);
    whole::write(&path, |file| file.write_all(page.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
        .or_exit(Exit::Output)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut value = text::json(&runs);
        value["html"] = json!(path.display().to_string());
        writeln!(out, "{value:#}")?;
    } else {
        write!(out, "{}", text::text(&runs))?;
    }
    tracing::info!("the page is {}", path.display());
    Ok(Exit::Done)
}
