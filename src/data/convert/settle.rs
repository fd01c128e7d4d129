//! Annotations meet their image files: what has one right answer is repaired, the rest is told.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::exif::{turn_box, turn_polygon};
use super::log::Change;
use super::model::{Declared, Image, Object, Outline, Source};
use crate::data::check::leaves;
use crate::data::image::{ImageError, decode, header};
use crate::geometry::Size;

/// How closely image files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Their size and orientation.
    Header,
    /// All of their pixels: damage is found.
    Pixels,
}

type Said = Vec<(Change, String)>;

/// Settles every image of every split.
pub(super) fn settle(source: &mut Source, care: Care, progress: super::Progress<'_>) {
    let all = source.splits.iter().map(|split| split.images.len()).sum();
    let done = AtomicUsize::new(0);
    for split in &mut source.splits {
        let truth = !split.without_truth;
        let settled: Vec<(Option<Image>, Said)> = std::mem::take(&mut split.images)
            .into_par_iter()
            .map(|mut image| {
                let mut said = Said::new();
                let keep = settle_image(&mut image, care, truth, &mut said);
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
                (keep.then_some(image), said)
            })
            .collect();
        for (image, said) in settled {
            split.images.extend(image);
            for (change, example) in said {
                // Only some forms have sizes at all.
                if change != Change::SizeAdded || source.declares_sizes {
                    source.log.add(change, Some(&split.name), example);
                }
            }
        }
    }
}

/// What a file says of itself.
#[derive(Debug, Clone, Copy)]
struct Facts {
    stored: Size,
    upright: Size,
    orientation: u8,
}

fn facts(image: &Image, care: Care) -> Result<Facts, ImageError> {
    let header = header(&image.file)?;
    if care == Care::Pixels {
        decode(&image.file)?;
    }
    Ok(Facts {
        stored: header.size,
        upright: header.upright_size(),
        orientation: header.orientation,
    })
}

/// Whether the image can be used.
fn settle_image(image: &mut Image, care: Care, truth: bool, said: &mut Said) -> bool {
    let facts = match facts(image, care) {
        Ok(facts) => facts,
        Err(error) => {
            let missing = matches!(&error, ImageError::Read { source, .. }
                if source.kind() == std::io::ErrorKind::NotFound);
            let boxes = image.objects.len();
            let with = if boxes == 0 { String::new() } else { format!(" ({boxes} boxes)") };
            said.push(if missing {
                (Change::MissingImage, format!("{}{with}", image.name))
            } else {
                (Change::BrokenImage, format!("{}{with}: {}", image.name, chain(&error)))
            });
            return false;
        }
    };
    let had = image.objects.len();
    let size = settle_size(image, facts, said);
    let name = std::mem::take(&mut image.name);
    image.objects.retain_mut(|object| settle_object(object, &name, size, said));
    drop_repeated(&mut image.objects, &name, said);
    image.name = name;
    if truth && image.objects.is_empty() {
        let all = if had == 0 { "" } else { ": all of its objects were left out" };
        said.push((Change::Background, format!("{}{all}", image.name)));
    }
    true
}

/// The size that the boxes are held against, which becomes the declared one. Boxes are turned where
/// they were made for the stored picture.
fn settle_size(image: &mut Image, facts: Facts, said: &mut Said) -> Size {
    let Facts { stored, upright, orientation } = facts;
    let example = |what: String| format!("{}: {what}", image.name);
    let mut size = upright;
    let mut either_side = orientation != 1 && upright == stored;
    match image.declared {
        Declared::Size(declared) if declared == upright => {}
        Declared::None => {
            said.push((Change::SizeAdded, example(format!("{upright} (height x width)"))));
            either_side = orientation != 1;
        }
        Declared::Bad(width, height) => {
            let text = format!(
                "{width} x {height} (width x height) is {} x {}",
                upright.width, upright.height
            );
            said.push((Change::SizeCorrected, example(text)));
            either_side = orientation != 1;
        }
        Declared::Size(declared) => {
            let text = example(format!("is {upright} (height x width), declared {declared}"));
            // The sides that a box may have in fractions say nothing of the declared size.
            let pixels = || image.objects.iter().filter(|o| !o.fractions && is_box(o.bbox).is_ok());
            let fit = |size| pixels().all(|o| !leaves(o.bbox, size));
            if declared == stored {
                if image.objects.iter().all(can_turn) {
                    for object in image.objects.iter_mut().filter(|o| !o.fractions) {
                        turn_object(object, orientation, stored);
                    }
                    said.push((Change::TurnedImage, text));
                } else {
                    said.push((Change::NotTurned, text));
                    size = declared;
                }
            } else if pixels().next().is_none() || (!fit(declared) && fit(upright)) {
                said.push((Change::SizeCorrected, text));
            } else {
                said.push((Change::OtherSize, text));
                size = declared;
            }
        }
    }
    if either_side && !image.objects.is_empty() {
        said.push((Change::MaybeTurned, image.name.clone()));
    }
    image.declared = Declared::Size(size);
    size
}

