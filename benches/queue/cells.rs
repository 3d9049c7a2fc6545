//! What can be varied: one [`Cell`] of the matrix is one run of `turnstile bench`.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::{Arguments, Result};

/// `PRAGMA journal_mode`.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Journal {
    Wal,
    Delete,
}

/// `PRAGMA synchronous`.
#[derive(Clone, Copy, ValueEnum)]
pub enum Sync {
    Full,
    Normal,
    Off,
}

/// Where the database is.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Place {
    /// In memory: /dev/shm
    Tmpfs,
    /// In --dir
    Disk,
}

/// What a writer does after a write.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Pace {
    /// Pauses for 0 to 100 ms
    Sleep,
    /// Goes on at once: the line is never empty
    NoSleep,
}

/// What a writer does before a write.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Connection {
    /// Opens the database, and closes it afterwards
    Reopened,
    /// Nothing: it has opened the database once
    Kept,
}

/// One combination of them, and who is compared in it.
#[derive(Clone, Copy)]
pub struct Cell {
    pub place: Place,
    pub journal: Journal,
    pub writers: u32,
    pub pace: Pace,
    pub connection: Connection,
    pub timeout_ms: u32,
    pub sync: Sync,
    pub seconds: f64,
    pub pairs: u32,
    /// As `turnstile bench --vfs` takes them.
    pub vfs: &'static str,
    /// `TURNSTILE_QUANTUM_US`, if it is not to stay what it is.
    pub quantum_us: Option<u64>,
}

/// Stock, turnstile and yardstick.
pub const ALL: &str = "unix,turnstile,yardstick";
/// Where nothing is said about stock.
pub const WITHOUT_STOCK: &str = "turnstile,yardstick";

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:5} {:6} {:>4} {:8} {:8}",
            word(self.place),
            word(self.journal),
            self.writers,
            word(self.pace),
            word(self.connection)
        )
    }
}

/// What the user calls it.
pub fn word<T: ValueEnum>(value: T) -> String {
    value
        .to_possible_value()
        .map_or(String::new(), |value| value.get_name().to_owned())
}

/// The directories behind the [`Place`]s.
pub struct Directories {
    disk: PathBuf,
}

impl Directories {
    /// Those of this machine.
    pub fn of(arguments: &Arguments) -> Result<Self> {
        let default = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let disk = arguments.dir.as_deref().unwrap_or(default);
        if arguments.dir.is_none() {
            std::fs::create_dir_all(disk)?;
        }
        Ok(Self {
            disk: disk.to_owned(),
        })
    }

    /// Where the database of a cell is made. `None`, and a line that says so, where this machine
    /// has no such place; with `CI` in the environment that is an error.
    pub fn at(&self, place: Place) -> Result<Option<&Path>> {
        let memory = Path::new("/dev/shm");
        match place {
            Place::Disk => Ok(Some(&self.disk)),
            Place::Tmpfs if memory.is_dir() => Ok(Some(memory)),
            Place::Tmpfs => {
                let line = "SKIPPED queue: --where tmpfs needs /dev/shm; mount a tmpfs there";
                if std::env::var_os("CI").is_some() {
                    return Err(line.into());
                }
                eprintln!("{line}");
                Ok(None)
            }
        }
    }
}
