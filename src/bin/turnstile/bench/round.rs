//! One round: a fresh database, a crew, a gate, a deadline, a drain, a proof.
//!
//! The parent has no connection to the database between making it and reading it back, so the
//! writers are alone with it; but for the anchor of the [yardstick].

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tempfile::TempDir;

use super::arguments::Arguments;
use super::control::Control;
use super::crew::abnormal;
use super::interrupt::Interrupt;
use super::messages::{Log, Orders};
use super::progress::{Progress, say};
use super::proof::{Claim, Proof};
use super::results::{Circumstances, Round, failed};
use super::watch::{self, Watched};
use super::{YARDSTICK, clock, database, machine, proof, yardstick};
use crate::Failure;

/// Casualties that are described one by one.
const DESCRIBED: usize = 5;

/// What one round is to do.
pub struct Plan<'a> {
    pub arguments: &'a Arguments,
    pub directory: &'a Path,
    pub vfs: &'a str,
    pub number: u32,
    /// What the progress calls it.
    pub label: String,
}

/// Runs it. `None` if it was interrupted before the gate opened.
pub fn run(plan: &Plan, interrupt: &Interrupt) -> Result<Option<Round>, Failure> {
    let arguments = plan.arguments;
    let home = tempfile::Builder::new()
        .prefix("turnstile-bench-")
        .tempdir_in(plan.directory)?;
    let database = home.path().join("bench.db");
    database::create(&database, arguments.journal).map_err(|e| {
        let directory = plan.directory.display();
        format!("cannot make a database in {directory}: {e}; choose another --dir")
    })?;

    let control = Control::create(arguments.writers)?;
    let orders = orders(plan, &control, &database);
    let anchor = orders
        .in_line
        .then(|| yardstick::prepare(&control, &orders))
        .transpose()?;
    let mut progress = Progress::new(plan.label.clone());
    let Some(mut crew) = watch::muster(
        &orders,
        &control,
        arguments.writers,
        interrupt,
        &mut progress,
    )?
    else {
        return Ok(None);
    };
    let busy = machine::busy_seconds();
    let cpu = clock::cpu();
    let watched = watch::go(&mut crew, &control, arguments, interrupt, &mut progress);
    let casualties = casualties(crew.reap(), &watched);
    drop(anchor);

    let claims: Vec<Claim> = (0u32..)
        .zip(&watched.logs)
        .map(|(writer, log)| claim(&control, writer, log.as_ref()))
        .collect();
    let proof = prove(home, &database, &claims)?;

    let crew_cpu: Duration = watched.logs.iter().flatten().map(|log| log.cpu).sum();
    let ours = (watched.cpu.saturating_sub(cpu) + crew_cpu).as_secs_f64();
    // Of a writer that was killed nobody knows what it used.
    let complete = watched.logs.iter().all(Option::is_some);
    let others_cores = busy
        .filter(|_| complete)
        .zip(watched.busy)
        .map(|(before, after)| ((after - before - ours) / watched.measured.as_secs_f64()).max(0.0));
    let around = Circumstances {
        round: plan.number,
        vfs: plan.vfs.to_owned(),
        window: watched.window,
        others_cores,
        casualties,
        proof,
    };
    let round = Round::new(around, &watched.logs);
    progress.done(
        round.writes_per_second,
        failed(&round.failures),
        others_cores,
    );
    Ok(Some(round))
}

fn orders(plan: &Plan, control: &Control, database: &Path) -> Orders {
    let in_line = plan.vfs == YARDSTICK;
    Orders {
        control: control.path(),
        parent: std::process::id(),
        seed: clock::now(),
        database: database.to_owned(),
        vfs: if in_line { database::STOCK } else { plan.vfs }.to_owned(),
        in_line,
        journal: plan.arguments.journal,
        sync: plan.arguments.sync,
        timeout_ms: plan.arguments.timeout_ms,
        keep_open: plan.arguments.keep_open,
        no_sleep: plan.arguments.no_sleep,
    }
}

/// The writers that did not come through, in words.
fn casualties(ends: Vec<io::Result<ExitStatus>>, watched: &Watched) -> Vec<String> {
    let mut described = Vec::new();
    let mut cut_short = 0;
    for (index, end) in ends.into_iter().enumerate() {
        let how = match end {
            Ok(status) => abnormal(&status),
            Err(error) => Some(format!("cannot be waited for: {error}")),
        };
        match how {
            Some(_) if watched.killed_after.is_some() && watched.logs[index].is_none() => {
                cut_short += 1;
            }
            Some(how) => described.push(format!("writer {index} {how}")),
            None => {}
        }
    }
    if described.len() > DESCRIBED {
        let more = described.len() - DESCRIBED;
        described.truncate(DESCRIBED);
        described.push(format!("{more} more writers ended likewise"));
    }
    if let (1.., Some(waited)) = (cut_short, watched.killed_after) {
        described.push(format!(
            "{cut_short} writers were still in a write {:.1} s after the end and were killed: \
             their latencies are missing",
            waited.as_secs_f64()
        ));
    }
    described
}

/// What `writer` says it did, or what it had told the control region before it was gone.
fn claim(control: &Control, writer: u32, log: Option<&Log>) -> Claim {
    match log {
        Some(log) => Claim::Exact {
            attempts: log.attempts(),
            failed: log
                .failures
                .iter()
                .flat_map(|f| &f.attempts)
                .copied()
                .collect::<HashSet<_>>(),
        },
        None => Claim::AtLeast(control.tally(writer).acknowledged.load(SeqCst)),
    }
}

/// Reads the database back. One that fails the proof is not removed.
fn prove(home: TempDir, database: &Path, claims: &[Claim]) -> Result<Proof, Failure> {
    let proof = database::read_back(database).and_then(|db| proof::check(&db, claims));
    if !proof.as_ref().is_ok_and(Proof::holds) {
        say(&format!(
            "turnstile: the database is kept for inspection in {}",
            home.keep().display()
        ));
    }
    proof.map_err(|e| format!("the database cannot be read back after the round: {e}").into())
}
