//! Tables.

use serde_json::json;

use crate::{Source, assert_sound, convert};

fn table(text: &str) -> Source {
    let source = Source::new();
    source.picture("pics/a.png");
    source.picture("pics/b.png");
    source.file("boxes.csv", text);
    source
}

#[test]
fn columns_are_found_by_their_names() {
    let boxes = json!([
        ["a.png", "dog", [1.0, 2.0, 9.0, 18.0], 0],
        ["a.png", "cat, big", [5.0, 5.0, 10.5, 5.0], 0],
        ["b.png", "dog", [0.0, 0.0, 40.0, 30.0], 0],
    ]);
    for text in [
        // TensorFlow's and Roboflow's.
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,30,dog,1,2,10,20\n\
         a.png,40,30,\"cat, big\",5,5,15.5,10\nb.png,40,30,dog,0,0,40,30\n",
        "\u{feff}Label , X , Y , W , H , Image\r\ndog,1,2,9,18,pics/a.png\r\n\
         \"cat, big\",5,5,10.5,5,/x/pics/a.png\r\ndog,0,0,40,30,C:\\pics\\b.png\r\n",
        "image_path;x;y;width;height;category\na;1;2;9;18;dog\na;5;5;10.5;5;cat, big\nb;0;0;40;30;dog\n",
        // RetinaNet's, which has no header.
        "pics/a.png,1,2,10,20,dog\npics/a.png,5,5,15.5,10,\"cat, big\"\npics/b.png,0,0,40,30,dog\n",
        // Open Images' fractions.
        "ImageID,LabelName,XMin,XMax,YMin,YMax\na,dog,0.025,0.25,0.0666666667,0.6666666667\n\
         a,\"cat, big\",0.125,0.3875,0.1666666667,0.3333333333\nb,dog,0,1,0,1\n",
    ] {
        let made = convert(table(text).root(), &[]);
        assert_eq!(made.boxes("train"), boxes, "{text}");
        assert_eq!((made.code, made.log()), (0, json!([])), "{text}");
        let categories = json!([{"id": 1, "name": "cat, big"}, {"id": 2, "name": "dog"}]);
        assert_eq!(made.split("train")["categories"], categories);
        assert_sound(&made.out);
    }
}

#[test]
fn corners_counted_from_1_are_said_to_be() {
    let made = convert(table("a.png,1,1,40,30,x\n").root(), &["--origin", "1"]);
    assert_eq!(made.boxes("train"), json!([["a.png", "x", [0.0, 0.0, 40.0, 30.0], 0]]));
}

#[test]
fn splits_are_a_column_a_file_or_a_folder() {
    let text = "file,x1,y1,x2,y2,label,split\na.png,1,1,2,2,x,TRAIN\nb.png,1,1,2,2,x,validation\n";
    let made = convert(table(text).root(), &[]);
    assert_eq!(made.images("train"), json!([["a.png", 40, 30]]));
    assert_eq!(made.images("val"), json!([["b.png", 40, 30]]));

    let source = Source::new();
    for split in ["train", "test"] {
        source.picture(&format!("images/{split}/a.png"));
        source.file(
            &format!("{split}_labels.csv"),
            "filename,xmin,ymin,xmax,ymax,class\na.png,1,1,2,2,x\n",
        );
        source.picture(&format!("{split}/b.png"));
        source.file(&format!("{split}/_annotations.csv"), "b.png,1,1,2,2,x\n");
    }
    let made = convert(source.root(), &[]);
    assert_eq!(made.images("test"), json!([["test/b.png", 40, 30], ["images/test/a.png", 40, 30]]));
    assert_eq!(made.json()["splits"].as_array().unwrap().len(), 2);
}

