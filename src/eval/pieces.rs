//! A long list of a JSON file read in pieces by all threads.
//!
//! Nobody knows where an element of a JSON list starts without reading all before it. So each piece
//! guesses: it starts behind the first `},{` in it. The pieces are then put together from the front:
//! one that starts exactly where those before it have ended was right, as everything up to its start
//! has been read; any other is read again from the right place. The outcome is that of one reader from
//! front to end, whatever stands in the file. Of a file only the piece at hand is in memory.

use std::borrow::Cow;
use std::cell::Cell;
use std::fs::File;
use std::io;

use rayon::prelude::*;

use super::json::{Scan, Scanner, SyntaxError};

/// Bytes of a piece: it should stay in the cache that it was read into.
const PIECE: usize = 1 << 20;
/// Bytes read beyond a piece for its last element, and before it for the end of the one ahead.
const BEYOND: usize = 16 << 10;
const BEFORE: usize = 32;
/// An error this close to the end of a window may only mean that the window is too small.
const MARGIN: usize = 64;

/// Where the bytes are.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Memory(&'a [u8]),
    File(&'a File, usize),
}

impl<'a> Source<'a> {
    /// A file that stays as long as it is now.
    pub(super) fn file(file: &'a File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Ok(Self::File(file, length))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(_, length) => *length,
        }
    }

    /// The bytes from one place to another, or to the end.
    pub(super) fn window(&self, from: usize, to: usize) -> io::Result<Cow<'a, [u8]>> {
        let to = to.min(self.len());
        match self {
            Self::Memory(bytes) => Ok(Cow::Borrowed(&bytes[from..to])),
            Self::File(file, _) => {
                let mut bytes = BUFFER.take();
                bytes.resize(to - from, 0);
                read_at(file, &mut bytes, from)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

thread_local! {
    /// The bytes of a window that is no longer needed: fresh memory costs more than reading into it.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Gives a window back.
fn done(window: Cow<'_, [u8]>) {
    if let Cow::Owned(bytes) = window {
        BUFFER.set(bytes);
    }
}

/// The whole file, read by all threads.
pub(super) fn read_whole(file: &File) -> io::Result<Vec<u8>> {
    let length = Source::file(file)?.len();
    let mut bytes = vec![0; length];
    let pieces = bytes.par_chunks_mut(PIECE).enumerate();
    pieces.try_for_each(|(i, piece)| read_at(file, piece, i * PIECE))?;
    Ok(bytes)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], from: usize) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, from as u64)
}

#[cfg(not(unix))]
fn read_at(file: &File, bytes: &mut [u8], from: usize) -> io::Result<()> {
    use std::io::{Read as _, Seek as _};
    // A second handle shares the position: one reader at a time.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut file = file;
    file.seek(io::SeekFrom::Start(from as u64))?;
    file.read_exact(bytes)
}

/// Why a list can't be read.
#[derive(Debug)]
pub(super) enum ListError {
    Read(io::Error),
    Syntax(SyntaxError),
}

impl From<io::Error> for ListError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<SyntaxError> for ListError {
    fn from(error: SyntaxError) -> Self {
        Self::Syntax(error)
    }
}

/// What the elements of a list become.
pub(super) trait Collect: Default + Send {
    /// Reads an element and keeps it.
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Scan<()>;
    /// How many are kept.
    fn count(&self) -> usize;
    /// Forgets all that were kept behind the first `count`; they are read again.
    fn truncate(&mut self, count: usize);
}

/// How much of the file behind its start a list is taken to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Nearly all: every piece is read at once, in vain if something else follows the list.
    Rest,
    /// Perhaps little: twice as many pieces are read each time.
    Unknown,
}

