//! `detect info`: cells, parameters and multiply-adds of a network, counted as the paper's tables are;
//! without a name, those tables; of a file of weights, what it holds.

mod file;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{InfoArgs, network_file};
use crate::config::OwnBackbone;
use crate::failure::{Exit, OrExit as _};
use crate::geometry::{ImageSize, Size};
use crate::nasnet::count::CellCount;
use crate::nasnet::genotype::Genotype;
use crate::nasnet::notation::OwnCells;
use crate::nasnet::plan::{published_classes, published_size};
use crate::nasnet::{BackboneName, Family, Form, NetworkCount, Plan, Wiring, names};

/// More outputs than any classifier has, and few enough for every product to be counted.
const MOST_CLASSES: usize = 1_000_000;

/// What is shown.
struct Shown {
    plan: Plan,
    /// The file and its cells, where they are the user's own.
    own: Option<(String, OwnCells)>,
    size: Size,
    classes: usize,
    count: NetworkCount,
}

pub(super) fn run(args: &InfoArgs) -> anyhow::Result<Exit> {
    let mut out = io::stdout().lock();
    let Some(text) = &args.backbone else {
        if args.json {
            writeln!(out, "{:#}", table::json())?;
        } else {
            table::print(&mut out)?;
        }
        return Ok(Exit::Done);
    };
    if let Some(path) = weights(text)? {
        if args.image_size.is_some() || args.classes.is_some() {
            return crate::fail!(
                Exit::Usage,
                "--image-size and --classes are for a network by its name; {} has its own",
                path.display()
            );
        }
        let held = file::Held::read(path)?;
        if args.json {
            writeln!(out, "{:#}", held.json())?;
        } else {
            held.print(&mut out)?;
        }
        return Ok(Exit::Done);
    }
    let shown = count(text, args)?;
    if args.json {
        writeln!(out, "{:#}", shown.json())?;
    } else {
        shown.print(&mut out)?;
    }
    Ok(Exit::Done)
}

/// The file of weights that `text` means: a path, or the name of a shipped model; `None` where it is a network's.
fn weights(text: &str) -> anyhow::Result<Option<PathBuf>> {
    if OwnBackbone::is_file(text) || text.parse::<BackboneName>().is_ok() {
        return Ok(None);
    }
    // What looks like a path can't be a misspelt name of a network.
    let path = text.contains(['/', '\\', '.']);
    match network_file::resolve(text) {
        Err(error) if path => Err(error),
        found => Ok(found.ok()),
    }
}

fn count(text: &str, args: &InfoArgs) -> anyhow::Result<Shown> {
    let (plan, own) = if OwnBackbone::is_file(text) {
        let own = OwnBackbone::read(Path::new(text)).or_exit(Exit::Usage)?;
        (own.plan(), Some((text.to_owned(), own.cells)))
    } else {
        let name: BackboneName = text.parse().or_exit(Exit::Usage)?;
        if name.family == Family::Own {
            return crate::fail!(
                Exit::Usage,
                "'{name}' has cells of its own: give the file that holds them, such as cells.toml"
            );
        }
        (Plan::published(name), None)
    };
    let classes = args.classes.unwrap_or(published_classes(plan.name));
    if !(1..=MOST_CLASSES).contains(&classes) {
        return crate::fail!(
            Exit::Usage,
            "--classes must be at least 1 and at most {MOST_CLASSES}"
        );
    }
    let side = published_size(plan.name);
    let size = args.image_size.unwrap_or(ImageSize::Side(side)).size();
    let Some(count) = NetworkCount::new(&plan, size, classes) else {
        let what = match plan.sizes(size) {
            None => "must be at least 3 pixels on each side",
            Some(_) => "is too large: there are more multiply-adds than can be counted",
        };
        return crate::fail!(Exit::Usage, "--image-size {what}");
    };
    Ok(Shown { plan, own, size, classes, count })
}

fn form(form: Form) -> &'static str {
    match form {
        Form::ImageNet => "ImageNet",
        Form::Cifar => "CIFAR",
        Form::Strided => "strided",
    }
}

