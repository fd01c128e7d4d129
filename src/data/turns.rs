//! Ordered work ahead of time on several threads.
//!
//! Work is dealt to the threads in turn (thread `t` makes the units `t`, `t + threads`, ...), each with
//! a bounded channel of its own, and collected in the same turn. The order is therefore fixed whatever
//! the threads do, and at most `prefetch` units wait besides those in work. Each thread says what it is at,
//! so that one that is slow, stuck or dead can be told by what it was doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread may be at one item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until it is told.
    pub(super) remark: Duration,
    /// Until it counts as lost.
    pub(super) give_up: Duration,
}

/// One image takes milliseconds. A network file system that comes back after a fault may take a minute,
/// and a run that goes on is worth more than one that ended early.
pub(super) const PATIENCE: Patience =
    Patience { remark: Duration::from_secs(5), give_up: Duration::from_mins(2) };

/// Why a unit does not come. Nothing follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The thread could not start or has panicked, at this item if at any.
    Ended(Option<usize>),
    /// It has been at this item for too long.
    Stuck(usize),
}

/// What a thread is at, and since when.
#[derive(Debug, Default)]
pub(super) struct Desk {
    at: Mutex<Option<(usize, Instant)>>,
    stopped: Arc<AtomicBool>,
}

impl Desk {
    /// Says that work on `item` begins.
    pub(super) fn begin(&self, item: usize) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some((item, Instant::now()));
    }

    /// Whether nobody waits for the work any more.
    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn at(&self) -> Option<(usize, Instant)> {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads that make the units `0..units` ahead of time, handed out in order.
#[derive(Debug)]
pub(super) struct Turns<T> {
    /// One a thread; empty once stopped.
    receivers: Vec<Receiver<T>>,
    desks: Vec<Arc<Desk>>,
    threads: Vec<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
    patience: Patience,
    next: usize,
    units: usize,
}

impl<T: Send + 'static> Turns<T> {
    /// Starts at most `threads` threads with a copy of `make` each, which says at its desk what it is at,
    /// and reads there whether to stop early.
    pub(super) fn start(
        units: usize,
        threads: usize,
        prefetch: usize,
        patience: Patience,
        make: impl FnMut(usize, &Desk) -> T + Clone + Send + 'static,
    ) -> Self {
        let threads = threads.clamp(1, units.max(1));
        let stopped = Arc::new(AtomicBool::new(false));
        let mut this = Self {
            receivers: Vec::with_capacity(threads),
            desks: Vec::with_capacity(threads),
            threads: Vec::with_capacity(threads),
            stopped: Arc::clone(&stopped),
            patience,
            next: 0,
            units,
        };
        for t in 0..threads {
            // The shares add up to `prefetch`; a share of 0 hands over directly.
            let share = prefetch / threads + usize::from(t < prefetch % threads);
            let (sender, receiver) = sync_channel(share);
            let desk = Arc::new(Desk { at: Mutex::default(), stopped: Arc::clone(&stopped) });
            this.desks.push(Arc::clone(&desk));
            let mut make = make.clone();
            let work = move || {
                for unit in (t..units).step_by(threads) {
                    let made = make(unit, &desk);
                    desk.clear();
                    // The receiver is dropped when the loader is.
                    if sender.send(made).is_err() {
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

    /// The next unit. `slow` is called once for each item that a thread is at for long.
    pub(super) fn next(&mut self, mut slow: impl FnMut(usize)) -> Option<Result<T, Lost>> {
        if self.next == self.units {
            return None;
        }
        let thread = self.next % self.receivers.len();
        let (receiver, desk) = (&self.receivers[thread], &self.desks[thread]);
        let mut told = None;
        // What the thread is at, and how long that was waited for here: a clock would count the time in which the whole
        // program was stopped, too.
        let mut waited = (None, Duration::ZERO);
        let tick = self.patience.remark.min(Duration::from_secs(1)) / 4;
        let item = loop {
            match receiver.recv_timeout(tick) {
                Ok(item) => break Ok(item),
                Err(RecvTimeoutError::Disconnected) => {
                    break Err(Lost::Ended(desk.at().map(|(item, _)| item)));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let Some((item, since)) = desk.at() else { continue };
            if waited.0 != Some((item, since)) {
                waited = (Some((item, since)), Duration::ZERO);
            }
            waited.1 += tick;
            if waited.1 >= self.patience.give_up {
                break Err(Lost::Stuck(item));
            }
            if since.elapsed() >= self.patience.remark && told != Some(item) {
                told = Some(item);
                slow(item);
            }
        };
        self.next = if item.is_ok() { self.next + 1 } else { self.units };
        Some(item)
    }
}

impl<T> Drop for Turns<T> {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.receivers.clear(); // wakes the threads that wait for room
        // Threads end between two items. One that is stuck in an item is left to the system.
        let patient = Instant::now() + self.patience.remark;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < patient {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                let _ = thread.join(); // a panic was reported where its unit was due
            }
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
            let mut turns = Turns::start(20, threads, prefetch, PATIENCE, move |unit, _: &Desk| {
                counter.fetch_add(1, Ordering::SeqCst);
                unit
            });
            for unit in 0..20 {
                assert_eq!(turns.next(|_| {}), Some(Ok(unit)));
                let ahead = started.load(Ordering::SeqCst) - (unit + 1);
                assert!(ahead <= prefetch + threads, "{ahead} with {threads}, {prefetch}");
            }
            assert_eq!(turns.next(|_| {}), None);
        }
    }

    #[test]
    fn dropping_the_loader_ends_its_threads() {
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let turns = Turns::start(1_000_000, 3, 2, PATIENCE, move |unit, _: &Desk| {
            let _ = &inside;
            unit
        });
        drop(turns);
        // Every thread's copy is gone.
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_thread_that_ends_early_is_told_and_nothing_waits_for_it() {
        let mut turns = Turns::start(10, 2, 1, PATIENCE, |unit, desk: &Desk| {
            desk.begin(100 + unit);
            assert_ne!(unit, 3, "as this test wants it");
            unit
        });
        let found: Vec<_> = std::iter::from_fn(|| turns.next(|_| {})).collect();
        assert_eq!(found, [Ok(0), Ok(1), Ok(2), Err(Lost::Ended(Some(103)))]);
    }

    #[test]
    fn a_hundred_slow_stuck_and_dead_threads_are_named_and_none_is_waited_for() {
        let begun = Instant::now();
        for trial in 0..100 {
            let (threads, bad) = (1 + trial % 4, 1 + trial % 7);
            let kind = if trial % 10 == 1 { 1 } else { trial % 2 * 2 };
            // On a busy machine a healthy thread may not have its turn for long: only a stuck one is
            // given up, after as long as that can't be.
            let remark = Duration::from_millis(40);
            let give_up = if kind == 1 { Duration::from_secs(1) } else { PATIENCE.give_up };
            let patience = Patience { remark, give_up };
            let mut turns =
                Turns::start(9, threads, trial % 3, patience, move |unit, desk: &Desk| {
                    desk.begin(unit);
                    match kind {
                        // Slow, stuck (but not beyond the end of these tests), dead.
                        0 if unit == bad => std::thread::sleep(Duration::from_millis(70)),
                        1 if unit == bad => {
                            while !desk.stopped() {
                                std::thread::sleep(Duration::from_millis(5));
                            }
                        }
                        2 => assert_ne!(unit, bad, "as this test wants it"),
                        _ => {}
                    }
                    unit
                });
            let mut slow = Vec::new();
            let found: Vec<_> = std::iter::from_fn(|| turns.next(|item| slow.push(item))).collect();
            let last = *found.last().unwrap();
            match kind {
                0 => assert_eq!((last, found.len()), (Ok(8), 9)),
                1 => {
                    assert_eq!(last, Err(Lost::Stuck(bad)));
                    assert_eq!(slow.last(), Some(&bad));
                }
                _ => assert_eq!(last, Err(Lost::Ended(Some(bad)))),
            }
            drop(turns);
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
    }
}
