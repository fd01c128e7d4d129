//! Threads in the place of processes, for tests of what does not draw numbers: libtorch's generator is one for all.

use std::cell::Cell;
use std::fmt;
use std::sync::{Barrier, Mutex};

use detect::data::sampling::Share;

use super::{Group, Ranks};

thread_local! {
    static RANK: Cell<usize> = const { Cell::new(0) };
}

/// So many.
pub(crate) struct Threads {
    count: usize,
    pub(crate) ranks: Group,
}

/// Where they meet.
struct Table {
    count: usize,
    all: Barrier,
    words: Mutex<Vec<Vec<u8>>>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads", self.count)
    }
}

impl Threads {
    pub(crate) fn group(count: usize) -> Self {
        let words = Mutex::new(vec![Vec::new(); count]);
        Self { count, ranks: Group::new(Table { count, all: Barrier::new(count), words }) }
    }

    /// What `f` makes in each of them, by rank, of what is given to it.
    pub(crate) fn each<G: Send, T: Send>(
        &self,
        given: Vec<G>,
        f: impl Fn(usize, G) -> T + Sync,
    ) -> Vec<T> {
        assert_eq!(given.len(), self.count);
        std::thread::scope(|scope| {
            let f = &f;
            let start = |(rank, given)| {
                scope.spawn(move || {
                    RANK.set(rank);
                    f(rank, given)
                })
            };
            let started: Vec<_> = given.into_iter().enumerate().map(start).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

impl Table {
    /// What all say.
    fn said(&self, own: &[u8]) -> Vec<Vec<u8>> {
        self.words.lock().unwrap()[RANK.get()] = own.to_vec();
        self.all.wait();
        let all = self.words.lock().unwrap().clone();
        self.all.wait();
        all
    }
}

impl Ranks for Table {
    fn share(&self) -> Share {
        Share { rank: RANK.get(), count: self.count }
    }

    fn local_rank(&self) -> usize {
        RANK.get()
    }

    fn sum(&self, values: &mut [f32]) {
        let mut wide: Vec<f64> = values.iter().map(|&value| value.into()).collect();
        self.sum_f64(&mut wide);
        values.iter_mut().zip(wide).for_each(|(value, sum)| *value = sum as f32);
    }

    fn sum_f64(&self, values: &mut [f64]) {
        let own: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        values.fill(-0.); // the sum of nothing: 0 would make another number of -0
        for bytes in self.said(&own) {
            assert_eq!(bytes.len(), own.len(), "all sum the same");
            let others = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
            values.iter_mut().zip(others).for_each(|(sum, value)| *sum += value);
        }
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let all = self.said(bytes);
        if RANK.get() == 0 { all } else { Vec::new() }
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8> {
        self.said(&bytes).swap_remove(0)
    }
}
