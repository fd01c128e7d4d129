//! The threads of a model.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Threads that do one thing at a time, all of them together.
#[derive(Debug)]
pub(super) struct Workers {
    pool: Arc<ThreadPool>,
    /// Whose turn it is. A network's program needs all threads at once: were there two, each would hold some and wait
    /// for the others.
    turn: Mutex<()>,
}

impl Workers {
    /// Starts `threads` threads.
    ///
    /// # Panics
    /// If the system does not give so many, which is for want of memory as a rule: in the words by which the program knows
    /// it.
    pub(super) fn start(threads: usize) -> Self {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.unwrap_or_else(|error| {
            panic!("std::bad_alloc: {threads} threads can't be started ({error}); --threads asks for fewer")
        });
        Self { pool: Arc::new(pool), turn: Mutex::default() }
    }

    /// The threads, for what is part of an errand.
    pub(super) fn pool(&self) -> Arc<ThreadPool> {
        self.pool.clone()
    }

    /// Does `errand` on them, after those of other callers. It must not be part of another one.
    pub(super) fn run<T: Send>(&self, errand: impl FnOnce() -> T + Send) -> T {
        let mut made = None;
        let place = &mut made;
        self.pool.in_place_scope(|scope| {
            let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let (done, ended) = mpsc::channel::<()>();
            scope.spawn(move |_| {
                let _done = done; // goes with the errand, however it ends
                *place = Some(errand());
            });
            // While the caller has its turn it does nothing else. Where rayon waits, a thread of another pool takes up
            // that pool's work, which may be a call of this, and would wait for its own turn to end.
            let _ = ended.recv();
            drop(turn);
        });
        made.expect("an errand that fails panics")
    }
}
