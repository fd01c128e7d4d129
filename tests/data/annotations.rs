//! Annotation files: what is read, what is refused, and how it is said.

use detect::data::coco::{DataError, Dataset};
use detect::geometry::{Box2, Label, Size};
use serde_json::{Value, json};

use crate::coco::{Set, annotation, annotations, image, test_data};

/// Opens split `t` of a set that has `annotations`.
fn open(annotations: &Value) -> Result<Dataset, DataError> {
    let set = Set::new();
    set.split("t", annotations);
    Dataset::open(set.root(), "t")
}

/// What opening `annotations` complains about, causes included.
fn complaint(annotations: &Value) -> String {
    let error = open(annotations).expect_err("it is refused");
    format!("{:#}", anyhow::Error::new(error))
}

#[test]
fn both_forms_of_a_folder_are_read() {
    let content = annotations(
        &[
            image(i64::MAX, "b.png", (10, 20)),
            image(3, "sub/a.png", (5, 6)),
            image(5, "c.png", (7, 8)),
        ],
        &[annotation(9, 3, 7, [1.5, 2., 3., 1.]), annotation(2, 3, 1, [0., 0., 2., 2.]), {
            let mut crowd = annotation(4, i64::MAX, 1, [0., 0., 4., 4.]);
            crowd["iscrowd"] = json!(1);
            crowd["area"] = json!(7.25);
            crowd["segmentation"] = json!({"counts": [1, 2], "size": [10, 20]});
            crowd
        }],
    );
    let short = Set::new();
    short.split("val", &content);
    let long = Set::new();
    long.file("annotations/instances_val.json", content.to_string());
    std::fs::create_dir(long.root().join("val")).unwrap();
    for (set, images) in [(&short, "images"), (&long, "val")] {
        let data = Dataset::open(set.root(), "val").unwrap();
        let names: Vec<_> = data.categories.iter().map(|c| (c.id, c.name.as_str())).collect();
        assert_eq!(names, [(1, "cat"), (7, "dog")]);
        assert_eq!(data.label_of(7), Some(Label(1)));
        assert_eq!(data.label_of(2), None);
        let ids: Vec<_> = data.images.iter().map(|i| i.id).collect();
        assert_eq!(ids, [3, 5, i64::MAX]);
        assert_eq!(data.images[0].file, set.root().join(images).join("sub/a.png"));
        assert_eq!(data.images[0].size, Some(Size::new(5, 6)));
        let first = &data.images[0].annotations;
        assert_eq!((first[0].id, first[0].label, first[1].label), (9, Label(1), Label(0)));
        assert_eq!(first[0].bbox, Box2::new(1.5, 2., 4.5, 3.));
        assert!(!first[0].crowd);
        assert!(data.images[1].annotations.is_empty());
        let crowd = &data.images[2].annotations[0];
        assert!(crowd.crowd);
        assert_eq!(crowd.area, 7.25);
        // printf '3\n5\n9223372036854775807\n' | sha256sum
        let hash = "285800211d6fd295dd698e06ed70311dbc2d8f65a93aad76337d569ac1207f9b";
        assert_eq!(data.image_ids_sha256(), hash);
    }
}

#[test]
fn keys_that_may_be_missing_have_their_defaults() {
    let data = open(&json!({
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png", "width": 640.0, "height": 480}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 0, "name": "x"}],
    }))
    .unwrap();
    assert_eq!(data.images[0].size, None);
    assert_eq!(data.images[1].size, Some(Size::new(480, 640)));
    assert_eq!(data.images[0].annotations[0].area, 12.);
    assert!(!data.images[0].annotations[0].crowd);
}

#[test]
fn an_absent_data_set_says_what_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data").join("coco");
    let message = Dataset::open(&root, "val2017").unwrap_err().to_string();
    for part in
        ["annotations/instances_SPLIT.json", "annotations/SPLIT.json", "/images", "cocodataset.org"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    let elsewhere = Dataset::open(&dir.path().join("mine"), "val").unwrap_err().to_string();
    assert!(!elsewhere.contains("cocodataset.org"));
}

