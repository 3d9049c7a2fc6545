//! One run of the sweep: what fails, when, how often. Spelt in a few words, it can be run again.

use crate::cluster::{Errno, Fault, Op};
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It is not done; a sync loses what it was to sync, as on Linux.
    Eio,
    /// It is done, and the answer is EIO all the same.
    Lie,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Once,
    Thrice,
    Ever,
}

pub const JOURNALS: [&str; 3] = ["delete", "truncate", "persist"];
pub const SYNCS: [&str; 2] = ["full", "normal"];

/// The kinds that change something, so that it matters whether they were done.
pub const CHANGES: [Op; 8] = [
    Op::Write,
    Op::Fsync,
    Op::Truncate,
    Op::Unlink,
    Op::Create,
    Op::Link,
    Op::Setlk,
    Op::Unlock,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub journal: &'static str,
    pub sync: &'static str,
    pub op: Op,
    pub harm: Harm,
    pub times: Times,
    pub n: u64,
    /// When the process has ended its work, all machines crash: what is not synced is gone.
    pub crash: bool,
}

impl Case {
    pub fn fault(&self) -> Fault {
        let fault = Fault::at(&[self.op]).on(super::lane::WORKS).nth(self.n);
        let fault = match self.times {
            Times::Once => fault.times(1),
            Times::Thrice => fault.times(3),
            Times::Ever => fault,
        };
        match self.harm {
            Harm::Eio => fault.answer(Errno::EIO),
            Harm::Lie => fault.lie(Errno::EIO),
        }
    }

    /// Whether the last commit may come undone. With `synchronous=NORMAL` SQLite does not sync a journal
    /// that it has truncated: when that is lost, the journal is as it was before.
    pub fn may_undo(&self) -> bool {
        let loses = self.op == Op::Fsync && self.harm == Harm::Eio && self.times == Times::Ever;
        self.journal == "truncate" && self.sync == "normal" && (self.crash || loses)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case {
            journal,
            sync,
            op,
            harm,
            times,
            n,
            crash,
        } = self;
        let words = format!("{journal} {sync} {op:?} {harm:?} {times:?} {n}");
        let crash = if *crash { " crash" } else { "" };
        write!(f, "{}{crash}", words.to_lowercase())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(words: &str) -> Result<Case, String> {
        let fields: Vec<&str> = words.split_whitespace().collect();
        let (fields, crash) = match &fields[..] {
            [fields @ .., "crash"] => (fields, true),
            fields => (fields, false),
        };
        let &[journal, sync, op, harm, times, n] = fields else {
            let form = "journal sync kind eio|lie once|thrice|ever n [crash]";
            return Err(format!("{words:?} is not: {form}"));
        };
        Ok(Case {
            journal: one_of(journal, &JOURNALS, str::to_owned)?,
            sync: one_of(sync, &SYNCS, str::to_owned)?,
            op: one_of(op, Op::ALL, |op| format!("{op:?}"))?,
            harm: one_of(harm, &[Harm::Eio, Harm::Lie], |h| format!("{h:?}"))?,
            times: one_of(times, &[Times::Once, Times::Thrice, Times::Ever], |t| {
                format!("{t:?}")
            })?,
            n: n.parse().map_err(|_| format!("{n}: a number"))?,
            crash,
        })
    }
}

fn one_of<T: Copy>(word: &str, all: &[T], name: impl Fn(T) -> String) -> Result<T, String> {
    let found = all.iter().find(|one| name(**one).to_lowercase() == word);
    found.copied().ok_or_else(|| format!("{word}: unknown"))
}
