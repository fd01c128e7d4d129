//! The lists of names and shapes of the published files, each against what is taken from such a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use detect::nasnet::{BackboneName, Plan, Wiring};
use detect::weights::import::wanted::{Sides, Wanted};
use detect::weights::import::{self, About, Layout, Settings, tf_slim, timm};

use crate::Zeros;

/// Rows of a table of names and shapes, without its head.
fn table(name: &str) -> Option<Vec<Vec<String>>> {
    let Some(root) = std::env::var_os("DETECT_TEST_DATA") else {
        eprintln!("skipped: spec/keys/{name}: DETECT_TEST_DATA is not set");
        return None;
    };
    let text = fs::read_to_string(Path::new(&root).join("spec/keys").join(name)).unwrap();
    let rows = text.lines().map(|line| line.split('\t').map(str::to_owned).collect());
    Some(
        rows.filter(|row: &Vec<String>| !["key", "variable", "torch_key"].contains(&&*row[0]))
            .collect(),
    )
}

fn shape(text: &str) -> Vec<usize> {
    text.split('x').filter_map(|side| side.parse().ok()).collect()
}

/// Names and shapes as a file of zeros; columns of a name and its shape.
fn zeros(rows: &[Vec<String>], columns: [usize; 2]) -> Zeros {
    Zeros::new(rows.iter().map(|row| (&*row[columns[0]], shape(&row[columns[1]]))))
}

fn wanted_by_name(wanted: Vec<Wanted>) -> BTreeMap<String, Wanted> {
    let bare = |w: &Wanted| w.name.strip_prefix("backbone.").unwrap().to_owned();
    wanted.into_iter().map(|w| (bare(&w), w)).collect()
}

#[test]
fn every_tensor_comes_from_the_variable_that_the_published_mapping_says() {
    for (file, name, numbers) in [
        ("map_torch_to_tf_large.tsv", BackboneName::LARGE, (0..18).collect::<Vec<_>>()),
        // Cadene's numbers: a stage has six.
        (
            "map_torch_to_tf_mobile.tsv",
            BackboneName::MOBILE,
            [0, 6, 12].iter().flat_map(|&s| s..s + 4).collect(),
        ),
    ] {
        let Some(rows) = table(file) else { return };
        let plan = Plan::published(name);
        let source = zeros(&rows, [2, 3]);
        let found = tf_slim::Found::read(import_tensors(&source), Path::new(file)).unwrap();
        assert_eq!((found.name, found.stem_filters), (name, plan.stem_filters));
        let section = import::section(name, found.stem_filters, &Settings::default(), false);
        let from_slim = tf_slim::wanted(&found, &section, 1000, import_tensors(&source), false);
        let from_slim = wanted_by_name(from_slim);
        let source = zeros(&rows, [0, 1]);
        let by_torch = timm::Found::read(import_tensors(&source), "", Path::new(file)).unwrap();
        assert_eq!((by_torch.name, &by_torch.numbers), (name, &numbers));
        let from_torch = wanted_by_name(timm::wanted(&by_torch, &section, Some(1000)));
        assert_eq!(from_slim.len(), rows.len(), "{file}");
        // Both files name the same tensor of ours in one row of the mapping.
        let mut to_slim: BTreeMap<&str, &Wanted> = BTreeMap::new();
        for (ours, wanted) in &from_torch {
            to_slim.insert(&wanted.from, &from_slim[ours]);
        }
        for row in &rows {
            let slim = to_slim[&*row[0]];
            assert_eq!(slim.from, row[2], "{}", row[0]);
            let sides = match row[4].split(':').next().unwrap() {
                "HWIO->OIHW" => Sides::ConvolutionOfTf,
                "HWIM(in,1)->(in,1,h,w)" => Sides::DepthwiseOfTf,
                "transpose" => Sides::LinearOfTf,
                _ => Sides::Same,
            };
            assert_eq!(slim.sides, sides, "{}", row[0]);
        }
    }
}

fn import_tensors(source: &Zeros) -> &BTreeMap<String, detect::weights::TensorInfo> {
    use detect::weights::Source as _;
    source.tensors()
}

#[test]
fn the_published_lists_are_taken_whole() {
    // Each with its columns, and what it must become: parameters with batch norm statistics.
    let cases = [
        ("tfslim_nasnet_a_mobile_4x1056_1001_vars.tsv", "nasnet-a-4@1056", 1000, 5_326_716),
        ("tfslim_nasnet_a_cifar_6x768_10_vars.tsv", "nasnet-a-6@768-cifar", 10, 3_383_786),
        ("cadene_nasnetamobile_keys.tsv", "nasnet-a-4@1056", 1000, 5_326_716),
        ("timm_nasnetalarge_keys.tsv", "nasnet-a-6@4032", 1000, 88_949_818),
    ];
    for (file, name, classes, parameters) in cases {
        let Some(rows) = table(file) else { return };
        let mut source = zeros(&rows, [0, 1]);
        let imported =
            import::import(&mut source, None, &Settings::default(), Path::new(file)).unwrap();
        let About::Classifier(info) = &imported.about else { panic!("{file} is a classifier") };
        assert_eq!(info.backbone.name.to_string(), name, "{file}");
        assert_eq!(info.classes.len(), classes, "{file}");
        let large = info.backbone.name == BackboneName::LARGE;
        assert_eq!(info.backbone.wiring == Wiring::Large, large, "{file}");
        let numbers = imported.contents.tensors.values();
        let numbers: usize = numbers.map(|t| t.shape.iter().product::<usize>()).sum();
        assert_eq!(numbers, parameters, "{file}");
    }
}

#[test]
fn the_published_detector_s_list_is_taken_whole() {
    let Some(rows) = table("tf_detector_large.tsv") else { return };
    let mut source = zeros(&rows, [0, 2]);
    let path = Path::new("tf_detector_large.tsv");
    let imported = import::import(&mut source, None, &Settings::default(), path).unwrap();
    assert_eq!(imported.layout, Layout::TfDetector);
    let About::Detector(info) = &imported.about else { panic!("it is a detector") };
    assert_eq!(info.config.backbone.name, BackboneName::LARGE);
    assert_eq!(imported.contents.tensors.len(), rows.len());
    // COCO's ids are the numbers of the outputs, ten of them unused.
    assert_eq!(info.categories.len(), 90);
    let name = |id: i64| &*info.categories[id as usize - 1].name;
    assert_eq!([name(1), name(13), name(90)], ["person", "stop sign", "toothbrush"]);
    assert_eq!(name(12), "class 12");
}