/// Reads the elements of a list, whose `[` ends at `start`. Returns them in pieces, and the place
/// behind the `]`.
pub(super) fn list<C: Collect>(
    source: Source<'_>,
    start: usize,
    extent: Extent,
) -> Result<(Vec<C>, usize), ListError> {
    let mut at = start;
    // An empty list, and the white space before the first element.
    let window = source.window(start, source.len().min(start + BEYOND))?;
    let mut scanner = Scanner::at_offset(&window, start);
    if scanner.take(b']') {
        return Ok((Vec::new(), scanner.position()));
    }
    if scanner.peek().is_some() {
        at = scanner.position();
    }

    let mut collected = Vec::new();
    let mut at_once = if extent == Extent::Rest { usize::MAX } else { 2 };
    while at < source.len() {
        let count = (source.len() - at).div_ceil(PIECE).min(at_once);
        at_once = at_once.saturating_mul(2);
        let first = at;
        let edge = |i: usize| first + i * PIECE;
        let guesses: Vec<Piece<C>> = (0..count)
            .into_par_iter()
            .map(|i| match i {
                0 => Piece::read(source, first, edge(1)),
                _ => Piece::guess(source, edge(i), edge(i + 1)),
            })
            .collect();
        for (i, guess) in guesses.into_iter().enumerate() {
            if at >= edge(i + 1) {
                continue; // inside a long element
            }
            let right = guess.start == Some(at);
            let piece = if right { guess } else { Piece::read(source, at, edge(i + 1)) };
            collected.push(piece.entries);
            match piece.end? {
                End::Next(next) => at = next,
                End::Closed(end) => return Ok((collected, end)),
            }
        }
    }
    Err(SyntaxError { offset: source.len(), problem: "the file ends too early" }.into())
}

/// Elements that start between two places.
struct Piece<C> {
    entries: C,
    /// Where its first element starts, if it found any.
    start: Option<usize>,
    end: Result<End, ListError>,
}

enum End {
    /// The next element starts here.
    Next(usize),
    /// The list ends here.
    Closed(usize),
}

impl<C: Collect> Piece<C> {
    /// From the element that starts at `start` to the last one that starts before `stop`.
    fn read(source: Source<'_>, start: usize, stop: usize) -> Self {
        let mut entries = C::default();
        let end = source
            .window(start, stop.saturating_add(BEYOND))
            .map_err(ListError::from)
            .and_then(|window| elements(&mut entries, source, window, start, start, stop));
        Self { entries, start: Some(start), end }
    }

    /// The same from the first place that looks like the start of an element.
    fn guess(source: Source<'_>, from: usize, stop: usize) -> Self {
        let mut entries = C::default();
        let first = from - BEFORE.min(from);
        let (start, end) = match source.window(first, stop.saturating_add(BEYOND)) {
            Err(error) => (None, Err(error.into())),
            Ok(window) => match likely_start(&window, from - first).map(|at| first + at) {
                None => (None, Ok(End::Next(stop))),
                Some(start) => {
                    let end = elements(&mut entries, source, window, first, start, stop);
                    (Some(start), end)
                }
            },
        };
        Self { entries, start, end }
    }
}

/// Reads elements from `at` on, first out of a window that starts at `first`.
fn elements<'a, C: Collect>(
    entries: &mut C,
    source: Source<'a>,
    mut window: Cow<'a, [u8]>,
    mut first: usize,
    mut at: usize,
    stop: usize,
) -> Result<End, ListError> {
    let outcome = loop {
        let window_end = first + window.len();
        let mut scanner = Scanner::at_offset(&window, first);
        scanner.go_to(at);
        let piece = loop {
            let count = entries.count();
            match element(entries, &mut scanner) {
                Ok(closed) => {
                    at = scanner.position();
                    if closed {
                        break Ok(End::Closed(at));
                    }
                    if at >= stop {
                        break Ok(End::Next(at));
                    }
                }
                Err(error) => {
                    entries.truncate(count);
                    break Err(error);
                }
            }
        };
        match piece {
            // The element may go on behind the window.
            Err(error) if window_end < source.len() && error.offset + MARGIN >= window_end => {
                let longer = 2 * (window_end - at) + BEYOND;
                first = at;
                done(window);
                window = source.window(first, first.saturating_add(longer))?;
            }
            Err(error) => break Err(error.into()),
            Ok(end) => break Ok(end),
        }
    };
    done(window);
    outcome
}

