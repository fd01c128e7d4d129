//! The paper's table beside our counts.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::nasnet::published::{Figure, Quality, ROWS, Row, Table};

/// Width of the notes' lines.
const WIDTH: usize = 96;

pub(super) fn json() -> Value {
    let rows = ROWS.iter().map(|row| {
        let counted = row.counted().map(|c| {
            json!({
                "backbone": c.name.to_string(),
                "classes": c.classes,
                "parameters": c.count.parameters,
                "parameters_with_batch_norm_statistics": c.count.parameters_with_batch_norm_statistics,
                "multiply_adds": c.count.multiply_adds,
                "as_printed": {
                    "parameters": c.parameters.to_string(),
                    "multiply_adds": c.multiply_adds.to_string(),
                },
            })
        });
        let (error, top1, top5) = match row.quality {
            Quality::Error(error) => (Some(error), None, None),
            Quality::Accuracy { top1, top5 } => (None, Some(top1), Some(top5)),
        };
        json!({
            "table": row.table.number(),
            "dataset": row.table.dataset(),
            "network": format!("NASNet-{}", row.network),
            "image_size": [row.side, row.side],
            "error_percent": error,
            "top1_percent": top1,
            "top5_percent": top5,
            "printed": {
                "parameters": row.parameters.value(),
                "multiply_adds": row.multiply_adds.map(Figure::value),
            },
            "counted": counted,
            "agrees": row.agrees(),
            "note": row.note(),
        })
    });
    json!({ "source": SOURCE, "rows": rows.collect::<Vec<_>>() })
}

const SOURCE: &str = "Zoph et al. 2018, arXiv 1707.07012v4, Tables 1 to 3";

pub(super) fn print(out: &mut dyn Write) -> io::Result<()> {
    let notes = notes();
    writeln!(out, "NASNet in the paper and here ({SOURCE})\n")?;
    // Over two columns each.
    writeln!(out, "{:38}{:>16}{:>16}", "", "parameters", "multiply-adds")?;
    line(out, ["NASNet-", "image", "percent", "printed", "here", "printed", "here", "name here"])?;
    for table in Table::ALL {
        let what = match table {
            Table::Cifar10 => "error",
            Table::ImageNet | Table::Mobile => "top-1 / top-5 accuracy",
        };
        writeln!(out, "\nTable {}: {}, {what}", table.number(), table.dataset())?;
        for row in ROWS.iter().filter(|row| row.table == table) {
            let counted = row.counted();
            let number = row.note().and_then(|note| notes.iter().position(|n| *n == note));
            let mark = number.map(|n| format!("({})", n + 1));
            let name = counted.as_ref().map(|c| c.name.to_string());
            let last: Vec<String> = [name, mark].into_iter().flatten().collect();
            let quality = match row.quality {
                Quality::Error(error) => format!("{error:.2}"),
                Quality::Accuracy { top1, top5 } => format!("{top1:.1} / {top5:.1}"),
            };
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            line(
                out,
                [
                    row.network,
                    &row.side.to_string(),
                    &quality,
                    &row.parameters.to_string(),
                    &or_dash(counted.as_ref().map(|c| c.parameters.to_string())),
                    &or_dash(row.multiply_adds.map(|m| m.to_string())),
                    &or_dash(counted.as_ref().map(|c| c.multiply_adds.to_string())),
                    &last.join(" "),
                ],
            )?;
        }
    }
    writeln!(out)?;
    for (i, note) in notes.iter().enumerate() {
        paragraph(out, &format!("({}) ", i + 1), note)?;
    }
    writeln!(out)?;
    paragraph(
        out,
        "",
        "Parameters are counted with batch norm's running statistics and cut after the printed digit, \
         multiply-adds of convolutions and classifier are rounded; both without the auxiliary head. \
         `detect info NAME` has the exact numbers.",
    )
}

/// What is said of the rows, each once.
fn notes() -> Vec<String> {
    let mut notes: Vec<String> = ROWS.iter().filter_map(Row::note).collect();
    let mut seen = Vec::new();
    notes.retain(|note| {
        !seen.contains(note) && {
            seen.push(note.clone());
            true
        }
    });
    notes
}

fn line(out: &mut dyn Write, columns: [&str; 8]) -> io::Result<()> {
    let [network, side, quality, p, p_here, m, m_here, name] = columns;
    let text = format!(
        "  {network:<17} {side:>5} {quality:>12} {p:>8} {p_here:>6} {m:>8} {m_here:>6}  {name}"
    );
    writeln!(out, "{}", text.trim_end())
}

/// Text in lines of at most [`WIDTH`] characters, the later ones indented as far as `mark`.
fn paragraph(out: &mut dyn Write, mark: &str, text: &str) -> io::Result<()> {
    let mut at = 0;
    for word in text.split(' ') {
        let wide = word.chars().count();
        if at == 0 {
            write!(out, "{mark}{word}")?;
            at = mark.len() + wide;
        } else if at + 1 + wide > WIDTH {
            write!(out, "\n{:indent$}{word}", "", indent = mark.len())?;
            at = mark.len() + wide;
        } else {
            write!(out, " {word}")?;
            at += 1 + wide;
        }
    }
    writeln!(out)
}
