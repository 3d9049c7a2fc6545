//! Ctrl-C, SIGTERM and a hang-up: asked for once, stop cleanly; asked for twice, stop now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::Failure;

/// What the user has asked for so far.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicU32>);

impl Interrupt {
    /// Catches the signals from now on. Once per process.
    pub fn catch() -> Result<Self, Failure> {
        let interrupt = Self::default();
        let counter = interrupt.0.clone();
        ctrlc::set_handler(move || {
            counter.fetch_add(1, SeqCst);
        })?;
        Ok(interrupt)
    }

    /// Whether to stop.
    pub fn stop(&self) -> bool {
        self.0.load(SeqCst) > 0
    }

    /// Whether to wait for nobody any longer.
    pub fn now(&self) -> bool {
        self.0.load(SeqCst) > 1
    }
}
