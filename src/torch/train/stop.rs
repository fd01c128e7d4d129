//! Stopping from outside: SIGINT, SIGTERM and SIGUSR1 (which batch systems send before they kill) end a
//! run after the step at work, with a checkpoint. A second signal ends the program at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use detect::failure::Exit;

use crate::ranks::Ranks;

/// Whether a run was told to stop, and by what.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Listens to the signals from now on.
    #[cfg(unix)]
    pub fn on_signals() -> io::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
        use signal_hook::flag;
        let stop = Self::default();
        let again = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for (signal, exit) in
            [(SIGINT, Exit::Interrupted), (SIGTERM, Exit::Terminated), (SIGUSR1, Exit::Terminated)]
        {
            // In this order: the second signal finds what the first one set. Files are written beside
            // and renamed, so that nothing is lost wherever it comes.
            flag::register_conditional_shutdown(signal, exit as i32, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
            flag::register_usize(signal, Arc::clone(&stop.0), exit as usize)?;
        }
        Ok(stop)
    }

    /// Nothing to listen to here: the system ends the program.
    #[cfg(not(unix))]
    pub fn on_signals() -> io::Result<Self> {
        Ok(Self::default())
    }

    /// The same where any process of a run was told to: all of them end alike.
    pub fn agreed(&self, ranks: &dyn Ranks) -> Option<Exit> {
        let (here, ends) = (self.requested(), [Exit::Interrupted, Exit::Terminated]);
        let mut told = ends.map(|exit| f64::from(u8::from(here == Some(exit))));
        ranks.sum_f64(&mut told);
        ends.into_iter().zip(told).find_map(|(exit, told)| (told > 0.).then_some(exit))
    }

    /// How the program has to end, where it was told to.
    pub fn requested(&self) -> Option<Exit> {
        let code = self.0.load(Ordering::Relaxed);
        [Exit::Interrupted, Exit::Terminated].into_iter().find(|exit| *exit as usize == code)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_remembered() {
        let stop = Stop::on_signals().unwrap();
        assert_eq!(stop.requested(), None);
        signal_hook::low_level::raise(signal_hook::consts::SIGUSR1).unwrap();
        assert_eq!(stop.requested(), Some(Exit::Terminated));
    }
}
