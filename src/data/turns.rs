//! Ordered work ahead of time on several threads.
//!
//! Work is dealt to the threads in turn (thread `t` makes the units `t`, `t + threads`, ...), each with
//! a bounded channel of its own, and collected in the same turn. The order is therefore fixed whatever
//! the threads do, and at most `prefetch` units wait besides those in work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Threads that make the units `0..units` ahead of time, handed out in order.
///
/// An item is `None` where the thread that had to make it could not start or has panicked; then nothing follows.
#[derive(Debug)]
pub(super) struct Turns<T> {
    /// One a thread; empty once stopped.
    receivers: Vec<Receiver<T>>,
    threads: Vec<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
    next: usize,
    units: usize,
}

impl<T: Send + 'static> Turns<T> {
    /// Starts at most `threads` threads with a copy of `make` each, which is told when to stop early.
    pub(super) fn start(
        units: usize,
        threads: usize,
        prefetch: usize,
        make: impl FnMut(usize, &AtomicBool) -> T + Clone + Send + 'static,
    ) -> Self {
        let threads = threads.clamp(1, units.max(1));
        let stopped = Arc::new(AtomicBool::new(false));
        let mut this = Self {
            receivers: Vec::with_capacity(threads),
            threads: Vec::with_capacity(threads),
            stopped: Arc::clone(&stopped),
            next: 0,
            units,
        };
        for t in 0..threads {
            // The shares add up to `prefetch`; a share of 0 hands over directly.
            let share = prefetch / threads + usize::from(t < prefetch % threads);
            let (sender, receiver) = sync_channel(share);
            let (mut make, stopped) = (make.clone(), Arc::clone(&stopped));
            let work = move || {
                for unit in (t..units).step_by(threads) {
                    // The receiver is dropped when the loader is.
                    if sender.send(make(unit, &stopped)).is_err() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("loader-{t}"));
            // Where the system refuses a thread, its first unit is told as lost.
            this.threads.extend(thread.spawn(work));
            this.receivers.push(receiver);
        }
        this
    }

    /// The next unit.
    #[expect(clippy::option_option, reason = "end, lost and found are three things")]
    pub(super) fn next(&mut self) -> Option<Option<T>> {
        if self.next == self.units {
            return None;
        }
        let item = self.receivers[self.next % self.receivers.len()].recv().ok();
        self.next = if item.is_some() { self.next + 1 } else { self.units };
        Some(item)
    }
}

impl<T> Drop for Turns<T> {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.receivers.clear(); // wakes the threads that wait for room
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic was reported where its unit was due
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_in_order_with_any_number_of_threads_and_never_run_far_ahead() {
        use std::sync::atomic::AtomicUsize;
        for (threads, prefetch) in [(1, 0), (1, 4), (3, 0), (3, 2), (4, 9), (50, 1)] {
            let started = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&started);
            let mut turns = Turns::start(20, threads, prefetch, move |unit, _: &AtomicBool| {
                counter.fetch_add(1, Ordering::SeqCst);
                unit
            });
            for unit in 0..20 {
                assert_eq!(turns.next(), Some(Some(unit)));
                let ahead = started.load(Ordering::SeqCst) - (unit + 1);
                assert!(ahead <= prefetch + threads, "{ahead} with {threads}, {prefetch}");
            }
            assert_eq!(turns.next(), None);
        }
    }

    #[test]
    fn dropping_the_loader_ends_its_threads() {
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let turns = Turns::start(1_000_000, 3, 2, move |unit, _: &AtomicBool| {
            let _ = &inside;
            unit
        });
        drop(turns);
        // Every thread's copy is gone.
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_thread_that_ends_early_is_told_and_nothing_waits_for_it() {
        let mut turns = Turns::start(10, 2, 1, |unit, _: &AtomicBool| {
            assert_ne!(unit, 3, "as this test wants it");
            unit
        });
        let found: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(found, [Some(0), Some(1), Some(2), None]);
    }
}