#[test]
fn an_unknown_split_is_answered_with_those_that_exist() {
    let set = Set::new();
    set.file("annotations/instances_train2017.json", "{}");
    set.file("annotations/captions_train2017.json", "{}");
    set.file("annotations/val.json", "{}");
    let message = Dataset::open(set.root(), "vall").unwrap_err().to_string();
    assert!(message.contains("'vall'") && message.contains("it has: train2017, val"), "{message}");
    let message = Dataset::open(set.root(), "train2017").unwrap_err().to_string();
    assert!(message.contains("images in") && message.contains("not a folder"), "{message}");
    for split in ["", "../val", "a/b"] {
        assert!(matches!(Dataset::open(set.root(), split), Err(DataError::SplitName { .. })));
    }
}

#[test]
fn an_annotation_of_something_unlisted_is_refused_and_named() {
    let images = [image(1, "a.png", (9, 9))];
    let boxes: Vec<_> = (0..12).map(|i| annotation(i, 100 + i, 1, [0., 0., 2., 2.])).collect();
    let message = complaint(&annotations(&images, &boxes));
    assert!(message.contains("100, 101, 102") && message.contains("109 and 2 more"), "{message}");
    let message = complaint(&annotations(&images, &[annotation(1, 1, 2, [0., 0., 2., 2.])]));
    assert!(message.contains("categories") && message.ends_with(": 2"), "{message}");
}

#[test]
fn ids_that_stand_twice_are_refused() {
    let message =
        complaint(&annotations(&[image(4, "a.png", (9, 9)), image(4, "b.png", (9, 9))], &[]));
    assert!(message.contains("images have the id 4 more than once"), "{message}");
    let mut twice = annotations(&[image(4, "a.png", (9, 9))], &[]);
    twice["categories"] = json!([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]);
    let message = complaint(&twice);
    assert!(message.contains("categories have the id 1 more than once"), "{message}");
}

#[test]
fn a_box_that_is_none_is_refused_with_its_annotation() {
    let images = [image(1, "a.png", (9, 9))];
    for bbox in [
        json!([1, 1, -2, 3]),
        json!([1, 1, 2, -0.5]),
        json!([1, null, 2, 2]),
        json!([1, 1e10, 2, 2]),
        Value::Null,
    ] {
        let mut bad = annotation(77, 1, 1, [0.; 4]);
        bad["bbox"] = bbox.clone();
        let message = complaint(&annotations(&images, &[bad]));
        assert!(message.contains("annotation 77"), "{bbox}: {message}");
        assert!(!message.contains("Some(") && !message.contains("None"), "{bbox}: {message}");
    }
    // Python writes it so.
    let set = Set::new();
    let json = annotations(&images, &[annotation(77, 1, 1, [5.5, 1., 2., 2.])]).to_string();
    set.file("annotations/t.json", json.replace("5.5", "NaN"));
    let message = Dataset::open(set.root(), "t").unwrap_err().to_string();
    let words = "the box of annotation 77 (image 1) is [NaN, 1.0, 2.0, 2.0]: ";
    assert!(message.contains(words), "{message}");
    // Without area it can be read: evaluation counts it, training leaves it out.
    assert!(open(&annotations(&images, &[annotation(1, 1, 1, [5., 5., 0., 0.])])).is_ok());
}

