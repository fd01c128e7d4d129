//! The page: well formed, closed to the outside, true to the numbers, whatever the names.

use super::super::compare::{Bootstrap, compare};
use super::super::{Options, analyse};
use super::*;
use crate::eval::{GroundTruth, Results, Settings, evaluate};
use crate::page::parsed;
use serde_json::{Value, json};

fn small() -> (Value, Results, Results) {
    let gt = include_str!("../../../tests/golden/analysis/small_gt.json");
    let first = include_str!("../../../tests/golden/analysis/small_first.json");
    let second = include_str!("../../../tests/golden/analysis/small_second.json");
    let [first, second] = [first, second].map(|text| Results::from_json(text).unwrap());
    (serde_json::from_str(gt).unwrap(), first, second)
}

fn page(gt: &Value, first: &Results, second: Option<&Results>, title: &str) -> String {
    let gt = GroundTruth::from_json(&gt.to_string()).unwrap();
    let settings = Settings::default();
    let evaluation = evaluate(&gt, first).unwrap();
    let analysis = analyse(&gt, first, &settings, Options::default()).unwrap();
    let options = Bootstrap { resamples: 50, ..Bootstrap::default() };
    let comparison = second.map(|s| compare(&gt, first, s, &settings, options).unwrap());
    let comparison = comparison.as_ref().map(|c| (c, [title, "second"]));
    html(&Page { title, evaluation: &evaluation, analysis: &analysis, comparison })
}

fn check_closed(html: &str) {
    let (tags, attributes) = parsed(html);
    for tag in ["img", "link", "iframe", "object", "use", "image", "a", "form"] {
        assert!(!tags.iter().any(|t| t == tag), "<{tag}>");
    }
    assert_eq!(tags.iter().filter(|t| *t == "script").count(), 1);
    for attribute in attributes {
        assert!(!attribute.starts_with("on"), "{attribute}");
        assert!(!["src", "href", "xlink:href", "data"].contains(&&*attribute), "{attribute}");
    }
    for outside in ["http:", "https:", "url(", "@import", "fetch("] {
        assert!(!html.contains(outside), "{outside}");
    }
    // The script, which comes last, may ask for what is no number; coordinates are all numbers.
    let (body, _) = html.rsplit_once("<script>").unwrap();
    for number in ["NaN", "inf\"", "inf,", "inf "] {
        assert!(!body.contains(number), "{number}");
    }
}

#[test]
fn the_page_holds_the_numbers_of_independent_programs() {
    let (gt, first, second) = small();
    let html = page(&gt, &first, Some(&second), "first.json");
    check_closed(&html);
    let expected = include_str!("../../../tests/golden/analysis/expected.json");
    let expected: Value = serde_json::from_str(expected).unwrap();
    let expected = &expected["sets"]["small"];
    let tide = &expected["tide"];
    for kind in KINDS {
        let gain = tide["gains"][kind].as_f64().unwrap() / 100.;
        let text = format!("+{gain:.4} ({} errors)", tide["counts"][kind]);
        assert!(html.contains(&text), "{text}");
    }
    let best = &expected["overall"];
    let text = format!("({} right, {} wrong, {} missed)", best["tp"], best["fp"], best["fn"]);
    assert!(html.contains(&text), "{text}");
    let gt: GroundTruth = GroundTruth::from_json(&gt.to_string()).unwrap();
    for cell in expected["confusion"].as_array().unwrap() {
        let name = |k: &Value| {
            let category = gt.categories().get(k.as_u64().unwrap() as usize);
            category.map_or("background".to_owned(), |c| c.name.clone())
        };
        let text =
            format!("<title>{} detected as {}: {} (", name(&cell[0]), name(&cell[1]), cell[2]);
        assert!(html.contains(&text), "{text}");
    }
}

#[test]
fn names_stay_text() {
    let (mut gt, first, second) = small();
    let evil = "</title><script>alert(1)</script>&amp;\"' onload=\"x\u{7}";
    gt["categories"][0]["name"] = json!(evil);
    let html = page(&gt, &first, Some(&second), evil);
    check_closed(&html);
    assert!(!html.contains("<script>alert") && !html.contains('\u{7}'));
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;&quot;&#39;"));
}

#[test]
fn pages_of_little_and_of_much_are_whole() {
    let (gt, first, _) = small();
    // Without detections, without truths, without categories.
    let nothing = Results::from(Vec::new());
    check_closed(&page(&gt, &nothing, Some(&first), "no detections"));
    let mut empty = gt.clone();
    empty["annotations"] = json!([]);
    check_closed(&page(&empty, &first, Some(&nothing), "no truths"));
    empty["categories"] = json!([]);
    check_closed(&page(&empty, &first, Some(&nothing), "no categories"));
    // Scores that are no shares, and one that is no number.
    let odd = r#"[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": NaN},
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": Infinity},
        {"image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9], "score": -7e5}]"#;
    check_closed(&page(&gt, &Results::from_json(odd).unwrap(), None, "odd scores"));
    // More categories than a matrix can show.
    let mut many = gt;
    let list = many["categories"].as_array_mut().unwrap();
    list.extend((100..200).map(|id| json!({ "id": id, "name": format!("other {id}") })));
    let html = page(&many, &first, None, "many");
    check_closed(&html);
    assert!(html.contains("Shown are the 80 of 106 categories"));
    // Those that are confused are among them.
    for kind in ["kind 1", "kind 9"] {
        assert!(html.contains(&format!("{kind} detected as ")), "{kind}");
    }
}