/// Whether all that the object has can be turned here.
fn can_turn(object: &Object) -> bool {
    let outline = match &object.outline {
        Outline::None | Outline::Polygons(_) => true,
        Outline::Json(json) => serde_json::from_str::<Vec<Vec<f64>>>(json.get()).is_ok(),
    };
    outline && !object.rest.contains_key("keypoints")
}

fn turn_object(object: &mut Object, orientation: u8, stored: Size) {
    object.bbox = turn_box(object.bbox, orientation, stored);
    if let Outline::Json(json) = &object.outline
        && let Ok(polygons) = serde_json::from_str(json.get())
    {
        object.outline = Outline::Polygons(polygons);
    }
    if let Outline::Polygons(polygons) = &mut object.outline {
        for polygon in polygons {
            turn_polygon(polygon, orientation, stored);
        }
    }
}

/// What is wrong with `[x, y, width, height]`.
fn is_box(bbox: [f64; 4]) -> Result<(), &'static str> {
    if bbox.iter().any(|n| !n.is_finite() || n.abs() > 1e9) {
        Err("these are not numbers of pixels")
    } else if bbox[2] < 0. || bbox[3] < 0. {
        Err("width and height must not be negative")
    } else {
        Ok(())
    }
}

/// Whether the object can be used in an image of `size`.
fn settle_object(object: &mut Object, image: &str, size: Size, said: &mut Said) -> bool {
    let source_box = object.bbox;
    let mut say = |object: &Object, change, detail: String| {
        said.push((change, format!("{}: {detail}", object.named(image))));
    };
    if let Err(problem) = is_box(object.bbox) {
        say(object, Change::BadBox, format!("{source_box:?}, {problem}"));
        return false;
    }
    if object.fractions {
        to_pixels(object, size);
    }
    let [x, y, w, h] = object.bbox;
    if w == 0. || h == 0. {
        say(object, Change::ZeroAreaBox, format!("{source_box:?}"));
        return false;
    }
    if leaves(object.bbox, size) {
        let (x1, y1) = (x.max(0.), y.max(0.));
        let (x2, y2) = ((x + w).min(size.width as f64), (y + h).min(size.height as f64));
        let detail = format!("{:?} in {size} (height x width)", object.bbox);
        if x2 <= x1 || y2 <= y1 {
            say(object, Change::OutsideBox, detail);
            return false;
        }
        // The area of a mask stays; that of a box is that of the new one.
        let of_box = object.area.is_some_and(|area| (area - w * h).abs() <= 1e-6 * w * h);
        if of_box {
            object.area = Some((x2 - x1) * (y2 - y1));
        }
        object.bbox = [x1, y1, x2 - x1, y2 - y1];
        say(object, Change::ClippedBox, detail);
    }
    let [_, _, w, h] = object.bbox;
    let given = object.area.filter(|area| area.is_finite() && *area > 0.);
    object.area = given.or_else(|| outline_area(&object.outline)).or(Some(w * h));
    true
}

/// Leaves one of objects that say the same: the others would be truth that no detection can match.
fn drop_repeated(objects: &mut Vec<Object>, image: &str, said: &mut Said) {
    let mut kept: Vec<Object> = Vec::with_capacity(objects.len());
    let mut known: HashMap<(i64, [u64; 4]), Vec<usize>> = HashMap::new();
    for object in objects.drain(..) {
        let alike = known.entry((object.category_id, object.bbox.map(f64::to_bits))).or_default();
        if alike.iter().any(|&i| object.repeats(&kept[i])) {
            said.push((Change::RepeatedEntry, object.named(image)));
        } else {
            alike.push(kept.len());
            kept.push(object);
        }
    }
    *objects = kept;
}

/// Fractions to pixels, to a thousandth: finer than any file has them.
fn to_pixels(object: &mut Object, size: Size) {
    let round = |n: f64| (n * 1000.).round() / 1000.;
    let (width, height) = (size.width as f64, size.height as f64);
    let [x, y, w, h] = object.bbox;
    let (x1, y1) = (round(x * width), round(y * height));
    let (x2, y2) = (round((x + w) * width), round((y + h) * height));
    object.bbox = [x1, y1, round(x2 - x1), round(y2 - y1)];
    if let Outline::Polygons(polygons) = &mut object.outline {
        for point in polygons.iter_mut().flat_map(|polygon| polygon.chunks_exact_mut(2)) {
            let inside = [
                round(point[0] * width).clamp(0., width),
                round(point[1] * height).clamp(0., height),
            ];
            point.copy_from_slice(&inside);
        }
    }
    object.fractions = false;
}

