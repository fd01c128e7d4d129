//! A segmentation out of a JSON file.

use super::Segmentation;
use crate::eval::json::{Scan, Scanner, Value};

impl Segmentation {
    /// Takes the next value. What is JSON but no segmentation is told in words, which matters only
    /// if the entry counts.
    pub(in crate::eval) fn read(scanner: &mut Scanner<'_>) -> Scan<Result<Self, String>> {
        if scanner.at_list() {
            return polygons(scanner);
        }
        if scanner.at_object() {
            return runs(scanner);
        }
        let kind = scanner.value()?.kind();
        Ok(Err(format!("is {kind}, neither a list of polygons nor an object with `counts`")))
    }
}

/// The segmentation that a text consists of.
pub(super) fn whole(json: &str) -> Result<Segmentation, String> {
    let mut scanner = Scanner::new(json.as_bytes());
    let read = Segmentation::read(&mut scanner).and_then(|read| scanner.end().map(|()| read));
    read.map_err(|e| format!("is not valid JSON: {} at byte {}", e.problem, e.offset))?
}

fn polygons(scanner: &mut Scanner<'_>) -> Scan<Result<Segmentation, String>> {
    let (mut polygons, mut problem) = (Vec::new(), None);
    scanner.list(|s| {
        if !s.at_list() {
            let kind = s.value()?.kind();
            problem.get_or_insert_with(|| format!("holds {kind}, not lists of x, y, x, y, ..."));
            return Ok(());
        }
        let mut numbers = Vec::new();
        s.list(|s| {
            let value = s.value()?;
            match value {
                Value::Bool(_) => {}
                _ => {
                    if let Some(x) = value.as_f64() {
                        numbers.push(x);
                        return Ok(());
                    }
                }
            }
            let polygon = polygons.len();
            problem.get_or_insert_with(|| {
                format!("polygon {polygon} holds {}, not only numbers", value.kind())
            });
            Ok(())
        })?;
        polygons.push(numbers);
        Ok(())
    })?;
    Ok(problem.map_or(Ok(Segmentation::Polygons(polygons)), Err))
}

enum Counts {
    List(Vec<u32>),
    Text(String),
}

fn runs(scanner: &mut Scanner<'_>) -> Scan<Result<Segmentation, String>> {
    let mut size = Err("has no `size`".to_owned());
    let mut counts = Err("has no `counts`".to_owned());
    scanner.object(|s, key| {
        match key {
            b"size" => size = read_size(s)?,
            b"counts" => counts = read_counts(s)?,
            _ => {
                s.value()?;
            }
        }
        Ok(())
    })?;
    Ok(size.and_then(|size| {
        Ok(match counts? {
            Counts::List(counts) => Segmentation::Counts { size, counts },
            Counts::Text(counts) => Segmentation::Compressed { size, counts },
        })
    }))
}

fn read_size(scanner: &mut Scanner<'_>) -> Scan<Result<[u64; 2], String>> {
    let numbers = whole_numbers(scanner, "size")?;
    Ok(numbers.and_then(|numbers| match numbers[..] {
        [height, width] => Ok([height, width]),
        _ => Err(format!("`size` has {} numbers, not height and width", numbers.len())),
    }))
}

fn read_counts(scanner: &mut Scanner<'_>) -> Scan<Result<Counts, String>> {
    if scanner.at_text() {
        return Ok(Ok(Counts::Text(scanner.text()?.into_owned())));
    }
    let numbers = whole_numbers(scanner, "counts")?;
    Ok(numbers.map(Counts::List))
}

