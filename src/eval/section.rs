//! The lists of COCO's files: opened, read in pieces, with the first entry that can't be read.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::error::EvalError;
use super::id::Numbering;
use super::json::{Scan, Scanner, Value};
use super::pieces::{Collect, Extent, ListError, Source, list};

pub(super) enum Opened {
    Regular(File),
    /// What no file holds: a pipe, read to its end.
    Stream(Vec<u8>),
}

/// Opens a file.
pub(super) fn open(path: &Path) -> Result<Opened, EvalError> {
    let failed = |e| EvalError::read(path, e);
    let mut file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        return Ok(Opened::Regular(file));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(Opened::Stream(bytes))
}

/// What files begin with that are no text in UTF-8, and what to do with them.
const OTHERS: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "gzip: unpack it"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"\xff\xfe", "UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "UTF-16: save it as UTF-8"),
];

/// Reads a file from its start, which `bytes` hold; behind the mark that some editors put before a text.
pub(super) fn begin<'a>(file: &Path, bytes: &'a [u8]) -> Result<Scanner<'a>, EvalError> {
    if let Some((_, what)) = OTHERS.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        let problem = format!("it begins as {what}");
        return Err(EvalError::Form { file: file.to_owned(), problem });
    }
    let mut scanner = Scanner::new(bytes);
    if bytes.starts_with(b"\xef\xbb\xbf") {
        scanner.go_to(3);
    }
    Ok(scanner)
}

pub(super) fn whole(scanner: &mut Scanner<'_>) -> Scan<Value> {
    let value = scanner.value()?;
    scanner.end().map(|()| value)
}

/// For each number in a piece that of the whole.
pub(super) fn renumbered(whole: &mut Numbering, piece: Numbering) -> Vec<u32> {
    piece.into_ids().into_iter().map(|id| whole.id(id)).collect()
}

/// A list of the file. A later one of the same name replaces it, problems and all.
pub(super) enum Section<C> {
    Missing,
    NoList(&'static str),
    List(Vec<C>),
}

impl<C: Collect + HasList> Section<C> {
    pub(super) fn read(scanner: &mut Scanner<'_>, bytes: &[u8], extent: Extent) -> Scan<Self> {
        if !scanner.at_list() {
            return Ok(Self::NoList(scanner.value()?.kind()));
        }
        scanner.take(b'[');
        match list(Source::Memory(bytes), scanner.position(), extent) {
            Ok((pieces, end)) => {
                scanner.go_to(end);
                Ok(Self::List(pieces))
            }
            Err(ListError::Syntax(error)) => Err(error),
            Err(ListError::Read(_)) => unreachable!("memory is read without failure"),
        }
    }

    pub(super) fn pieces(
        self,
        file: &Path,
        list: &'static str,
    ) -> Result<Option<Vec<C>>, EvalError> {
        match self {
            Self::Missing => Ok(None),
            Self::NoList(kind) => Err(EvalError::Form {
                file: file.to_owned(),
                problem: format!("`{list}` is {kind}, not a list"),
            }),
            Self::List(pieces) => {
                first_problem(file, list, pieces.iter().map(HasList::outcome))?;
                Ok(Some(pieces))
            }
        }
    }
}

/// Elements of a piece of a list, and the first of them that can't be read.
#[derive(Debug)]
pub(super) struct List<T> {
    pub(super) entries: Vec<T>,
    problem: Option<(usize, String)>,
    count: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), problem: None, count: 0 }
    }
}

impl<T> List<T> {
    /// Keeps an entry, and hands back its place.
    #[inline]
    pub(super) fn push(&mut self, entry: Result<T, String>) -> u32 {
        match entry {
            Ok(entry) => self.entries.push(entry),
            Err(problem) => {
                self.problem.get_or_insert((self.count, problem));
            }
        }
        self.count += 1;
        (self.count - 1) as u32
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Forgets what was pushed last, where more than `count` were.
    pub(super) fn truncate(&mut self, count: usize) {
        if self.count > count {
            match &self.problem {
                Some((index, _)) if *index == count => self.problem = None,
                // Behind the first problem only those without one are in `entries`; they are never used.
                Some(_) => {}
                None => self.entries.truncate(count),
            }
            self.count = count;
        }
    }

    pub(super) fn outcome(&self) -> (usize, Option<&(usize, String)>) {
        (self.count, self.problem.as_ref())
    }
}

pub(super) trait HasList {
    /// How many elements, and the first that can't be read.
    fn outcome(&self) -> (usize, Option<&(usize, String)>);
}

/// The first problem of all pieces.
pub(super) fn first_problem<'a>(
    file: &Path,
    list: &'static str,
    pieces: impl Iterator<Item = (usize, Option<&'a (usize, String)>)>,
) -> Result<(), EvalError> {
    let mut before = 0;
    for (count, problem) in pieces {
        if let Some((index, problem)) = problem {
            let (file, problem) = (file.to_owned(), problem.clone());
            return Err(EvalError::Entry { file, list, index: before + index, problem });
        }
        before += count;
    }
    Ok(())
}
