//! Where the time of a training step goes.
//!
//! A stopwatch of the thread that trains: each part calls [`lap`] at its end, and what has passed since the last
//! call is that part's. While none is [started](start), that does nothing; while one is, a GPU is waited for at
//! each of the borders, so that work is counted where it is asked for.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use tch::{Cuda, Device};

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Waiting for the loader.
    Data,
    /// Forward: the featurizer on the image.
    Trunk,
    /// Forward: the RPN, proposals and its losses.
    Rpn,
    /// Forward: sampled regions, their crops, heads and losses.
    Roi,
    /// Backward, with the reading of the losses.
    Backward,
    /// The gradients' norm, clipping, the weights, their average.
    Optimizer,
    /// The rest: images to the device, checks of the labels, the log.
    Other,
}

impl Part {
    /// All, in the order of a step.
    pub const ALL: [Self; 7] = [
        Self::Data,
        Self::Trunk,
        Self::Rpn,
        Self::Roi,
        Self::Backward,
        Self::Optimizer,
        Self::Other,
    ];

    /// For tables and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Trunk => "trunk",
            Self::Rpn => "rpn",
            Self::Roi => "roi",
            Self::Backward => "backward",
            Self::Optimizer => "optimizer",
            Self::Other => "other",
        }
    }
}

/// Seconds of a step by part, in the order of [`Part::ALL`].
pub type Laps = [f64; Part::ALL.len()];

struct Watch {
    device: Device,
    last: Instant,
    laps: [Duration; Part::ALL.len()],
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

fn wait_for(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// Starts the stopwatch for a step on `device`.
pub fn start(device: Device) {
    wait_for(device);
    let watch = Watch { device, last: Instant::now(), laps: Default::default() };
    WATCH.set(Some(watch));
}

/// What was done since the last call, or the start, was `part`.
pub fn lap(part: Part) {
    WATCH.with_borrow_mut(|watch| {
        let Some(watch) = watch else { return };
        wait_for(watch.device);
        let now = Instant::now();
        watch.laps[part as usize] += now - watch.last;
        watch.last = now;
    });
}

/// Ends the stopwatch, if it runs.
pub fn stop() -> Option<Laps> {
    WATCH.take().map(|watch| watch.laps.map(|lap| lap.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_of_one_part_add_up_and_nothing_is_lost() {
        lap(Part::Trunk);
        assert_eq!(stop(), None, "nothing was started");
        let whole = Instant::now();
        start(Device::Cpu);
        for part in [Part::Trunk, Part::Backward, Part::Trunk] {
            std::thread::sleep(Duration::from_millis(2));
            lap(part);
        }
        let laps = stop().unwrap();
        let whole = whole.elapsed().as_secs_f64();
        assert!(laps[1] >= 0.004 && laps[4] >= 0.002, "{laps:?}");
        assert!(laps.iter().sum::<f64>() <= whole);
        let ran: Vec<&str> =
            Part::ALL.iter().zip(laps).filter(|(_, s)| *s > 0.).map(|(p, _)| p.name()).collect();
        assert_eq!(ran, ["trunk", "backward"]);
        assert_eq!(stop(), None);
    }
}