/// An element and the comma behind it up to the next element, or the end of the list (true).
#[inline]
fn element<C: Collect>(entries: &mut C, scanner: &mut Scanner<'_>) -> Scan<bool> {
    entries.read(scanner)?;
    if scanner.take(b',') {
        if scanner.peek().is_none() {
            return scanner.unexpected("expected a value");
        }
        Ok(false)
    } else if scanner.take(b']') {
        Ok(true)
    } else {
        scanner.unexpected("expected ',' or ']'")
    }
}

/// The first `{` from `from` on that follows a `}` and a comma.
fn likely_start(window: &[u8], from: usize) -> Option<usize> {
    let white = |b: &&u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let before = |end: usize| {
        let blank = window[..end].iter().rev().take_while(white).count();
        (end - blank).checked_sub(1)
    };
    (from..window.len()).filter(|&at| window[at] == b'{').find(|&at| {
        let comma = before(at).filter(|&c| window[c] == b',');
        comma.and_then(before).is_some_and(|brace| window[brace] == b'}')
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// The numbers of `{"n": N}` elements.
    #[derive(Default)]
    struct Numbers(Vec<f64>);

    impl Collect for Numbers {
        fn read(&mut self, scanner: &mut Scanner<'_>) -> Scan<()> {
            let mut n = f64::NAN;
            scanner.object(|s, key| {
                let value = s.value()?;
                if key == b"n" {
                    n = value.as_f64().unwrap_or(f64::NAN);
                }
                Ok(())
            })?;
            self.0.push(n);
            Ok(())
        }

        fn count(&self) -> usize {
            self.0.len()
        }

        fn truncate(&mut self, count: usize) {
            self.0.truncate(count);
        }
    }

    fn both(text: &str) -> Result<(Vec<f64>, usize), SyntaxError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let read = |source: Source<'_>, extent| match list::<Numbers>(source, 1, extent) {
            Ok((pieces, end)) => Ok((pieces.into_iter().flat_map(|p| p.0).collect(), end)),
            Err(ListError::Syntax(error)) => Err(error),
            Err(ListError::Read(error)) => panic!("{error}"),
        };
        let memory = read(Source::Memory(text.as_bytes()), Extent::Rest);
        for extent in [Extent::Rest, Extent::Unknown] {
            assert_eq!(memory, read(Source::file(&file).unwrap(), extent));
        }
        memory
    }

    /// Elements with what a guess would fall for: texts and nested lists that look like elements.
    fn long_list(count: usize) -> String {
        let filler = r#""text": "}, {\"n\": -1}, {", "deep": [{"n": -2}, {"n": -3}, {"n": -4}]"#;
        let elements: Vec<String> =
            (0..count).map(|n| format!("{{\"n\": {n}, {filler}}}")).collect();
        format!("[{}]", elements.join(", \n"))
    }

    #[test]
    fn pieces_make_the_whole() {
        let mut text = long_list(40_000);
        assert!(text.len() > 3 * PIECE, "{}", text.len());
        let (numbers, end) = both(&text).unwrap();
        assert_eq!(end, text.len());
        assert!(numbers.iter().enumerate().all(|(i, &n)| n == i as f64));
        assert_eq!(numbers.len(), 40_000);
        // Elements longer than a piece, and a text that is nothing but likely starts.
        let huge = format!("{{\"x\": \"{}\", \"n\": 7}}", "}, {".repeat(PIECE));
        text = format!("[{huge},{huge} , {{\"n\": 8}}] ");
        assert_eq!(both(&text), Ok((vec![7., 7., 8.], text.len() - 1)));
        assert_eq!(both("[ ]"), Ok((vec![], 3)));
    }

    #[test]
    fn a_cut_list_is_refused_where_it_ends() {
        let text = long_list(30_000);
        for length in [1, 2, 9, 1000, PIECE - 1, PIECE, PIECE + 3, text.len() - 1] {
            let error = both(&text[..length]).unwrap_err();
            assert!(error.offset <= length && error.offset + 24 > length, "{length}: {error:?}");
        }
        let broken = text.replacen("\"n\": 17000,", "\"n\": 17000.,", 1);
        let offset = broken.find("17000.,").unwrap() + 5;
        assert_eq!(
            both(&broken).unwrap_err(),
            SyntaxError { offset, problem: "expected ',' or '}'" }
        );
    }
}
