//! From the first writer's start to the last one's report.
//!
//! Writes under way at the deadline are waited for: leaving them out would cut off just the tail
//! that is to be measured. Nobody is waited for without limit.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::arguments::Arguments;
use super::control::Control;
use super::crew::{Crew, abnormal};
use super::interrupt::Interrupt;
use super::messages::{Log, Orders, Report};
use super::progress::{Progress, say};
use super::{clock, machine};
use crate::Failure;

const TICK: Duration = Duration::from_millis(50);
/// For all writers to come to the gate once they are started.
const START_LIMIT: Duration = Duration::from_secs(60);
/// After an interrupt, before those still waiting are killed.
const GRACE: Duration = Duration::from_secs(2);

/// Starts all writers and waits until they stand at the gate. `None` if interrupted.
pub fn muster(
    orders: &Orders,
    control: &Control,
    writers: u32,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> Result<Option<Crew>, Failure> {
    let mut crew = Crew::start(writers, orders, |_| {
        progress.starting(control.ready().load(SeqCst), writers);
        !interrupt.stop()
    })?;
    let limit = Instant::now() + START_LIMIT;
    loop {
        let ready = control.ready().load(SeqCst);
        progress.starting(ready, writers);
        if interrupt.stop() {
            return Ok(None);
        }
        if ready == u64::from(writers) {
            return Ok(Some(crew));
        }
        // In this order: a writer that fails reports before it ends.
        let ended = crew.first_casualty();
        match crew.reports().recv_timeout(TICK / 5) {
            Ok((writer, Report::CannotStart(why))) => {
                return Err(format!("writer {writer} cannot start: {why}").into());
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TICK / 5),
        }
        if let Some((writer, status)) = ended {
            let how = abnormal(&status).unwrap_or_else(|| "ended".to_owned());
            return Err(format!("writer {writer} {how} before the start").into());
        }
        if Instant::now() > limit {
            return Err(format!(
                "only {ready} of {writers} writers were ready after {} s; use fewer --writers \
                 or a less busy machine",
                START_LIMIT.as_secs()
            )
            .into());
        }
    }
}

/// What was seen of a round.
pub struct Watched {
    /// One for each writer; `None` if it never reported.
    pub logs: Vec<Option<Log>>,
    /// While writes were being started.
    pub window: Duration,
    /// The writers that had not reported so long after the end of the window were killed.
    pub killed_after: Option<Duration>,
    /// From the gate until the last write was over, and then the machine's busy seconds and our
    /// own CPU time.
    pub measured: Duration,
    pub busy: Option<f64>,
    pub cpu: Duration,
}

/// Opens the gate and stays until all have reported or are dead.
pub fn go(
    crew: &mut Crew,
    control: &Control,
    arguments: &Arguments,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> Watched {
    let writers = arguments.writers;
    let opened = clock::now();
    let since = |past: u64| Duration::from_nanos(clock::now().saturating_sub(past));
    control.set_deadline(opened + (arguments.seconds * 1e9) as u64);
    crew.open_gate();

    // One write may wait for its turn, for the drain of the readers, and once more to be closed.
    let drain_limit = Duration::from_millis(u64::from(arguments.timeout_ms) * 3) + 15 * GRACE;
    let mut logs: Vec<Option<Log>> = (0..writers).map(|_| None).collect();
    let mut killed_after = None;
    let mut quiet = None;
    let mut asked = None;
    let mut shown = Instant::now();
    loop {
        match crew.reports().recv_timeout(TICK) {
            Ok((writer, Report::Done(log))) => {
                if let Some(entry) = logs.get_mut(writer as usize) {
                    *entry = Some(log);
                }
            }
            Ok((writer, Report::CannotStart(why))) => say(&format!("writer {writer}: {why}")),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let finished = control.finished().load(SeqCst);
        if quiet.is_none() && finished == u64::from(writers) {
            quiet = Some((since(opened), machine::busy_seconds(), clock::cpu()));
        }
        if interrupt.stop() && asked.is_none() {
            asked = Some(Instant::now());
            control.set_deadline(control.deadline().min(clock::now()));
        }
        let late = since(control.deadline());
        let enough = asked.is_some_and(|asked| asked.elapsed() > GRACE) || late > drain_limit;
        if killed_after.is_none() && (enough || interrupt.now()) {
            killed_after = Some(late);
            crew.kill();
        }
        if shown.elapsed() >= TICK {
            shown = Instant::now();
            let (writes, failed) = control.totals(writers);
            if late.is_zero() {
                let elapsed = since(opened).as_secs_f64();
                progress.running(elapsed, arguments.seconds, writes, failed);
            } else {
                progress.draining(late.as_secs_f64(), u64::from(writers) - finished, failed);
            }
        }
    }
    let end = control.deadline().min(clock::now());
    let (measured, busy, cpu) =
        quiet.unwrap_or_else(|| (since(opened), machine::busy_seconds(), clock::cpu()));
    Watched {
        logs,
        window: Duration::from_nanos(end.saturating_sub(opened)),
        killed_after,
        measured,
        busy,
        cpu,
    }
}
