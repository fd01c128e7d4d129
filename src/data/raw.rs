//! Entries of an annotation file as they stand, and what can be wrong with one by itself.
//!
//! [`super::coco`] refuses the first bad entry; [`super::check`] lists them all.

use std::path::{Component, Path};

use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::geometry::Size;

/// An image as it stands.
#[derive(Debug, Deserialize)]
pub(super) struct RawImage {
    pub(super) id: i64,
    pub(super) file_name: String,
    // Some exporters write 640.0.
    pub(super) width: Option<f64>,
    pub(super) height: Option<f64>,
}

/// An annotation as it stands.
#[derive(Debug, Deserialize)]
pub(super) struct RawAnnotation {
    pub(super) id: i64,
    pub(super) image_id: i64,
    pub(super) category_id: i64,
    #[serde(default, deserialize_with = "numbers")]
    pub(super) bbox: Option<[f64; 4]>,
    pub(super) area: Option<f64>,
    #[serde(default, deserialize_with = "flag")]
    pub(super) iscrowd: Option<bool>,
}

/// A category as it stands.
#[derive(Debug, Deserialize)]
pub(super) struct RawCategory {
    pub(super) id: i64,
    pub(super) name: String,
}

/// An id that may stand there as another number or text than the whole number that it is.
#[derive(Debug, PartialEq)]
pub(super) struct LooseId {
    pub(super) id: i64,
    /// As it stands there, where that is not the number.
    pub(super) written: Option<Value>,
}

impl LooseId {
    /// The whole number that is meant by 1, 1.0 or "1".
    pub(super) fn of(value: &Value) -> Option<Self> {
        if let Some(id) = value.as_i64() {
            return Some(Self { id, written: None });
        }
        let id = match value {
            Value::String(text) => text.parse().ok()?,
            // Beyond these bounds not every whole number is one of f64.
            other => {
                let n = other.as_f64().filter(|n| n.fract() == 0. && n.abs() < 2_f64.powi(53))?;
                n as i64
            }
        };
        Some(Self { id, written: Some(value.clone()) })
    }
}

impl<'de> Deserialize<'de> for LooseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::of(&value)
            .ok_or_else(|| D::Error::custom(format!("the id {value} is no whole number")))
    }
}

/// Four numbers, of which `null` is not a number: so the message can name the annotation.
pub(super) fn numbers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<[f64; 4]>, D::Error> {
    let numbers = Option::<[Option<f64>; 4]>::deserialize(deserializer)?;
    Ok(numbers.map(|all| all.map(|n| n.unwrap_or(f64::NAN))))
}

/// 0, 1, true, false or null.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Number(f64),
        Null(()),
    }
    match Flag::deserialize(deserializer) {
        Ok(Flag::Bool(is)) => Ok(Some(is)),
        Ok(Flag::Number(n)) if n == 0. || n == 1. => Ok(Some(n == 1.)),
        Ok(Flag::Null(())) => Ok(None),
        _ => Err(D::Error::custom("iscrowd must be 0 or 1")),
    }
}

impl RawImage {
    /// The declared size: `None` where there is none, `[width, height]` where it can't be one.
    pub(super) fn size(&self) -> Result<Option<Size>, [f64; 2]> {
        let (Some(width), Some(height)) = (self.width, self.height) else { return Ok(None) };
        let ok = |n: f64| n.fract() == 0. && (1. ..=1e9).contains(&n);
        if ok(width) && ok(height) {
            Ok(Some(Size::new(height as usize, width as usize)))
        } else {
            Err([width, height])
        }
    }
}

impl RawAnnotation {
    /// Whether it is said to be a crowd.
    pub(super) fn crowd(&self) -> bool {
        self.iscrowd.unwrap_or(false)
    }

    /// `[x, y, width, height]`, or what is wrong with it.
    pub(super) fn checked_box(&self) -> Result<[f64; 4], &'static str> {
        let Some(bbox) = self.bbox else { return Err("the annotation has no box") };
        if bbox.iter().any(|n| !n.is_finite() || n.abs() > 1e9) {
            Err("these are not numbers of pixels")
        } else if bbox[2] < 0. || bbox[3] < 0. {
            Err("width and height must not be negative")
        } else {
            Ok(bbox)
        }
    }
}

/// What evaluation reads of an annotation and does not find there.
pub(super) fn missing(area: Option<f64>, iscrowd: Option<bool>) -> Option<&'static str> {
    // The area of a crowd is not looked at.
    match (area, iscrowd) {
        (None, None) => Some("no area, no iscrowd"),
        (None, Some(false)) => Some("no area"),
        (Some(_), None) => Some("no iscrowd"),
        (None, Some(true)) | (Some(_), Some(_)) => None,
    }
}

/// An area that is none, of a box that has one: whatever is found there is neither small nor large.
pub(super) fn no_area(area: Option<f64>, bbox: [f64; 4]) -> Option<f64> {
    area.filter(|area| *area <= 0. && bbox[2] > 0. && bbox[3] > 0.)
}

