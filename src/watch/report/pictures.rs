//! The part of a report's page that shows images with their boxes.

use std::fmt::Write as _;

use super::Run;
use super::samples::{Fate, Sample, Samples};
use crate::page::{add, escape};

/// Most wrong or missed boxes of an image that have their text beside them; all have it under the pointer.
const TEXTS: usize = 12;

/// The section of a run; with its name where there are several.
pub(super) fn samples(html: &mut String, run: &Run, with_name: bool) {
    let of = if with_name { format!(": {}", escape(&run.name)) } else { String::new() };
    add!(html, "<h2>Detections on validation images{of}</h2>\n");
    let Samples { score, best, worst, data } = match &run.samples {
        Ok(samples) => samples,
        Err(why) => {
            add!(html, "<p>No images are shown: {}.</p>\n", escape(why));
            return;
        }
    };
    let from = if score.is_finite() {
        format!("Detections that score {score:.4} or more, which gives the best F1")
    } else {
        "All detections: none finds a truth".to_owned()
    };
    add!(
        html,
        "<p class=\"soft\">{from}, at IoU 0.50. <b class=\"hit-ink\">Green</b>: right. <b class=\"false-ink\">Red</b>: \
         wrong. <b class=\"lost-ink\">Yellow, dashed</b>: a truth that is missed. White: a truth that is found. The \
         images lie in {}.</p>\n",
        escape(data)
    );
    for (title, group) in [("Best", best), ("Worst", worst)] {
        if group.is_empty() {
            continue;
        }
        add!(html, "<h3>{title}</h3>\n<div class=\"samples\">\n");
        for sample in group {
            figure(html, sample);
        }
        html.push_str("</div>\n");
    }
}

fn figure(html: &mut String, sample: &Sample) {
    let name = escape(&sample.file_name);
    let [right, wrong, missed] = sample.counts;
    html.push_str("<figure class=\"sample\">");
    match &sample.picture {
        Err(why) => {
            add!(html, "<p class=\"warn\">This image can't be shown: {}.</p>\n", escape(why));
        }
        Ok((uri, size)) => {
            let (width, height) = (size.width, size.height);
            add!(
                html,
                "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name}\">\
                 <image href=\"{uri}\" width=\"{width}\" height=\"{height}\"/>\n"
            );
            let errors =
                sample.boxes.iter().filter(|b| [Fate::Wrong, Fate::Missed].contains(&b.fate));
            let crowded = errors.count() > TEXTS;
            for drawn in &sample.boxes {
                let class = match drawn.fate {
                    Fate::Right => "hit",
                    Fate::Wrong => "false",
                    Fate::Found => "found",
                    Fate::Missed => "lost",
                };
                let [x, y, w, h] = drawn.bbox;
                let text = escape(&drawn.text);
                add!(
                    html,
                    "<g class=\"{class}\"><title>{text}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" \
                     height=\"{h:.1}\"/>"
                );
                if drawn.fate == Fate::Right || (drawn.fate != Fate::Found && !crowded) {
                    // Above its box, else in its upper edge.
                    let top = if y < 12. { y + 11. } else { y - 3. };
                    add!(html, "<text x=\"{:.1}\" y=\"{top:.1}\">{text}</text>", x.max(1.));
                }
                html.push_str("</g>\n");
            }
            html.push_str("</svg>");
        }
    }
    add!(
        html,
        "<figcaption>{name} <span class=\"soft\">{right} right, {wrong} wrong, {missed} missed</span></figcaption>\
         </figure>\n"
    );
}