#[test]
fn a_file_name_that_leaves_the_folder_is_refused() {
    for bad in ["/etc/passwd", "../a.png", "a/../../b.png", "C:\\a.png", "C:a.png", "a\0b.png", ""]
    {
        let message = complaint(&annotations(&[image(6, bad, (9, 9))], &[]));
        assert!(message.contains("of image 6"), "{bad:?}: {message}");
    }
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let good = annotations(&[image(1, "a.png", (9, 9))], &[]);
    for (key, value, part) in [
        ("annotations", Value::Null, "no key 'annotations'"),
        ("categories", json!([]), "no categories"),
        ("images", json!([]), "no images"),
        ("images", json!("x"), "line 1 column"),
        ("images", json!([image(1, "a.png", (0, 9))]), "size of 9 x 0"),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        let message = complaint(&bad);
        assert!(message.contains(part), "{message}");
    }
    let message = complaint(&json!([{"image_id": 1, "score": 0.5}]));
    assert!(message.contains("not an annotation file in COCO's form"), "{message}");
    let set = Set::new();
    set.file("annotations/t.json", "{\"images\": [");
    let message = format!("{:#}", anyhow::Error::new(Dataset::open(set.root(), "t").unwrap_err()));
    assert!(message.contains("EOF"), "{message}");
    set.file("annotations/t.json", [b"\xef\xbb\xbf", good.to_string().as_bytes()].concat());
    assert!(Dataset::open(set.root(), "t").is_ok());
}

#[test]
fn minival_and_its_rest_make_up_val2014() {
    let set = Set::new();
    for (split, ids) in [("train2014", vec![1, 2]), ("val2014", vec![10, 11, 12])] {
        let images: Vec<_> = ids.iter().map(|&i| image(i, &format!("{i}.png"), (9, 9))).collect();
        let boxes: Vec<_> = ids.iter().map(|&i| annotation(i, i, 7, [0., 0., 2., 2.])).collect();
        set.file(
            &format!("annotations/instances_{split}.json"),
            annotations(&images, &boxes).to_string(),
        );
        std::fs::create_dir(set.root().join(split)).unwrap();
    }
    let message = Dataset::open(set.root(), "minival").unwrap_err().to_string();
    assert!(message.contains("github.com/tensorflow/models"), "{message}");
    set.file("mscoco_minival_ids.txt", "11\n10\n");
    let ids = |split| -> Vec<i64> {
        let data = Dataset::open(set.root(), split).unwrap();
        assert!(data.images.iter().all(|i| i.annotations.len() == 1));
        data.images.iter().map(|i| i.id).collect()
    };
    assert_eq!(ids("minival"), [10, 11]);
    assert_eq!(ids("trainval-minus-minival"), [1, 2, 12]);
    let data = Dataset::open(set.root(), "trainval-minus-minival").unwrap();
    assert_eq!(data.images[2].file, set.root().join("val2014/12.png"));
    set.file("mscoco_minival_ids.txt", "11\n99\n");
    let message = Dataset::open(set.root(), "minival").unwrap_err().to_string();
    assert!(message.contains("line 2: '99'"), "{message}");
}

#[test]
fn test_dev_needs_no_truth() {
    let set = Set::new();
    let mut content = annotations(&[image(1, "a.png", (9, 9))], &[]);
    content.as_object_mut().unwrap().remove("annotations");
    set.file("annotations/image_info_test-dev2017.json", content.to_string());
    set.file("test2017/a.png", "");
    let data = Dataset::open(set.root(), "test-dev").unwrap();
    assert_eq!(data.images[0].file, set.root().join("test2017/a.png"));
}

#[test]
fn real_coco_annotations_are_read_whole() {
    let Some(material) = test_data() else { return };
    let data = Dataset::open(&material.join("data/coco_free"), "train").unwrap();
    let count = |f: &dyn Fn(&detect::data::coco::Annotation) -> bool| -> usize {
        data.images.iter().flat_map(|i| &i.annotations).filter(|a| f(a)).count()
    };
    // The figures are those of the set's own description.
    assert_eq!((data.images.len(), count(&|_| true), count(&|a| a.crowd)), (72, 653, 9));
    assert_eq!(data.categories.len(), 80);
    assert_eq!(data.label_of(90), Some(Label(79)));
    let empty: Vec<_> =
        data.images.iter().filter(|i| i.annotations.is_empty()).map(|i| i.id).collect();
    assert_eq!(empty, [508]);
}
