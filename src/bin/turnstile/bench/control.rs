//! The memory that `bench` and its writers share: when the gate opened, when it closes, and how
//! far each writer has come.
//!
//! A memfd, so nothing is left behind however the run ends and no disk is touched while it is
//! measured. Only atomics live in it; each writer counts in a cache line of its own, so counting
//! does not couple the writers to each other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use memmap2::MmapRaw;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Words in a cache line.
const LINE: usize = 8;

/// The shared words: one line for all, then one line for each writer.
pub struct Control {
    file: File,
    map: MmapRaw,
}

impl Control {
    /// A new region for `writers` writers, all zero.
    pub fn create(writers: u32) -> io::Result<Self> {
        let file = File::from(memfd_create("turnstile-bench", MFdFlags::MFD_CLOEXEC)?);
        let words = (writers as usize + 1) * LINE;
        file.set_len((words * size_of::<AtomicU64>()) as u64)?;
        Self::map(file)
    }

    /// The region at a [`Control::path`].
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::map(OpenOptions::new().read(true).write(true).open(path)?)
    }

    fn map(file: File) -> io::Result<Self> {
        let map = MmapRaw::map_raw(&file)?;
        Ok(Self { file, map })
    }

    /// Where a child finds the region for as long as this process lives.
    pub fn path(&self) -> PathBuf {
        let (pid, fd) = (std::process::id(), self.file.as_raw_fd());
        PathBuf::from(format!("/proc/{pid}/fd/{fd}"))
    }

    #[allow(unsafe_code)]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: a page-aligned, live, writable mapping of exactly this many bytes, borrowed no
        // longer than `self` keeps it. Any bit pattern is an AtomicU64, and every process that
        // has the region mapped goes through this function, so all access is atomic. The file
        // has no name and nobody shrinks it.
        unsafe {
            std::slice::from_raw_parts(
                self.map.as_ptr().cast::<AtomicU64>(),
                self.map.len() / size_of::<AtomicU64>(),
            )
        }
    }

    /// Writers that stand at the gate.
    pub fn ready(&self) -> &AtomicU64 {
        &self.words()[0]
    }

    /// Writers that will write no more.
    pub fn finished(&self) -> &AtomicU64 {
        &self.words()[1]
    }

    /// From when on no write is started, in [`super::clock::now`]'s nanoseconds. Zero until the
    /// gate opens; an interrupt moves it to now.
    pub fn deadline(&self) -> u64 {
        self.words()[2].load(SeqCst)
    }

    /// Sets the deadline.
    pub fn set_deadline(&self, at: u64) {
        self.words()[2].store(at, SeqCst);
    }

    /// What `writer` has done so far.
    pub fn tally(&self, writer: u32) -> Tally<'_> {
        let line = (writer as usize + 1) * LINE;
        Tally {
            acknowledged: &self.words()[line],
            failed: &self.words()[line + 1],
        }
    }

    /// Acknowledged and failed writes of the first `writers` writers.
    pub fn totals(&self, writers: u32) -> (u64, u64) {
        (0..writers).map(|writer| self.tally(writer)).fold(
            (0, 0),
            |(acknowledged, failed), tally| {
                (
                    acknowledged + tally.acknowledged.load(Relaxed),
                    failed + tally.failed.load(Relaxed),
                )
            },
        )
    }
}

/// One writer's counters. Each is raised only by its writer, after the fact: a writer that is
/// killed has had at least this many commits acknowledged.
pub struct Tally<'a> {
    pub acknowledged: &'a AtomicU64,
    pub failed: &'a AtomicU64,
}