#[test]
fn rows_without_boxes_are_background_and_missing_files_are_told() {
    let made = convert(
        table("a.png,,,,,\nb.png,1,1,5,5,x\ngone.png,1,1,2,2,x\nb.png,9,9,9,12,x\n").root(),
        &[],
    );
    assert_eq!(made.images("train"), json!([["a.png", 40, 30], ["b.png", 40, 30]]));
    let log = json!([
        ["missing_image", "train", 1],
        ["zero_area_box", "train", 1],
        ["background", "train", 1]
    ]);
    assert_eq!((made.code, made.log()), (1, log));
    assert!(made.stderr.contains("boxes.csv, line 4 (pics/b.png)"), "{}", made.stderr);
}

#[test]
fn bad_rows_end_it_with_file_and_line() {
    let refused = |text: &str, words: &str| {
        convert(table(text).root(), &[]).refused(3, &["boxes.csv, line ", words]);
    };
    let head = "filename,xmin,ymin,xmax,ymax,class\n";
    refused(&format!("{head}a.png,1,1,2,x,dog\n"), "line 2: 'x' in column 5 is not a number");
    refused(&format!("{head}a.png,1,1,2\n"), "line 2: '' in column 5 is not a number");
    refused(&format!("{head}a.png,1,1,2,inf,dog\n"), "'inf' is not a number of pixels");
    refused(&format!("{head}\na.png,1,1,2,2,\n"), "line 3: a box without a class");
    refused(&format!("{head},1,1,2,2,x\n"), "line 2: no file name");
    refused(&format!("{head}../pics/a.png,1,1,2,2,x\n"), "has '..'");
    let source = table(&format!("{head}c.png,1,1,2,2,x\n"));
    source.picture("x/c.png");
    source.picture("y/c.png");
    convert(source.root(), &[]).refused(3, &["line 2: c.png could be x/c.png and y/c.png"]);
    let latin = table("");
    std::fs::write(latin.root().join("boxes.csv"), b"a.png,1,1,2,2,x\na.png,1,1,2,2,\xe4\n")
        .unwrap();
    convert(latin.root(), &["--from", "csv"])
        .refused(3, &["boxes.csv, line 2: this is not text in UTF-8"]);
}

#[test]
fn a_quote_that_is_not_closed_takes_no_rows() {
    let head = "file,class,x1,y1,x2,y2\n";
    let words =
        |line: usize| format!("boxes.csv, line {line}: a cell goes over the end of the line");
    for rows in [
        "a.png,cat,1,2,30,30\nb.png,\"dog,1,2,30,30\na.png,cat,5,5,9,9\n",
        "a.png,cat,1,2,30,30\r\nb.png,\"dog,1,2,30,30\r\na.png,\"cat\",5,5,9,9\r\n",
        "a.png,cat,1,2,30,30\nb.png,\"dog\n,1,2,30,30\"\n",
        // It has nothing to take but itself.
        "a.png,cat,1,2,30,30\nb.png,\"dog,1,2,30,30\n",
        "a.png,cat,1,2,30,30\nb.png,\"dog,1,2,30,30",
        "a.png,cat,1,2,30,30\nb.png,dog,1,2,30,\"30",
    ] {
        convert(table(&format!("{head}{rows}")).root(), &[]).refused(3, &[&words(3)]);
        // Empty lines count.
        convert(table(&format!("{head}\n\n{rows}")).root(), &[]).refused(3, &[&words(5)]);
    }
    let made = table("file,class,\"x1,y1,x2,y2\na.png,cat,1,2,30,30\n");
    convert(made.root(), &[]).refused(3, &["no data set in a form", &words(1)]);
    // Quotes that are closed, or stand in a cell, are no mistake.
    let made = table("\"a.png\",1,2,9,9,\"3\"\" pipe\"\nb.png,1,2,9,9,3\" pipe\n\n\n");
    let made = convert(made.root(), &[]);
    let all = json!([
        ["a.png", "3\" pipe", [1.0, 2.0, 8.0, 7.0], 0],
        ["b.png", "3\" pipe", [1.0, 2.0, 8.0, 7.0], 0],
    ]);
    assert_eq!((made.code, made.boxes("train")), (0, all));
}