/// Of a network, to be said after something else.
fn wiring(plan: &Plan) -> &'static str {
    match (plan.name.form, plan.wiring) {
        // Nothing follows a reduction cell.
        (Form::Strided, _) => "",
        (_, Wiring::Large) => ", large wiring",
        (_, Wiring::Mobile) => ", mobile wiring",
    }
}

impl Shown {
    fn json(&self) -> Value {
        let Self { plan, size, count, .. } = self;
        let cost = |c: &CellCount| {
            json!({
                "parameters": c.parameters,
                "batch_norm_statistics": c.batch_norm_statistics,
                "multiply_adds": c.multiply_adds,
            })
        };
        let cells = count.cells.iter().map(|c| {
            let mut value = cost(c);
            value["name"] = json!(c.name);
            value["channels"] = json!(c.channels);
            value["size"] = json!([c.size.height, c.size.width]);
            value
        });
        json!({
            "backbone": plan.name.to_string(),
            "form": form(plan.name.form).to_lowercase(),
            "wiring": plan.wiring,
            "stem_filters": plan.stem_filters,
            "genotype": self.own.as_ref().map(|(_, cells)| cells),
            "image_size": [size.height, size.width],
            "classes": self.classes,
            "parameters": count.parameters,
            "parameters_with_batch_norm_statistics": count.parameters_with_batch_norm_statistics,
            "multiply_adds": count.multiply_adds,
            "auxiliary": count.auxiliary.as_ref().map(cost),
            "cells": cells.collect::<Vec<_>>(),
        })
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { plan, size, classes, count, .. } = self;
        writeln!(out, "{} at {size}, {classes} classes", plan.name)?;
        let (stem, wiring) = (plan.stem_filters, wiring(plan));
        writeln!(out, "{} form, stem of {stem} filters{wiring}", form(plan.name.form))?;
        if let Some((file, OwnCells(cells))) = &self.own {
            writeln!(out, "\ncells of {file}")?;
            print_cell(out, "normal", &cells.normal)?;
            print_cell(out, "reduction", &cells.reduction)?;
        }
        writeln!(out)?;
        line(out, ["cell", "channels", "size", "parameters", "multiply-adds"])?;
        for c in &count.cells {
            let (parameters, products) =
                (thousands(c.parameters as u64), thousands(c.multiply_adds));
            line(
                out,
                [&c.name, &c.channels.to_string(), &c.size.to_string(), &parameters, &products],
            )?;
        }
        let linear = plan.classifier(*classes);
        let products = linear.multiply_adds();
        let parameters = thousands((products + linear.outputs) as u64);
        let products = thousands(products as u64);
        line(out, [names::CLASSIFIER, &classes.to_string(), "1x1", &parameters, &products])?;
        writeln!(out)?;
        total(out, "parameters", count.parameters as u64)?;
        let all = count.parameters_with_batch_norm_statistics;
        total(out, "  with batch norm statistics", all as u64)?;
        total(out, "multiply-adds", count.multiply_adds)?;
        if let Some(auxiliary) = &count.auxiliary {
            total(out, "auxiliary head, in training only", auxiliary.parameters as u64)?;
        }
        Ok(())
    }
}

fn line(
    out: &mut dyn Write,
    [name, channels, size, parameters, products]: [&str; 5],
) -> io::Result<()> {
    writeln!(out, "{name:<18} {channels:>8} {size:>11} {parameters:>13} {products:>16}")
}

fn total(out: &mut dyn Write, what: &str, n: u64) -> io::Result<()> {
    writeln!(out, "{what:<33}{:>16}", thousands(n))
}

fn print_cell(out: &mut dyn Write, which: &str, cell: &Genotype) -> io::Result<()> {
    writeln!(out, "  {which}")?;
    for (i, row) in cell.rows.iter().enumerate() {
        writeln!(out, "    s{i} = {row}")?;
    }
    let concat: Vec<String> = cell.concat.iter().map(ToString::to_string).collect();
    writeln!(out, "    concat {}", concat.join(", "))
}

/// `1234567` as `1,234,567`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}
