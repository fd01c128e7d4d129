//! Threads that go through a program together, and the memory that it works in.

use std::hint::spin_loop;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::ThreadPool;

use crate::aligned::Aligned;
use crate::instructions::Instructions;
use crate::step::Step;
use crate::tile::Tile;

/// The memory of a program: all its maps and a scratch area for each thread.
#[derive(Debug, Default)]
pub struct Memory {
    floats: Aligned,
    scratch: Vec<Aligned>,
}

impl Memory {
    /// Makes room for `floats` and for `threads` times `scratch`.
    pub fn grow(&mut self, floats: usize, threads: usize, scratch: usize) {
        if self.floats.len() < floats {
            // The old one first: both need not be there at once.
            self.floats = Aligned::default();
            self.floats = zeros(floats);
        }
        self.scratch.resize_with(threads.max(self.scratch.len()), Aligned::default);
        for area in &mut self.scratch {
            if area.len() < scratch {
                *area = zeros(scratch);
            }
        }
    }

    /// All floats.
    pub fn floats(&self) -> &[f32] {
        &self.floats
    }
}

/// Zeros.
///
/// # Panics
/// Where memory does not suffice, in the words of C++, by which `detect` knows it.
fn zeros(length: usize) -> Aligned {
    let mib = length >> 18;
    Aligned::zeros(length)
        .unwrap_or_else(|| panic!("std::bad_alloc: {mib} MiB for the maps of a network"))
}

/// A pointer that threads share.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: the tiles that run at the same time write disjoint floats, and read what was written before.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn pointer(self) -> *mut f32 {
        self.0
    }
}

/// Runs `waves` of steps one after the other; the steps of a wave depend on none of each other's results.
///
/// # Safety
/// Steps of one wave write disjoint floats, and read none that another of them writes; each step reads only floats that
/// an earlier wave wrote.
///
/// # Panics
/// If the memory is too small for a step, or a step was made for other instructions.
pub unsafe fn run(
    instructions: Instructions,
    waves: &[Vec<Step>],
    memory: &mut Memory,
    given: &[f32],
    pool: &ThreadPool,
) {
    let threads = pool.current_num_threads();
    for step in waves.iter().flatten() {
        step.check(instructions, memory.floats.len(), given.len());
        assert!(memory.scratch.len() >= threads, "scratch for each thread");
        let room = memory.scratch.iter().all(|area| area.len() >= step.scratch());
        assert!(room, "room for a step's scratch");
    }
    let floats = Shared(memory.floats.as_mut_ptr());
    let scratch: Vec<Shared> = memory.scratch.iter_mut().map(|s| Shared(s.as_mut_ptr())).collect();
    let one = |step, pixels, thread: usize| {
        let tile = Tile {
            step,
            pixels,
            memory: floats.pointer(),
            given: given.as_ptr(),
            scratch: scratch[thread].pointer(),
        };
        // SAFETY: the step was checked above; tiles are given out once, and a wave ends before the next begins.
        unsafe { instructions.run(tile) }
    };
    if threads == 1 {
        for step in waves.iter().flatten() {
            tiles(step, 0, 1).for_each(|pixels| one(step, pixels, 0));
        }
        return;
    }
    let queues: Vec<Vec<Queue>> =
        waves.iter().map(|_| (0..threads).map(|_| Queue::default()).collect()).collect();
    let meeting = Meeting::new(threads);
    pool.broadcast(|context| {
        // A thread that panics must not leave the others waiting.
        let _leaves = Leave(&meeting);
        let me = context.index();
        for (wave, queues) in waves.iter().zip(&queues) {
            // Its own tiles first, then those that others have not come to.
            for owner in (me..threads).chain(0..me) {
                let mut all = wave
                    .iter()
                    .flat_map(|step| tiles(step, owner, threads).map(move |p| (step, p)));
                let mut passed = 0;
                loop {
                    let number = queues[owner].taken.fetch_add(1, Ordering::Relaxed);
                    let Some((step, pixels)) = all.nth(number - passed) else { break };
                    passed = number + 1;
                    one(step, pixels, me);
                }
            }
            if !meeting.wait() {
                return;
            }
        }
    });
}

/// The tiles of a thread's share of a step.
fn tiles(step: &Step, thread: usize, threads: usize) -> impl Iterator<Item = Range<usize>> {
    let Range { start, end } = step.share(thread, threads);
    // Of nearly the same size.
    let tiles = (end - start).div_ceil(step.tile());
    let at = move |tile: usize| start + (end - start) * tile / tiles;
    (0..tiles).map(move |tile| at(tile)..at(tile + 1))
}

/// How many tiles of a thread's share of a wave are taken. Each has a cache line for itself.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Queue {
    taken: AtomicUsize,
}

/// Where threads wait for each other between two waves. They are microseconds apart, so that they look for a while before they
/// let others run.
struct Meeting {
    threads: usize,
    arrived: AtomicUsize,
    gone: AtomicUsize,
}

impl Meeting {
    fn new(threads: usize) -> Self {
        Self { threads, arrived: AtomicUsize::new(0), gone: AtomicUsize::new(0) }
    }

    /// Waits for all threads; false where one has left.
    fn wait(&self) -> bool {
        let mine = self.arrived.fetch_add(1, Ordering::AcqRel);
        let all = (mine / self.threads + 1) * self.threads;
        let mut looks = 0_u32;
        while self.arrived.load(Ordering::Acquire) < all {
            if self.gone.load(Ordering::Acquire) > 0 {
                return false;
            }
            looks += 1;
            if looks < 4096 {
                spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        true
    }
}

/// Says that a thread leaves by a panic.
struct Leave<'a>(&'a Meeting);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.gone.fetch_add(1, Ordering::AcqRel);
        }
    }
}