/// The area of polygons that do not cross themselves; none where they are lines or no polygons.
fn outline_area(outline: &Outline) -> Option<f64> {
    let polygons: Cow<'_, [Vec<f64>]> = match outline {
        Outline::None => return None,
        Outline::Polygons(polygons) => polygons.into(),
        Outline::Json(json) => serde_json::from_str::<Vec<Vec<f64>>>(json.get()).ok()?.into(),
    };
    let area = |p: &Vec<f64>| {
        let points: Vec<&[f64]> = p.chunks_exact(2).collect();
        let next = points.iter().cycle().skip(1);
        let twice: f64 = points.iter().zip(next).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum();
        twice.abs() / 2.
    };
    Some(polygons.iter().map(area).sum()).filter(|area| *area > 0.)
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::convert::model::Place;

    fn object(bbox: [f64; 4]) -> Object {
        Object::of_box(1, bbox, Place::new(&Arc::from("a.txt"), 3))
    }

    fn settled(mut object: Object) -> (Option<Object>, Vec<Change>) {
        let mut said = Said::new();
        let keep = settle_object(&mut object, "a.jpg", Size::new(30, 40), &mut said);
        for (_, example) in &said {
            assert!(example.starts_with("a.txt, line 3 (a.jpg): "), "{example}");
        }
        (keep.then_some(object), said.into_iter().map(|(change, _)| change).collect())
    }

    #[test]
    fn boxes_are_kept_cut_or_left_out() {
        let bbox = |b: [f64; 4]| {
            let (object, said) = settled(object(b));
            (object.map(|o| (o.bbox, o.area)), said)
        };
        assert_eq!(bbox([1., 2., 3., 4.]), (Some(([1., 2., 3., 4.], Some(12.))), vec![]));
        // Rounding is no mistake.
        assert_eq!(bbox([1., 2., 39.04, 4.]).1, []);
        let cut = Some(([0., 2., 3., 28.], Some(84.)));
        assert_eq!(bbox([-2., 2., 5., 40.]), (cut, vec![Change::ClippedBox]));
        assert_eq!(bbox([40., 2., 5., 4.]), (None, vec![Change::OutsideBox]));
        assert_eq!(bbox([1., 2., 0., 4.]), (None, vec![Change::ZeroAreaBox]));
        assert_eq!(bbox([1., 2., 3., -4.]), (None, vec![Change::BadBox]));
        assert_eq!(bbox([f64::NAN, 2., 3., 4.]), (None, vec![Change::BadBox]));
    }

    #[test]
    fn the_area_of_a_mask_stays_and_that_of_a_box_follows_it() {
        let mut of_box = object([-2., 0., 4., 5.]);
        of_box.area = Some(20.);
        assert_eq!(settled(of_box).0.unwrap().area, Some(10.));
        let mut of_mask = object([-2., 0., 4., 5.]);
        of_mask.area = Some(7.);
        assert_eq!(settled(of_mask).0.unwrap().area, Some(7.));
    }

    #[test]
    fn of_objects_that_say_the_same_one_is_left() {
        let mut other_class = object([1., 2., 3., 4.]);
        other_class.category_id = 2;
        let mut masked = object([1., 2., 3., 4.]);
        masked.outline = Outline::Polygons(vec![vec![1., 2., 4., 2., 4., 6.]]);
        let same = || object([1., 2., 3., 4.]);
        let mut objects = vec![same(), other_class, same(), masked, object([1., 2., 3., 4.5])];
        objects[2].id = Some(7);
        let mut said = Said::new();
        drop_repeated(&mut objects, "a.jpg", &mut said);
        assert_eq!(objects.len(), 4);
        assert_eq!(said, [(Change::RepeatedEntry, "a.jpg: annotation 7".into())]);
    }

    #[test]
    fn fractions_become_pixels_with_their_outline() {
        let mut triangle = object([0.25, 0.1, 0.5, 0.9]);
        triangle.fractions = true;
        triangle.outline = Outline::Polygons(vec![vec![0.25, 0.1, 0.75, 0.1, 0.75, 1.]]);
        let triangle = settled(triangle).0.unwrap();
        assert_eq!(triangle.bbox, [10., 3., 20., 27.]);
        assert_eq!(triangle.area, Some(270.));
    }
}
