//! `detect info BACKBONE`: cells, parameters and multiply-adds, counted as the paper's tables are.

use std::io::Write as _;

use serde_json::json;

use super::InfoArgs;
use crate::failure::{Exit, OrExit as _};
use crate::geometry::Size;
use crate::nasnet::{BackboneName, NetworkCount, Plan};

pub(super) fn run(args: &InfoArgs) -> anyhow::Result<Exit> {
    let Some(text) = &args.backbone else {
        return crate::fail!(
            Exit::Usage,
            "which backbone? For example: detect info nasnet-a-6@4032"
        );
    };
    let name: BackboneName = text.parse().or_exit(Exit::Usage)?;
    if args.classes == 0 {
        return crate::fail!(Exit::Usage, "--classes must be at least 1");
    }
    // The sizes at which the paper counts.
    let side = if name == BackboneName::LARGE { 331 } else { 224 };
    let size = args.image_size.unwrap_or(Size::new(side, side));
    let plan = Plan::published(name);
    let Some(count) = NetworkCount::new(&plan, size, args.classes) else {
        return crate::fail!(Exit::Usage, "--image-size must be at least 3 pixels on each side");
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        let value = json!({
            "backbone": name.to_string(),
            "image_size": [size.height, size.width],
            "classes": args.classes,
            "parameters": count.parameters,
            "parameters_with_batch_norm_statistics": count.parameters_with_batch_norm_statistics,
            "multiply_adds": count.multiply_adds,
            "cells": count.cells.iter().map(|c| json!({
                "name": c.name,
                "channels": c.channels,
                "size": [c.size.height, c.size.width],
                "parameters": c.parameters,
                "batch_norm_statistics": c.batch_norm_statistics,
                "multiply_adds": c.multiply_adds,
            })).collect::<Vec<_>>(),
        });
        writeln!(out, "{value:#}")?;
        return Ok(Exit::Done);
    }
    writeln!(out, "{name} at {size}, {} classes, {:?} wiring", args.classes, plan.wiring)?;
    writeln!(out)?;
    writeln!(
        out,
        "{:<18} {:>8} {:>11} {:>13} {:>16}",
        "cell", "channels", "size", "parameters", "multiply-adds"
    )?;
    for c in &count.cells {
        writeln!(
            out,
            "{:<18} {:>8} {:>11} {:>13} {:>16}",
            c.name,
            c.channels,
            c.size.to_string(),
            thousands(c.parameters as u64),
            thousands(c.multiply_adds)
        )?;
    }
    let classifier = (plan.name.channels + 1) * args.classes;
    let products = plan.name.channels * args.classes;
    writeln!(
        out,
        "{:<18} {:>8} {:>11} {:>13} {:>16}",
        "last_linear",
        args.classes,
        "1x1",
        thousands(classifier as u64),
        thousands(products as u64)
    )?;
    writeln!(out)?;
    writeln!(out, "parameters                       {:>16}", thousands(count.parameters as u64))?;
    writeln!(
        out,
        "  with batch norm statistics     {:>16}",
        thousands(count.parameters_with_batch_norm_statistics as u64)
    )?;
    writeln!(out, "multiply-adds                    {:>16}", thousands(count.multiply_adds))?;
    Ok(Exit::Done)
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