#[test]
fn a_row_with_more_cells_than_columns_is_not_read_shifted() {
    let words = &["boxes.csv, line 2: 7 cells for 6 columns", "must stand in quotes"];
    let head = "file,class,x1,y1,x2,y2\n";
    convert(table(&format!("{head}a.png,cat,1,000,2,30,40\n")).root(), &[]).refused(3, words);
    let bare = "a.png,1,2,30,30,cat\nb.png,1,2,30,30,cat,big\n";
    convert(table(bare).root(), &[]).refused(3, words);
    // Empty ones mean nothing, and a row without a box may end early.
    for text in [
        "file,class,x1,y1,x2,y2\na.png,cat,1,2,9,9,,\nb.png\n",
        "file,class,x1,y1,x2,y2,\na.png,cat,1,2,9,9,\nb.png,\n",
        "a.png,1,2,9,9,cat\nb.png\n",
    ] {
        let made = convert(table(text).root(), &[]);
        let boxes = json!([["a.png", "cat", [1.0, 2.0, 8.0, 7.0], 0]]);
        assert_eq!((made.code, made.boxes("train")), (0, boxes), "{text}");
        assert_eq!(made.log(), json!([["background", "train", 1]]), "{text}");
    }
}

#[test]
fn one_number_above_1_does_not_make_pixels_of_fractions() {
    let rows = "a.png,0.25,0.1,0.5,0.5,x\nb.png,0,0,1,1,x\n";
    // As in YOLO's files the box is cut off and counted.
    let made = convert(table(&format!("{rows}b.png,0.5,0.5,1.02,1,x\n")).root(), &[]);
    let boxes = json!([
        ["a.png", "x", [10.0, 3.0, 10.0, 12.0], 0],
        ["b.png", "x", [0.0, 0.0, 40.0, 30.0], 0],
        ["b.png", "x", [20.0, 15.0, 20.0, 15.0], 0],
    ]);
    assert_eq!((made.code, made.boxes("train")), (0, boxes));
    assert_eq!(made.log(), json!([["clipped_box", "train", 1]]));
    convert(table(&format!("{rows}b.png,0.5,0.5,10.2,1,x\n")).root(), &[]).refused(
        3,
        &[
            "boxes.csv, line 3: 10.2 is not a fraction of the image, but 2 of 3 boxes here are",
            "write all boxes in pixels",
        ],
    );
    // Pixels may have a speck in the corner, and whole numbers are pixels.
    for text in [
        "a.png,0,0,1.5,1.5,x\na.png,5,5,9,9,x\nb.png,1,2,30,30,x\n",
        "a.png,0,0,1,1,x\na.png,1,1,2,2,x\nb.png,1,2,30,30,x\n",
    ] {
        let made = convert(table(text).root(), &[]);
        assert_eq!(made.boxes("train")[2][2], json!([1.0, 2.0, 29.0, 28.0]), "{text}");
    }
}

#[test]
fn columns_that_are_not_recognised_are_told_with_what_is_missing() {
    let [file, class, sides] = [
        "the file (filename, image, path)",
        "the class (class, label, category)",
        "the box (xmin ymin xmax ymax, or x y w h)",
    ];
    for (text, missing) in [
        ("file,x1,y1,x2,y2,kind\na.png,1,1,9,9,x\n", class.to_owned()),
        ("frame,x1,y1,x2,y2,class\na.png,1,1,9,9,x\n", file.to_owned()),
        ("file,x1,y1,x2,class\na.png,1,1,9,x\n", sides.to_owned()),
        ("a.png,1,1,9,9\n", format!("{file}, {class}, {sides}")),
    ] {
        let first = text.lines().next().unwrap();
        let words = format!("boxes.csv: no column for {missing}, and no first row path,x1,y1,x2");
        let there = format!("; the first row is {first}\n");
        let source = table(text);
        convert(source.root(), &[]).refused(3, &["no data set in a form", &words, &there]);
        convert(source.root(), &["--from", "csv"]).refused(3, &["files not read", &words]);
    }
    convert(table("").root(), &[]).refused(3, &["boxes.csv: it has no rows"]);
}
