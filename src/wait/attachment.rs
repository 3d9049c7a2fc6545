//! A connection's hold on the sidecar of its database: looked for, opened, looked for again.

use super::manners::Manners;
use crate::filesystem;
use crate::sqlite::Sqlite;
use crate::sqlite::abi::SQLITE_WARNING;
use crate::text::PathEnd;
use crate::turn::mapped::{self, Mapped};
use crate::turn::sidecar;
use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// It is looked for again at most this often after it could not be had.
const PATIENCE: u64 = 1_000_000_000;

pub struct Attachment {
    sqlite: Sqlite,
    manners: Manners,
    /// SQLite keeps it until xClose.
    database: &'static CStr,
    /// The sidecar's path, terminated.
    path: Vec<u8>,
    line: Option<Mapped>,
    /// When it could not be had.
    troubled: Option<u64>,
}

impl Attachment {
    /// `None` if memory is out.
    pub fn new(sqlite: &Sqlite, manners: Manners, database: &'static CStr) -> Option<Attachment> {
        Some(Attachment {
            sqlite: *sqlite,
            manners,
            database,
            path: sidecar::path_of(database)?,
            line: None,
            troubled: None,
        })
    }

    pub fn line(&self) -> Option<&Mapped> {
        self.line.as_ref()
    }

    fn path(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.path).unwrap_or_default()
    }

    /// Opens the sidecar, if that is possible and allowed here; makes it if `create`.
    pub fn attach(&mut self, create: bool) {
        if self.line.is_some() || !self.manners.fair {
            return;
        }
        let now = mapped::now();
        if self.troubled.is_some_and(|since| now < since + PATIENCE) {
            return;
        }
        if !filesystem::can_share_memory(self.database, self.manners.fs) {
            self.troubled = Some(u64::MAX - PATIENCE);
            return;
        }
        match sidecar::attach(self.path(), self.database, create) {
            Ok(line) => {
                self.line = line;
                self.troubled = None;
            }
            Err(trouble) => {
                self.troubled = Some(now);
                self.complain(&trouble);
            }
        }
    }

    /// Of the path.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.path.hash(&mut hasher);
        hasher.finish()
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
