//! Which class has which number: label maps of TensorFlow's Object Detection API, and COCO's own.

use std::collections::BTreeSet;
use std::path::Path;

use super::WeightsError;
use super::text_format::{self, Message, Value};
use crate::data::Category;

/// How errors call the file.
const FORMAT: &str = "label map";

/// Reads a label map (`item { name: "/m/01g317" id: 1 display_name: "person" }`, one for each class),
/// sorted by id. The name is `display_name` where there is one.
pub fn read(path: &Path) -> Result<Vec<Category>, WeightsError> {
    let tree = text_format::read(path, FORMAT)?;
    categories(&tree).map_err(|(line, reason)| WeightsError::Broken {
        path: path.into(),
        format: FORMAT,
        reason: format!("line {line}: {reason}"),
    })
}

fn categories(tree: &Message) -> Result<Vec<Category>, (usize, String)> {
    let mut found = Vec::new();
    let mut ids = BTreeSet::new();
    for field in &tree.fields {
        let (line, reason) = (field.line, format!("'{}' where 'item {{' was expected", field.name));
        let Value::Message(item) = &field.value else { return Err((line, reason)) };
        if &*field.name != "item" {
            return Err((line, reason));
        }
        let text = |key: &str| item.fields(key).next().and_then(|field| field.value.text());
        let name = text("display_name").or(text("name"));
        let id = item.fields("id").next().and_then(|field| match &field.value {
            Value::Word(word) => text_format::integer(word),
            _ => None,
        });
        let Some(id) = id else { return Err((line, "an item has no id that is a number".into())) };
        // Background may be listed, but is no class.
        if id == 0 && text("name") == Some("background") {
            continue;
        }
        if !(1..=i64::from(i32::MAX)).contains(&id) {
            return Err((line, format!("an item has the id {id}; ids begin at 1")));
        }
        if !ids.insert(id) {
            return Err((line, format!("two items have the id {id}")));
        }
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err((line, format!("the item of id {id} has no name")));
        };
        found.push(Category { id, name: name.into() });
    }
    if found.is_empty() {
        return Err((1, "it has no items".into()));
    }
    found.sort_by_key(|category| category.id);
    Ok(found)
}

/// The 80 classes of COCO with their numbers, 1 to 90 (10 numbers are not used).
pub fn coco() -> Vec<Category> {
    let numbered = (1..).zip(COCO).filter(|(_, name)| !name.is_empty());
    numbered.map(|(id, name)| Category { id, name: (*name).into() }).collect()
}

/// Ten a line; an empty name is a number that is not used.
#[rustfmt::skip]
const COCO: &[&str] = &[
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep",
    "cow", "elephant", "bear", "zebra", "giraffe", "", "backpack", "umbrella", "", "",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", "", "wine glass", "cup", "fork", "knife", "spoon",
    "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
    "cake", "chair", "couch", "potted plant", "bed", "", "dining table", "", "", "toilet",
    "", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster",
    "sink", "refrigerator", "", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Category>, (usize, String)> {
        categories(&text_format::parse(text)?)
    }

    #[test]
    fn names_for_people_come_first() {
        let text = "item {\n name: '/m/01g317' id: 7 display_name: \"person\" }\nitem: < id: 2, name: 'cat' >\nitem { id: 0 name: 'background' }";
        let category = |id, name: &str| Category { id, name: name.into() };
        assert_eq!(parse(text), Ok(vec![category(2, "cat"), category(7, "person")]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, expected) in [
            ("\nitem { id: 0 name: 'a' }", 2, "an item has the id 0; ids begin at 1"),
            ("item { id: -3 name: 'a' }", 1, "an item has the id -3; ids begin at 1"),
            ("item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }", 2, "two items have the id 1"),
            ("item { name: 'a' }", 1, "an item has no id that is a number"),
            ("item { id: 3 }", 1, "the item of id 3 has no name"),
            ("item: 3", 1, "'item' where 'item {' was expected"),
            ("items { }", 1, "'items' where 'item {' was expected"),
            ("# nothing", 1, "it has no items"),
        ] {
            assert_eq!(parse(text), Err((line, expected.into())), "{text}");
        }
    }

    #[test]
    fn coco_has_80_classes() {
        let coco = coco();
        assert_eq!((coco.len(), coco[79].id), (80, 90));
    }
}
