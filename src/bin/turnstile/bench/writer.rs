//! One writer: a process of its own, started by [`super::crew`].
//!
//! It dies with the process that started it, whatever happens to that one, and it starts no write
//! before the gate is open or after the deadline.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use super::control::Control;
use super::messages::{Failed, Log, Orders, Report};
use super::{clock, database, pipe, yardstick};
use crate::Failure;

/// The words behind `bench-writer`.
#[derive(clap::Args)]
pub struct WriterArguments {
    /// Which of the writers this is
    index: u32,
    /// [`Orders`] as JSON
    orders: String,
}

/// The whole life of a writer.
pub fn run_writer(arguments: &WriterArguments) -> Result<ExitCode, Failure> {
    let orders: Orders = serde_json::from_str(&arguments.orders)?;
    let _ = prctl::set_name(c"turnstile-bench");
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid().as_raw() as u32 != orders.parent {
        return Ok(ExitCode::FAILURE); // It was gone before the kernel was told to watch it.
    }
    let report = match write(arguments.index, &orders) {
        Ok(None) => return Ok(ExitCode::FAILURE),
        Ok(Some(log)) => Report::Done(log),
        Err(failure) => Report::CannotStart(failure.to_string()),
    };
    // Not through `io::stdout()`: its buffer would cut the frames elsewhere.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    pipe::send(&mut stdout, arguments.index, &serde_json::to_vec(&report)?)?;
    Ok(ExitCode::SUCCESS)
}

/// `None` if the gate was never opened.
fn write(index: u32, orders: &Orders) -> Result<Option<Log>, Failure> {
    let control =
        Control::open(&orders.control).map_err(|e| format!("{}: {e}", orders.control.display()))?;
    if orders.vfs == super::TURNSTILE {
        turnstile::register(turnstile::Options::default())?;
    }
    // The first write of a fresh process pays for SQLite's start and for its own code being
    // paged in. It pays here, so that the tail shows the waiting and not the loader.
    database::insert(&database::in_memory(&orders.vfs)?, index, 0)?;
    let kept = orders
        .keep_open
        .then(|| database::open(orders))
        .transpose()?;
    // Different for each writer and round.
    let mut random = fastrand::Rng::with_seed(orders.seed ^ (u64::from(index) << 32));

    control.ready().fetch_add(1, SeqCst);
    while io::stdin().read(&mut [0])? > 0 {}
    if control.deadline() == 0 {
        return Ok(None); // The pipe broke because the parent is gone.
    }

    let tally = control.tally(index);
    let mut log = Log::default();
    let (cpu, waits) = (clock::cpu(), clock::waits());
    for attempt in 0.. {
        let started = clock::now();
        if started >= control.deadline() {
            break;
        }
        // Dropped after the connection: whoever is next finds it closed.
        let turn = orders.in_line.then(|| yardstick::take(&control));
        let mut fresh = None;
        let connection = match &kept {
            Some(connection) => Ok(connection),
            None => database::open(orders).map(|connection| &*fresh.insert(connection)),
        };
        let outcome = connection.and_then(|c| database::insert(c, index, attempt));
        let ended = clock::now();
        match outcome {
            Ok(()) => {
                tally.acknowledged.fetch_add(1, Relaxed);
                log.latencies.push(ended - started);
                log.in_window += u64::from(ended <= control.deadline());
            }
            Err(error) => {
                tally.failed.fetch_add(1, Relaxed);
                note(
                    &mut log,
                    attempt,
                    &error,
                    Duration::from_nanos(ended - started),
                );
            }
        }
        drop(fresh);
        drop(turn);
        if !orders.no_sleep {
            let left = control.deadline().saturating_sub(clock::now());
            thread::sleep(pause(&mut random).min(Duration::from_nanos(left)));
        }
    }
    log.cpu = clock::cpu() - cpu;
    log.waits = clock::waits() - waits;
    control.finished().fetch_add(1, SeqCst);
    Ok(Some(log))
}

fn note(log: &mut Log, attempt: u64, error: &rusqlite::Error, waited: Duration) {
    let code = error
        .sqlite_error()
        .map_or(rusqlite::ffi::SQLITE_ERROR, |e| e.extended_code);
    let known = match log.failures.iter().position(|f| f.code == code) {
        Some(known) => known,
        None => {
            log.failures.push(Failed {
                code,
                message: error.to_string(),
                attempts: Vec::new(),
                longest: Duration::ZERO,
            });
            log.failures.len() - 1
        }
    };
    let failed = &mut log.failures[known];
    failed.attempts.push(attempt);
    failed.longest = failed.longest.max(waited);
}

/// The next pause: uniform, 0 to 100 ms.
fn pause(random: &mut fastrand::Rng) -> Duration {
    Duration::from_micros(random.u64(..100_000))
}
