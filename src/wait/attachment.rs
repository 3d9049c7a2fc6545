//! A connection's hold on the sidecar of its database: looked for, opened, looked for again.

use super::manners::Manners;
use crate::sqlite::Sqlite;
use crate::sqlite::abi::SQLITE_WARNING;
use crate::text::PathEnd;
use crate::turn::mapped::{self, Mapped};
use crate::turn::sidecar;
use crate::{Fs, filesystem};
use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// It is looked for again so long after it could not be had.
const PATIENCE: u64 = 1_000_000_000;

/// So long after somebody was found at work on it: a thousand processes that begin at once all want to make it,
/// and whoever does without a line meanwhile is in the way of the others.
const MOMENT: u64 = 5_000_000;

/// Somebody who is at work on it for so many looks has died or was stopped there.
const MANY: u32 = 100;

/// Of so many connections that follow each other at once, one looks whether the sidecar that they share is still the one at
/// its path. (One that stays looks as seldom: see `VERIFY` in `courtesy`.)
const HEIRS: u32 = 64;

pub struct Attachment {
    sqlite: Sqlite,
    manners: Manners,
    /// SQLite keeps it until xClose.
    database: &'static CStr,
    /// The sidecar's path, terminated.
    path: Vec<u8>,
    /// Of the path.
    hash: u64,
    line: Option<Mapped>,
    /// The last connection's, to be used again.
    kept: Option<Mapped>,
    /// Not to be looked for until then.
    troubled: u64,
    /// How often somebody was found at work on it.
    locked: u32,
}

impl Attachment {
    /// `None` if memory is out.
    pub fn new(sqlite: &Sqlite, manners: Manners, database: &'static CStr) -> Option<Attachment> {
        let path = sidecar::path_of(database)?;
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        Some(Attachment {
            sqlite: *sqlite,
            manners,
            database,
            path,
            hash: hasher.finish(),
            line: None,
            kept: None,
            troubled: 0,
            locked: 0,
        })
    }

    pub fn line(&self) -> Option<&Mapped> {
        self.line.as_ref()
    }

    fn path(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.path).unwrap_or_default()
    }

    /// What the last connection had open, for the next `attach`.
    pub fn keep(&mut self, line: Option<Mapped>) {
        self.kept = line;
    }

    /// Opens the sidecar, if that is possible and allowed here; makes it if `create`.
    pub fn attach(&mut self, create: bool) {
        if self.line.is_some() || !self.manners.fair {
            return;
        }
        if let Some(kept) = self.kept.take()
            && self.manners.fs != Fs::Network
            && (!kept.hand_on().is_multiple_of(HEIRS) || sidecar::is_at(&kept, self.path()))
        {
            self.line = Some(kept);
            return;
        }
        let now = mapped::now();
        if now < self.troubled {
            return;
        }
        if !filesystem::can_share_memory(self.database, self.manners.fs) {
            self.troubled = u64::MAX;
            return;
        }
        match sidecar::attach(self.path(), self.database, create) {
            Ok(line) => {
                self.line = line;
                self.locked = 0;
            }
            Err(sidecar::Trouble::Locked) if self.locked < MANY => {
                self.troubled = now + MOMENT;
                self.locked += 1;
            }
            Err(trouble) => {
                self.troubled = now + PATIENCE;
                self.complain(&trouble);
            }
        }
    }

    /// Whether somebody was found at work on it just now, and time was spent on that.
    pub fn is_at_work(&self) -> bool {
        self.locked > 0
    }

    /// Of the path.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// One line for a database, though its connections come and go.
    fn complain(&self, trouble: &sidecar::Trouble) {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let this = self.hash();
        if LAST.swap(this, Ordering::Relaxed) != this {
            let path = PathEnd(self.path());
            let text = format_args!(
                "turnstile: no queue for {path}: {trouble}. Writers wait at random instead"
            );
            self.sqlite.log(SQLITE_WARNING, text);
        }
    }

    /// Lets go of it.
    pub fn detach(&mut self) -> Option<Mapped> {
        self.kept = None;
        self.line.take()
    }

    /// Whether the sidecar at the path is another one by now, or none.
    pub fn is_elsewhere(&self) -> bool {
        self.line
            .as_ref()
            .is_some_and(|line| !sidecar::is_at(line, self.path()))
    }

    /// It is not what it was: looks for it anew, and sends those who have the old one to do so, too.
    pub fn renew(&mut self) {
        if self.is_elsewhere()
            && let Some(old) = &self.line
        {
            sidecar::retire(old);
        }
        self.line = None;
        self.attach(true);
    }
}