/// Why `name` could leave the image folder, if it could: annotation files come from strangers.
pub(super) fn unsafe_file_name(name: &str) -> Option<&'static str> {
    let bytes = name.as_bytes();
    let drive = bytes.get(1) == Some(&b':') && bytes[0].is_ascii_alphabetic();
    if name.is_empty() {
        Some("is empty")
    } else if name.contains('\0') {
        Some("has a NUL character")
    } else if name.contains('\\') {
        Some("has a backslash; folders are separated by /")
    } else if drive || name.starts_with('/') {
        Some("is absolute; it must be relative to the image folder")
    } else if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
        Some("has '.' or '..'; it must stay in the image folder")
    } else {
        None
    }
}

/// Reads JSON as annotation files have it: a byte order mark before it is skipped, and the bare words
/// `NaN` and `Infinity`, which Python writes, count as `null`.
pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(bytes).or_else(|error| match without_nan(bytes) {
        Some(bytes) => serde_json::from_slice(&bytes),
        None => Err(error),
    })
}

/// `bytes` as [`from_json`] would read them, for values that borrow from the text.
pub(crate) fn plain_json(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    match serde_json::from_slice::<IgnoredAny>(&bytes) {
        Ok(_) => bytes,
        Err(_) => without_nan(&bytes).unwrap_or(bytes),
    }
}

/// `json` with `null` for `NaN`, `Infinity` and `-Infinity` outside strings; `None` where it has none.
fn without_nan(json: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(json.len());
    let (mut rest, mut in_string, mut found) = (json, false, false);
    while let [first, tail @ ..] = rest {
        let word = [&b"NaN"[..], b"-Infinity", b"Infinity"];
        match word.iter().find(|w| !in_string && rest.starts_with(w)) {
            Some(word) => {
                out.extend_from_slice(b"null");
                rest = &rest[word.len()..];
                found = true;
            }
            None if in_string && *first == b'\\' && !tail.is_empty() => {
                out.extend_from_slice(&rest[..2]);
                rest = &rest[2..];
            }
            None => {
                in_string ^= *first == b'"';
                out.push(*first);
                rest = tail;
            }
        }
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_null_outside_strings_only() {
        let json = br#"{"a": [NaN, -Infinity, Infinity], "NaN \" NaN\\": "Infinity"}"#;
        let value: serde_json::Value = from_json(json).expect("it is read");
        let expected = serde_json::json!({"a": [null, null, null], "NaN \" NaN\\": "Infinity"});
        assert_eq!(value, expected);
        assert!(from_json::<serde_json::Value>(b"[nan]").is_err());
        assert!(from_json::<serde_json::Value>(b"[NaN").is_err());
    }

    #[test]
    fn file_names_stay_in_their_folder() {
        for good in ["a.jpg", "b/c d.png", "..a.jpg", "ü⚠.jpg"] {
            assert_eq!(unsafe_file_name(good), None, "{good}");
        }
        for bad in [
            "",
            "/a.jpg",
            "../a.jpg",
            "a/../b.jpg",
            "./a.jpg",
            "a\\b.jpg",
            "C:/a.jpg",
            "c:a.jpg",
            "a\0.jpg",
            "..",
        ] {
            assert!(unsafe_file_name(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_whole_numbers_however_they_are_written() {
        for (text, id) in [
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("7.0", Some(7)),
            ("\"7\"", Some(7)),
            ("\"000000397133\"", Some(397_133)),
            ("7.5", None),
            ("1e300", None),
            ("\"7.0\"", None),
            ("\"a7\"", None),
            ("\"\"", None),
            ("null", None),
            ("true", None),
        ] {
            let read = serde_json::from_str::<LooseId>(text);
            assert_eq!(read.as_ref().ok().map(|id| id.id), id, "{text}");
            match read {
                Ok(read) => assert_eq!(read.written.is_none(), ["7", "-7"].contains(&text)),
                Err(error) => {
                    assert!(error.to_string().contains("is no whole number"), "{error}");
                }
            }
        }
    }

    #[test]
    fn crowd_flags_come_as_numbers_words_or_not_at_all() {
        let crowd = |text: &str| {
            let json = format!(r#"{{"id": 1, "image_id": 2, "category_id": 3{text}}}"#);
            serde_json::from_str::<RawAnnotation>(&json).map(|a| a.iscrowd)
        };
        for (text, expected) in [
            ("", None),
            (r#", "iscrowd": 0"#, Some(false)),
            (r#", "iscrowd": 1"#, Some(true)),
            (r#", "iscrowd": true"#, Some(true)),
            (r#", "iscrowd": null"#, None),
        ] {
            assert_eq!(crowd(text).expect(text), expected);
        }
        assert!(crowd(r#", "iscrowd": 2"#).is_err());
    }
}
