//! `turnstile bench`: many processes write to one database; how fast, how evenly, how safely?
//!
//! What is measured is what an application sees. A *write* is one transaction of one row: its
//! latency begins before `sqlite3_open` (with `--keep-open`: before `BEGIN`) and ends when
//! `COMMIT` has returned, with all the waiting in between. *writes/s* are the commits acknowledged
//! between the gate's opening and the deadline. A write that was under way at the deadline is
//! finished and its latency counts, or the longest would be missing. A write that fails has no
//! latency; it is counted under SQLite's name for the error.
//!
//! The VFSs run in alternation (A B, B A, ...), so that a machine that gets slower during the run
//! is unfair to none, each round on a database of its own. And no number without a proof: after
//! each round every acknowledged commit is looked for in the database ([`proof`]).
//!
//! Among the VFSs may be `yardstick`, which is none: it is `unix` behind an ideal queue
//! ([`yardstick`]), and says how much a queue could reach.
//!
//! | file | |
//! |---|---|
//! | [`arguments`] | what can be asked for |
//! | [`round`], [`watch`] | one round: start, gate, deadline, drain, proof |
//! | [`crew`], [`writer`] | the processes, from above and from within |
//! | [`control`], [`messages`], [`pipe`] | how they talk |
//! | [`yardstick`] | how they wait in line, if they do |
//! | [`database`], [`proof`] | what they write, and whether it is there |
//! | [`statistics`], [`results`] | the figures |
//! | [`table`], [`plot`], [`progress`] | how they are shown |

mod arguments;
mod clock;
mod control;
mod crew;
mod database;
mod density;
mod interrupt;
mod machine;
mod messages;
mod pipe;
mod plot;
mod progress;
mod proof;
mod results;
mod round;
mod sqlite_error;
mod statistics;
mod svg;
mod table;
mod units;
mod watch;
mod writer;
mod yardstick;

pub use arguments::Arguments;
pub use writer::{WriterArguments, run_writer};

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::interrupt::Interrupt;
use self::machine::Machine;
use self::plot::PlotFile;
use self::results::Results;
use self::round::Plan;
use crate::Failure;

/// The VFS that this crate registers. Any other name is SQLite's own.
const TURNSTILE: &str = "turnstile";

/// Not a VFS, but named among them: see [`yardstick`].
const YARDSTICK: &str = "yardstick";

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// The whole of `turnstile bench`.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let directory = directory(arguments.dir.as_deref())?;
    check_vfs(&arguments.vfs)?;
    let plot = arguments.plot.as_deref().map(PlotFile::claim).transpose()?;
    let interrupt = Interrupt::catch()?;

    let of = arguments.rounds as usize * arguments.vfs.len();
    let width = arguments.vfs.iter().map(String::len).max().unwrap_or(0);
    let mut rounds = Vec::new();
    for (done, (number, vfs)) in order(arguments.rounds, &arguments.vfs).enumerate() {
        let label = format!("{}/{of} {vfs:width$}", done + 1);
        let plan = Plan {
            arguments,
            directory: &directory,
            vfs,
            number,
            label,
        };
        match round::run(&plan, &interrupt)? {
            Some(round) => rounds.push(round),
            None => break,
        }
        if interrupt.stop() {
            break;
        }
    }
    let interrupted = interrupt.stop();
    if rounds.is_empty() {
        progress::say("turnstile: interrupted before anything was measured");
        return Ok(ExitCode::from(INTERRUPTED));
    }

    let results = Results::new(arguments, Machine::here(&directory), rounds, interrupted);
    let text = if arguments.json {
        serde_json::to_string_pretty(&results)? + "\n"
    } else {
        table::render(&results)
    };
    stdout().write_all(text.as_bytes())?;
    if let Some(plot) = plot {
        plot.write(&plot::draw(&results))?;
    }
    Ok(match (results.good(), interrupted) {
        (false, _) => {
            progress::say("turnstile: a proof failed or a writer did; see above");
            ExitCode::FAILURE
        }
        (true, true) => ExitCode::from(INTERRUPTED),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// A B, B A, A B, ...
fn order(rounds: u32, vfs: &[String]) -> impl Iterator<Item = (u32, &String)> {
    (1..=rounds).flat_map(move |round| {
        let turn = move |i: usize| if round % 2 == 1 { i } else { vfs.len() - 1 - i };
        (0..vfs.len()).map(move |i| (round, &vfs[turn(i)]))
    })
}

/// The directory for the databases, absolute, and one can be made in it.
fn directory(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    let directory = asked.map_or_else(std::env::temp_dir, Path::to_owned);
    let fail = |what: String| {
        let shown = directory.display();
        Failure::from(format!(
            "--dir {shown}: {what}; name an existing directory that you may write to"
        ))
    };
    let absolute = directory.canonicalize().map_err(|e| fail(e.to_string()))?;
    if !absolute.is_dir() {
        return Err(fail("not a directory".to_owned()));
    }
    tempfile::tempfile_in(&absolute).map_err(|e| fail(e.to_string()))?;
    Ok(absolute)
}

/// Each VFS exists, and none is there twice.
fn check_vfs(names: &[String]) -> Result<(), Failure> {
    if names.iter().any(|name| name == TURNSTILE) {
        turnstile::register(turnstile::Options::default())?;
    }
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(format!("--vfs names {name} twice").into());
        }
        if name == YARDSTICK {
            continue;
        }
        database::in_memory(name).map_err(|e| {
            format!(
                "--vfs {name}: {e}; there are turnstile, yardstick, and SQLite's own: unix, \
                 unix-excl, unix-dotfile, unix-none"
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_alternate() {
        let vfs = ["a".to_owned(), "b".to_owned()];
        let order: Vec<_> = order(3, &vfs)
            .map(|(round, vfs)| format!("{round}{vfs}"))
            .collect();
        assert_eq!(order, ["1a", "1b", "2b", "2a", "3a", "3b"]);
    }
}
