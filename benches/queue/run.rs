//! One cell measured: the command is run, its JSON is read.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::Result;
use crate::cells::{Cell, Connection, Directories, Pace, Place, word};

/// What `turnstile bench --json` says, as far as it is needed.
#[derive(Deserialize)]
pub struct Run {
    pub machine: Machine,
    pub interrupted: bool,
    pub rounds: Vec<Round>,
}

#[derive(Deserialize)]
pub struct Machine {
    pub cores: usize,
    pub kernel: String,
    pub file_system: String,
    pub sqlite: String,
}

/// One VFS in one pair.
#[derive(Deserialize)]
pub struct Round {
    pub round: u32,
    pub vfs: String,
    pub writes_per_second: f64,
    pub latency: Option<Latency>,
    pub failures: BTreeMap<String, Failure>,
    pub jain: Option<f64>,
    pub cpu_us_per_write: Option<f64>,
    pub waits_per_write: Option<f64>,
    pub others_cores: Option<f64>,
    casualties: Vec<String>,
    proof: Proof,
}

#[derive(Deserialize)]
pub struct Latency {
    pub p999_us: f64,
    pub max_us: f64,
    pub p999_over_p50: f64,
}

#[derive(Deserialize)]
pub struct Failure {
    pub count: u64,
}

#[derive(Deserialize)]
struct Proof {
    lost: u64,
    unexplained: u64,
    integrity_check: Vec<String>,
}

impl Run {
    /// Everything that is wrong beyond failed writes, in words.
    pub fn damage(&self) -> Vec<String> {
        let mut damage = Vec::new();
        for round in &self.rounds {
            let proof = &round.proof;
            let place = format!("round {} of {}", round.round, round.vfs);
            damage.extend(round.casualties.iter().map(|c| format!("{place}: {c}")));
            if proof.lost > 0 || proof.unexplained > 0 || proof.integrity_check != ["ok"] {
                damage.push(format!(
                    "{place}: {} COMMITS LOST, {} rows unexplained, integrity_check: {}",
                    proof.lost,
                    proof.unexplained,
                    proof.integrity_check.join("; ")
                ));
            }
        }
        damage
    }

    /// Whether nothing is; what is, is printed.
    pub fn sound(&self) -> bool {
        let damage = self.damage();
        for line in &damage {
            println!("  DAMAGE  {line}");
        }
        damage.is_empty()
    }
}

/// Measures `cell`. `None` if this machine has no place for it.
pub fn run(cell: &Cell, directories: &Directories) -> Result<Option<Run>> {
    let Some(directory) = directories.at(cell.place)? else {
        return Ok(None);
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstile"));
    command
        .args(["bench", "--json", "--vfs", cell.vfs])
        .args(["--writers", &cell.writers.to_string()])
        .args(["--seconds", &cell.seconds.to_string()])
        .args(["--rounds", &cell.pairs.to_string()])
        .args(["--timeout-ms", &cell.timeout_ms.to_string()])
        .args(["--journal", &word(cell.journal)])
        .args(["--sync", &word(cell.sync)])
        .arg("--dir")
        .arg(directory);
    if cell.pace == Pace::NoSleep {
        command.arg("--no-sleep");
    }
    if cell.connection == Connection::Kept {
        command.arg("--keep-open");
    }
    if let Some(quantum) = cell.quantum_us {
        command.env("TURNSTILE_QUANTUM_US", quantum.to_string());
    }
    // Its progress is for people who watch; otherwise it is kept for the case that it fails.
    if stderr().is_terminal() {
        command.stderr(Stdio::inherit());
    }
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    // A round in which a writer got lost is a result, too: it exits with 1 and prints it.
    let run: Run = serde_json::from_slice(&output.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{command:?}: {}: {error}\n{said}", output.status)
    })?;
    if run.interrupted {
        return Err("interrupted".into());
    }
    if cell.place == Place::Disk && run.machine.file_system == "tmpfs" {
        let shown = directory.display();
        return Err(format!("{shown} is on a tmpfs; name a directory on a disk with --dir").into());
    }
    Ok(Some(run))
}

/// The variables that change what turnstile does, if there are any: they belong beside the figures.
pub fn environment() -> Option<String> {
    let mut set: Vec<String> = std::env::vars()
        .filter(|(name, _)| name.starts_with("TURNSTILE_"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    set.sort();
    (!set.is_empty()).then(|| set.join(" "))
}
