//! The little of YAML that describes data sets: maps, lists and texts, each with its line.
//!
//! Every scalar is the text that stands there, so that a class may be called `no` or `1.0`. Aliases are
//! refused: a few lines of them can grow without end.

use std::path::Path;

use saphyr_parser::{Event, Parser};

use super::error::ConvertError;

/// Deeper data is none of ours.
const MOST_DEEP: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// The text of a scalar that is not null.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) if !["", "~", "null"].contains(&text.as_str()) => Some(text),
            _ => None,
        }
    }

    /// The texts of a list, or the one of a scalar; nothing for null.
    pub(super) fn texts(&self) -> Vec<(usize, &str)> {
        match &self.value {
            Value::List(items) => {
                items.iter().filter_map(|item| Some((item.line, item.text()?))).collect()
            }
            _ => self.text().map(|text| (self.line, text)).into_iter().collect(),
        }
    }
}

/// A map or list that is not closed yet.
struct Open {
    node: Node,
    key: Option<String>,
}

/// The first document of a text.
pub(super) fn parse(text: &str, path: &Path) -> Result<Node, ConvertError> {
    let bad = |line: usize, problem: String| ConvertError::bad(path, line, problem);
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|e| bad(e.marker().line(), format!("not valid YAML: {}", e.info())))?;
        let line = span.start.line();
        let begin = |value| Open { node: Node { line, value }, key: None };
        let done = match event {
            Event::Alias(_) => {
                return Err(bad(line, "aliases (*name) are not read: write the value".to_owned()));
            }
            Event::SequenceStart(..) => {
                open.push(begin(Value::List(Vec::new())));
                None
            }
            Event::MappingStart(..) => {
                open.push(begin(Value::Map(Vec::new())));
                None
            }
            Event::Scalar(text, ..) => Some(Node { line, value: Value::Text(text.into_owned()) }),
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|open| open.node),
            Event::DocumentEnd | Event::StreamEnd => break,
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => None,
        };
        if open.len() > MOST_DEEP {
            return Err(bad(line, format!("nested more than {MOST_DEEP} deep")));
        }
        let Some(node) = done else { continue };
        let Some(parent) = open.last_mut() else { return Ok(node) };
        match (&mut parent.node.value, parent.key.take(), node) {
            (Value::List(items), _, node) => items.push(node),
            (Value::Map(entries), Some(key), node) => entries.push((key, node)),
            (Value::Map(_), None, Node { value: Value::Text(key), .. }) => parent.key = Some(key),
            _ => return Err(bad(line, "a key must be a text".to_owned())),
        }
    }
    Ok(Node { line: 1, value: Value::Map(Vec::new()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_as_they_are_and_know_their_lines() {
        let text = "# set\npath: ../x  # here\nnames:\n  0: no\n  1: '1.0'\n  2: \"a: b\"\nval: [a, b]\ntest:\n";
        let node = parse(text, Path::new("x.yaml")).unwrap();
        assert_eq!(node.get("path").unwrap().text(), Some("../x"));
        let Value::Map(names) = &node.get("names").unwrap().value else { panic!() };
        let names: Vec<_> = names.iter().map(|(k, n)| (k.as_str(), n.text(), n.line)).collect();
        assert_eq!(names, [("0", Some("no"), 4), ("1", Some("1.0"), 5), ("2", Some("a: b"), 6)]);
        assert_eq!(node.get("val").unwrap().texts(), [(7, "a"), (7, "b")]);
        assert_eq!(node.get("test").unwrap().texts(), []);
        assert_eq!(node.get("train"), None);
    }

    #[test]
    fn what_is_no_such_text_is_refused_with_its_line() {
        let error = |text: &str| parse(text, Path::new("x.yaml")).unwrap_err().to_string();
        assert_eq!(
            error("a: &x [1]\nb: *x\n"),
            "x.yaml, line 2: aliases (*name) are not read: write the value"
        );
        assert!(error("a: [1, 2\nb: 3\n").starts_with("x.yaml, line "), "{}", error("a: [1"));
        // The parser's limit or ours: in no case the stack's.
        assert!(error(&"[".repeat(100_000)).starts_with("x.yaml, line 1: "));
        assert_eq!(error("[a]: b\n"), "x.yaml, line 1: a key must be a text");
        assert_eq!(parse("", Path::new("x")).unwrap().get("names"), None);
    }
}
