//! The counters: callgrind for instructions, or the processor itself where valgrind is missing;
//! strace for system calls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::command::Result;

/// What counts the instructions on this machine.
#[derive(Clone, Copy)]
pub enum Instructions {
    /// Runs the program on a simulated processor: the same number each time.
    Callgrind,
    /// Asks the real one: some noise, and virtual machines seldom allow it.
    Perf,
}

impl Instructions {
    /// The better one of those that work here.
    pub fn counter() -> Option<Instructions> {
        [Instructions::Callgrind, Instructions::Perf]
            .into_iter()
            .find(|counter| counter.count(&["true"]).is_ok())
    }

    pub fn name(self) -> &'static str {
        match self {
            Instructions::Callgrind => "callgrind",
            Instructions::Perf => "perf stat",
        }
    }

    /// How many instructions `program`, with its arguments, takes in user space.
    pub fn count(self, program: &[&str]) -> Result<i64> {
        match self {
            Instructions::Callgrind => {
                let counted = output_of("valgrind", program, |valgrind, out| {
                    let mut option = std::ffi::OsString::from("--callgrind-out-file=");
                    option.push(out);
                    valgrind.arg("--tool=callgrind").arg(option);
                })?;
                let total = counted
                    .lines()
                    .find_map(|line| line.strip_prefix("totals: "));
                Ok(total
                    .ok_or("callgrind's file has no totals")?
                    .trim()
                    .parse()?)
            }
            Instructions::Perf => {
                let counted = output_of("perf", program, |perf, out| {
                    perf.args(["stat", "-x,", "-e", "instructions:u", "-o"])
                        .arg(out)
                        .arg("--");
                })?;
                let line = counted.lines().find(|line| line.contains("instructions"));
                let field = line
                    .and_then(|line| line.split(',').next())
                    .unwrap_or_default();
                Ok(field
                    .parse()
                    .map_err(|_| "perf stat cannot count instructions here")?)
            }
        }
    }
}

/// System calls by name.
pub struct Calls(BTreeMap<String, i64>);

impl Calls {
    /// The system calls of `program`, with its arguments, and of all its threads.
    pub fn count(program: &[&str]) -> Result<Calls> {
        let counted = output_of("strace", program, |strace, out| {
            strace.args(["-f", "-c", "-o"]).arg(out);
        })?;
        // % time, seconds, usecs/call, calls, errors (may be blank), syscall
        let calls = counted.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((fields.last()?.to_string(), fields.get(3)?.parse().ok()?))
        });
        Ok(Calls(calls.filter(|(name, _)| name != "total").collect()))
    }

    pub fn minus(&self, other: &Calls) -> Calls {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let of = |calls: &Calls, name| calls.0.get(name).copied().unwrap_or(0);
        Calls(
            names
                .into_iter()
                .map(|name| (name.clone(), of(self, name) - of(other, name)))
                .collect(),
        )
    }

    pub fn total(&self) -> i64 {
        self.0.values().sum()
    }

    pub fn nonzero(&self) -> impl Iterator<Item = (&String, i64)> {
        self.0
            .iter()
            .map(|(name, &calls)| (name, calls))
            .filter(|&(_, calls)| calls != 0)
    }
}

/// What `counter` writes about a run of `program`, to the file that `options` hands it.
fn output_of(
    counter: &str,
    program: &[&str],
    options: impl FnOnce(&mut Command, &Path),
) -> Result<String> {
    let out = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(counter);
    options(&mut command, out.path());
    command.args(program);
    // Nothing that could make turnstile, or one run, behave otherwise than by default.
    let ours = |name: &str| name.starts_with("TURNSTILE_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    let ran = command
        .output()
        .map_err(|error| format!("{counter}: {error}"))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(format!("{command:?}: {}\n{said}", ran.status).into());
    }
    Ok(std::fs::read_to_string(out.path())?)
}