/// A list of whole numbers that are not negative and not too large.
fn whole_numbers<N: TryFrom<i64>>(
    scanner: &mut Scanner<'_>,
    key: &str,
) -> Scan<Result<Vec<N>, String>> {
    if !scanner.at_list() {
        return Ok(Err(format!("`{key}` is {}, not a list", scanner.value()?.kind())));
    }
    let (mut numbers, mut problem) = (Vec::new(), None);
    scanner.list(|s| {
        let value = s.value()?;
        let whole = match value {
            Value::Int(i) => Some(i),
            // As some write them; larger ones are beyond any mask.
            Value::Float(x) if x.fract() == 0. && x.abs() < 1e15 => Some(x as i64),
            _ => None,
        };
        if let Some(number) = whole.and_then(|i| N::try_from(i).ok()) {
            numbers.push(number);
            return Ok(());
        }
        let place = numbers.len();
        problem.get_or_insert_with(|| match value {
            Value::Int(i) => format!("`{key}`[{place}] is {i}, which is out of range"),
            Value::Float(x) => format!("`{key}`[{place}] is {x}, not a whole number"),
            _ => format!("`{key}`[{place}] is {}, not a whole number", value.kind()),
        });
        Ok(())
    })?;
    Ok(problem.map_or(Ok(numbers), Err))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;

    #[test]
    fn the_forms_of_a_segmentation() {
        let read = |json: &str| Segmentation::from_json(json).unwrap();
        assert_eq!(
            read("[[1, 2.5, 3, 4, 5e0, 6], []]"),
            Segmentation::Polygons(vec![vec![1., 2.5, 3., 4., 5., 6.], vec![]])
        );
        // The last of a key counts, unknown ones do not.
        assert_eq!(
            read(r#"{"counts": "x", "size": [2, 3.0], "x": [{}], "counts": [1, 2.0, 3]}"#),
            Segmentation::Counts { size: [2, 3], counts: vec![1, 2, 3] }
        );
        assert_eq!(
            read(r#"{"counts": "\u0054\\3", "size": [10, 10]}"#),
            Segmentation::Compressed { size: [10, 10], counts: "T\\3".to_owned() }
        );
    }

    #[test]
    fn what_is_none_is_told_in_words() {
        for (json, problem) in [
            ("7", "is a number, neither a list of polygons nor an object with `counts`"),
            ("null", "is null, neither a list of polygons nor an object with `counts`"),
            ("[1, 2, 3, 4, 5, 6]", "holds a number, not lists of x, y, x, y, ..."),
            ("[[0, 0], [1, \"2\"]]", "polygon 1 holds a text, not only numbers"),
            ("[[0, true]]", "polygon 0 holds a truth value, not only numbers"),
            ("{\"size\": [1, 1]}", "has no `counts`"),
            ("{\"counts\": [1]}", "has no `size`"),
            ("{\"size\": 1, \"counts\": [1]}", "`size` is a number, not a list"),
            ("{\"size\": [1], \"counts\": [1]}", "`size` has 1 numbers, not height and width"),
            ("{\"size\": [1, -1], \"counts\": [1]}", "`size`[1] is -1, which is out of range"),
            ("{\"size\": [1, 1], \"counts\": [0, 1.5]}", "`counts`[1] is 1.5, not a whole number"),
            (
                "{\"size\": [1, 1], \"counts\": [4294967296]}",
                "`counts`[0] is 4294967296, which is out of range",
            ),
            ("{\"size\": [1, 1], \"counts\": [null]}", "`counts`[0] is null, not a whole number"),
            ("{\"size\": [1, 1], \"counts\": {}}", "`counts` is an object, not a list"),
            ("[[0, 0", "is not valid JSON: the file ends too early at byte 6"),
            ("[] 1", "is not valid JSON: something follows the value at byte 3"),
        ] {
            let error = Segmentation::from_json(json).unwrap_err();
            assert_eq!(error.to_string(), problem, "{json}");
        }
    }

    #[test]
    fn what_is_no_mask_of_its_image_is_told_in_words() {
        let image = Size::new(10, 20);
        for (json, problem) in [
            ("[]", "it holds no polygon"),
            ("[[]]", "polygon 0 has 0 numbers; three points take 6"),
            ("[[0,0,5,5],[0,0,1,1,2,2]]", "polygon 0 has 4 numbers; three points take 6"),
            ("[[0,0,5,5,0,5,1]]", "polygon 0 has 7 numbers: an x without y"),
            (
                "[[0,0,5,NaN,0,5]]",
                "number 3 of polygon 0 is NaN, which is no place in or near an image",
            ),
            ("[[0,0,5,5,-1e300,5]]", "number 4 of polygon 0 is -1"),
            (
                "{\"size\":[10,20],\"counts\":[199]}",
                "its 1 counts sum to 199, not to the 200 pixels of a mask of 10x20",
            ),
            ("{\"size\":[10,20],\"counts\":\"ZZ\"}", "its counts end within a count"),
        ] {
            let error = Segmentation::from_json(json).unwrap().to_rle(image).unwrap_err();
            assert!(error.to_string().starts_with(problem), "{json}: {error}");
        }
        let all = Segmentation::Polygons(vec![vec![0.; 6]]);
        assert!(all.to_rle(Size::new(0, 20)).is_err());
        assert!(all.to_rle(Size::new(1 << 40, 1 << 40)).is_err());
    }
}
