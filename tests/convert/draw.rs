//! `detect draw`.

use std::path::Path;

use detect::data::image::decode;
use serde_json::json;

use crate::common::{Set, annotation, annotations, image};
use crate::detect;

fn set() -> Set {
    let set = Set::new();
    set.png("a.png", (200, 300), 128, [0; 4]);
    set.png("sub/b.png", (200, 300), 128, [0; 4]);
    let mut crowd = annotation(2, 1, 7, [200., 20., 80., 100.]);
    crowd["iscrowd"] = json!(1);
    crowd["segmentation"] = json!({"size": [200, 300], "counts": [60000]});
    let mut outlined = annotation(1, 1, 1, [40., 60., 140., 100.]);
    outlined["segmentation"] = json!([[60, 80, 160, 80, 160, 140]]);
    let content = annotations(
        &[image(1, "a.png", (200, 300)), image(9, "sub/b.png", (200, 300))],
        &[outlined, crowd],
    );
    set.split("t", &content);
    set.split("u", &annotations(&[image(9, "sub/b.png", (200, 300))], &[]));
    set
}

fn draw(set: &Set, out: &Path, more: &[&str]) -> (i32, String, String) {
    let args = ["draw", set.root().to_str().unwrap(), "--out", out.to_str().unwrap()];
    detect(&[&args, more].concat())
}

#[test]
fn boxes_and_outlines_are_on_the_picture() {
    let (set, out) = (set(), tempfile::tempdir().unwrap());
    let (code, stdout, stderr) = draw(&set, out.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("t: 2 images with 2 boxes in "), "{stdout}");
    assert!(stdout.contains("u: 1 images with 0 boxes in "), "{stdout}");
    let picture = decode(&out.path().join("t/a.png")).unwrap().image;
    let changed = |x: usize, y: usize| picture.pixels[3 * (y * 300 + x)..][..3] != [128; 3];
    // The frame, the outline (its slanted side, too), the frame of the crowd.
    for (x, y) in [(40, 100), (100, 60), (179, 120), (100, 80), (160, 110), (110, 110), (200, 100)]
    {
        assert!(changed(x, y), "{x}, {y}");
    }
    for (x, y) in [(60, 140), (140, 100), (20, 20), (240, 110)] {
        assert!(!changed(x, y), "{x}, {y}");
    }
    assert!(out.path().join("u/sub/b.png").is_file());
    assert!(stderr.contains("t: 1 masks in run-length form are not drawn"), "{stderr}");
}

#[test]
fn outlines_are_read_wherever_boxes_are() {
    let (set, out) = (set(), tempfile::tempdir().unwrap());
    let file = set.root().join("annotations/t.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let nan = text.replacen('{', "{\"score\": NaN, ", 1);
    for marked in [format!("\u{feff}{text}"), nan] {
        std::fs::write(&file, marked).unwrap();
        let (code, _, stderr) = draw(&set, out.path(), &["--split", "t"]);
        assert_eq!(code, 0, "{stderr}");
        let picture = decode(&out.path().join("t/a.png")).unwrap().image;
        assert_ne!(picture.pixels[3 * (110 * 300 + 160)..][..3], [128; 3]);
    }
}

#[test]
fn images_are_not_replaced_by_their_pictures() {
    let set = Set::new();
    set.png("a.png", (20, 30), 128, [0; 4]);
    // A split that is called as the folder of the images.
    set.split(
        "images",
        &annotations(&[image(1, "a.png", (20, 30))], &[annotation(1, 1, 1, [2., 2., 9., 9.])]),
    );
    let file = set.root().join("images/a.png");
    let before = std::fs::read(&file).unwrap();
    let (code, _, stderr) = draw(&set, set.root(), &[]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("choose another folder"), "{stderr}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn nothing_is_drawn_where_a_later_split_would_lose_its_images() {
    let set = Set::new();
    for name in ["a.png", "b.bmp.jpg"] {
        set.png(name, (20, 30), 128, [0; 4]);
    }
    let of = |id, name| annotations(&[image(id, name, (20, 30))], &[]);
    // By name `early` comes first, and its own pictures would harm nothing.
    set.split("early", &of(1, "a.png"));
    set.split("images", &of(1, "a.png"));
    let files = |folder: &str| std::fs::read_dir(set.root().join(folder)).unwrap().count();
    let before = (files("."), std::fs::read(set.root().join("images/a.png")).unwrap());
    let (code, stdout, stderr) = draw(&set, set.root(), &[]);
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains("images/a.png"), "{stderr}");
    // By another name of the folder, too.
    let other = tempfile::tempdir().unwrap();
    let link = other.path().join("link");
    std::os::unix::fs::symlink(set.root(), &link).unwrap();
    assert_eq!(draw(&set, &link, &[]).0, 2);
    // The picture of b.bmp is called b.bmp.jpg, which is another image.
    set.png("b.bmp", (20, 30), 128, [0; 4]);
    set.split(
        "images",
        &annotations(&[image(1, "b.bmp", (20, 30)), image(2, "b.bmp.jpg", (20, 30))], &[]),
    );
    let (code, _, stderr) = draw(&set, set.root(), &["--split", "images", "--limit", "1"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("images/b.bmp.jpg"), "{stderr}");
    assert_eq!(files("."), before.0, "no folder was made");
    assert_eq!(std::fs::read(set.root().join("images/a.png")).unwrap(), before.1);
}

#[test]
fn some_images_only() {
    let set = set();
    let files = |more: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let (code, _, stderr) = draw(&set, out.path(), more);
        assert_eq!(code, 0, "{stderr}");
        let there = |name: &str| out.path().join(name).is_file();
        ["t/a.png", "t/sub/b.png", "u/sub/b.png"].map(there)
    };
    assert_eq!(files(&["--split", "t"]), [true, true, false]);
    assert_eq!(files(&["--limit", "1"]), [true, false, true]);
    assert_eq!(files(&["--image", "9"]), [false, true, true]);
    assert_eq!(files(&["--image", "b.png", "--split", "u"]), [false, false, true]);
    assert_eq!(files(&["--image", "1", "--image", "sub/b.png"]), [true, true, true]);
    let out = tempfile::tempdir().unwrap();
    let (_, stdout, _) = draw(&set, out.path(), &["--split", "t", "--limit", "0"]);
    assert!(stdout.contains("t: 0 images with 0 boxes in "), "{stdout}");
}

#[test]
fn what_is_not_there_is_told() {
    let (set, out) = (set(), tempfile::tempdir().unwrap());
    let (code, _, stderr) = draw(&set, out.path(), &["--image", "x.png"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("no image 'x.png'"), "{stderr}");
    let (code, _, stderr) = draw(&set, out.path(), &["--split", "v"]);
    assert_eq!(code, 3);
    let [reason, hint] = ["no split 'v' (it has: t, u)", "`detect check DIR` lists all mistakes"]
        .map(|part| stderr.find(part).unwrap_or_else(|| panic!("no {part} in {stderr}")));
    assert!(reason < hint, "the reason comes first: {stderr}");
    std::fs::write(set.root().join("images/a.png"), "none").unwrap();
    let (code, stdout, stderr) = draw(&set, out.path(), &["--split", "t"]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stderr.contains("a.png is not an image"), "{stderr}");
    assert!(stdout.contains("t: 1 images with 0 boxes in "), "{stdout}");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(detect(&["draw", empty.path().to_str().unwrap()]).0, 3);
    // A file where the folder should be.
    let file = set.root().join("annotations/t.json");
    assert_eq!(draw(&set, &file, &["--split", "u"]).0, 5);
}
