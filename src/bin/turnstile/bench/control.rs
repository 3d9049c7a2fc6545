//! The memory that `bench` and its writers share: when the gate opened, when it closes, how far
//! each writer has come, and where the [yardstick](super::yardstick) stands in line.
//!
//! A memfd, so nothing is left behind however the run ends and no disk is touched while it is
//! measured. Only atomics live in it; each writer counts in a cache line of its own, so counting
//! does not couple the writers to each other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use memmap2::MmapRaw;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A cache line: seven words and one that a process can sleep on (the kernel wants 32 bits).
#[repr(C, align(64))]
struct Line {
    words: [AtomicU64; 7],
    futex: AtomicU32,
}

/// Line 0 counts for all, line 1 hands out tickets; then a tally and a slot for each writer.
const FIRST: usize = 2;

/// The shared lines.
pub struct Control {
    file: File,
    map: MmapRaw,
}

impl Control {
    /// A new region for `writers` writers, all zero.
    pub fn create(writers: u32) -> io::Result<Self> {
        let file = File::from(memfd_create("turnstile-bench", MFdFlags::MFD_CLOEXEC)?);
        let lines = FIRST + writers as usize * 2;
        file.set_len((lines * size_of::<Line>()) as u64)?;
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
    fn lines(&self) -> &[Line] {
        // SAFETY: a page-aligned, live, writable mapping of exactly this many bytes, borrowed no
        // longer than `self` keeps it. Any bit pattern is a Line, which is made of atomics only,
        // and every process that has the region mapped goes through this function, so all access
        // is atomic and of one size. The file has no name and nobody shrinks it.
        unsafe {
            std::slice::from_raw_parts(
                self.map.as_ptr().cast::<Line>(),
                self.map.len() / size_of::<Line>(),
            )
        }
    }

    /// Writers that stand at the gate.
    pub fn ready(&self) -> &AtomicU64 {
        &self.lines()[0].words[0]
    }

    /// Writers that will write no more.
    pub fn finished(&self) -> &AtomicU64 {
        &self.lines()[0].words[1]
    }

    /// From when on no write is started, in [`super::clock::now`]'s nanoseconds. Zero until the
    /// gate opens; an interrupt moves it to now.
    pub fn deadline(&self) -> u64 {
        self.lines()[0].words[2].load(SeqCst)
    }

    /// Sets the deadline.
    pub fn set_deadline(&self, at: u64) {
        self.lines()[0].words[2].store(at, SeqCst);
    }

    /// What `writer` has done so far.
    pub fn tally(&self, writer: u32) -> Tally<'_> {
        let line = &self.lines()[FIRST + writer as usize];
        Tally {
            acknowledged: &line.words[0],
            failed: &line.words[1],
        }
    }

    /// Tickets that were ever taken.
    pub fn tickets(&self) -> &AtomicU64 {
        &self.lines()[1].words[0]
    }

    /// Where the holder of `ticket` waits. There are as many slots as writers, and a writer holds
    /// one ticket at a time, so the tickets that are out never share one.
    pub fn slot(&self, ticket: u64) -> &AtomicU32 {
        let slots = &self.lines()[FIRST..];
        let slots = &slots[slots.len() / 2..];
        &slots[(ticket % slots.len() as u64) as usize].futex
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
