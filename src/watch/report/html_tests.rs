//! The page: well formed, closed to the outside, true to the record, whatever the names.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::page::parsed;
use crate::watch::record::RECORD;

const NAME: &str = "<b>\"a\" & 'b'</b>";

/// A run folder with `count` steps that learns, an evaluation at each tenth, and a line that is cut.
fn folder(at: &Path, name: &str, count: u64) -> Run {
    let run = at.join(name);
    fs::create_dir_all(&run).unwrap();
    let mut lines = vec![json!({
        "kind": "start", "step": 0, "steps": 100, "time": 1000., "device": "cpu", "threads": 2,
        "data": "/no/such/data", "val": "val", "machine": { "cpu": NAME, "cores": 2 },
    })];
    for step in 1..=count {
        let loss = 3. / step as f64;
        lines.push(json!({
            "kind": "step", "step": step, "time": 1000. + step as f64, "loss": loss, "loss_a": loss / 2., "loss_b": null,
            "lr": 1e-3, "images_per_s": 8., "memory_mib": 100., "grad_norm": 1., "data_s": 0., "step_s": 0.25,
        }));
        if step % 10 == 0 {
            let ap = 0.005 * step as f64;
            lines.push(json!({ "kind": "eval", "step": step, "time": 1000.5 + step as f64, "AP": ap, "AP50": 2. * ap, "AP75": -1. }));
        }
    }
    let text = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n";
    fs::write(run.join(RECORD), text + "{\"kind\":\"step\",\"st").unwrap();
    fs::write(
        run.join("config.json"),
        json!({ "name": NAME, "train": { "lr": count } }).to_string(),
    )
    .unwrap();
    let category = json!({ "category_id": 1, "category": NAME, "AP": 0.125, "AP50": -1., "AR100": 0.5, "ground_truths": 3, "detections": 4 });
    let evaluation = json!({ "step": count / 10 * 10, "per_category": [category] });
    fs::write(run.join("evaluation.json"), evaluation.to_string()).unwrap();
    fs::write(run.join("detections.json"), "[]").unwrap();
    Run::read(&run, None).unwrap()
}

/// Points of the lines of the plot under `title`, in the units of the picture.
fn lines_of(html: &str, title: &str) -> Vec<Vec<(f64, f64)>> {
    let (_, plot) = html.split_once(&format!("<figcaption>{title}</figcaption>")).unwrap();
    let (plot, _) = plot.split_once("</svg>").unwrap();
    let pair = |pair: &str| {
        let (x, y) = pair.split_once(',').unwrap();
        (x.parse().unwrap(), y.parse().unwrap())
    };
    let lines = plot.split("points=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0);
    lines.map(|points| points.split_whitespace().map(pair).collect()).collect()
}

#[test]
fn a_page_is_well_formed_and_loads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = folder(dir.path(), "a&b", 40);
    let page = html(&[run]);
    let (_, attributes) = parsed(&page);
    assert!(!attributes.iter().any(|a| a == "src" || a.starts_with("on")), "{attributes:?}");
    assert!(
        !page.contains("http:") && !page.contains("https:"),
        "nothing is loaded from elsewhere"
    );
    assert!(page.contains("<h1>Run a&amp;b</h1>"));
    assert!(!page.contains("<b>\"a\""), "names are escaped");
    assert!(page.contains("&lt;b&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/b&gt;"));
    assert!(
        page.contains("No images are shown: the data set of the run can&#39;t be read"),
        "{page}"
    );
    assert!(page.contains("a line is cut or broken"));
    assert!(page.contains("<td>0.2000 at 40</td>"), "the best AP and its step");
    assert!(page.contains("<td>40 of 100</td>") && page.contains("<td>0.125</td>"));
}

#[test]
fn curves_are_those_of_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let page = html(&[folder(dir.path(), "a", 40)]);
    let lines = lines_of(&page, "Loss, weighted sum");
    assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [40, 40]);
    // 3/n from a plot that goes from 0 to 3 in y, from 0 to 40 in x: one scale and one shift for all points.
    let (first, last) = (lines[0][0], lines[0][39]);
    for (i, point) in lines[0].iter().enumerate() {
        let n = (i + 1) as f64;
        let x = first.0 + (last.0 - first.0) * (n - 1.) / 39.;
        let y = first.1 + (last.1 - first.1) * (3. - 3. / n) / (3. - 3. / 40.);
        assert!((point.0 - x).abs() < 0.2 && (point.1 - y).abs() < 0.2, "step {n}: {point:?}");
    }
    assert_eq!(
        lines_of(&page, "Parts of the loss, smoothed").len(),
        1,
        "a part that is never finite has no line"
    );
    // AP and AP50, of four evaluations; AP75 had no truth.
    assert_eq!(lines_of(&page, "By step").iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
    assert_eq!(lines_of(&page, "By wall time, evaluations included").len(), 2);
}

#[test]
fn several_runs_are_drawn_over_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let runs =
        [("a", 40), ("b", 20), ("c", 0)].map(|(name, count)| folder(dir.path(), name, count));
    let page = html(&runs);
    parsed(&page);
    assert_eq!(lines_of(&page, "By step").iter().map(Vec::len).collect::<Vec<_>>(), [4, 2]);
    assert_eq!(
        lines_of(&page, "Loss, weighted sum").len(),
        4,
        "two runs have steps, each faint and bold"
    );
    assert!(page.contains("c has no steps in its record yet"));
    // The one key that is not the same.
    assert!(page.contains("<td>train.lr</td><td>40</td><td>20</td><td>0</td>"));
    assert!(!page.contains("<td>name</td>"));
}

#[test]
fn a_page_of_an_empty_record_is_a_page() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(RECORD), "").unwrap();
    let page = html(&[Run::read(dir.path(), None).unwrap()]);
    parsed(&page);
    assert!(page.contains("Nothing has been evaluated yet"));
    assert!(page.contains("the run has not been evaluated yet"));
}

#[test]
fn long_records_are_thinned_and_keep_their_extremes() {
    let points: Points = (0..100_000)
        .map(|i| (f64::from(i), if i == 77_777 { 9. } else { f64::from(i % 3) }))
        .collect();
    let thin = thin(&points);
    assert!(thin.len() <= 2 * FINENESS + 2);
    assert!(thin.contains(&(77_777., 9.)) && thin.is_sorted_by(|a, b| a.0 < b.0));
    let smooth = smooth(&points);
    assert!(smooth.len() <= FINENESS + 2);
    assert!(smooth.iter().all(|p| (p.1 - 1.).abs() < 0.02), "the mean of 0, 1 and 2");
    assert_eq!((smooth[0].0, smooth.last().unwrap().0), (0., 99_999.));
    assert!(super::smooth(&[]).is_empty() && super::thin(&[]).is_empty());
}
