//! The line's machine on one computer: a shared mapping, futexes, and the kernel's byte locks.

use super::layout::{WORDS, Word};
use super::machine::Machine;
use super::sigbus::{self, Guarded, LENGTH};
use libc::{c_long, c_short, off_t};
use nix::fcntl::{FcntlArg, fcntl};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Where the members' bytes begin. A lock may lie beyond the end of a file.
const MEMBERS: i64 = 1 << 30;

/// An open sidecar.
pub struct Mapped {
    words: NonNull<AtomicU64>,
    file: OwnedFd,
    /// Our member number; 0 until we have waited for the first time.
    member: std::cell::Cell<u32>,
    _guarded: Guarded,
}

// SAFETY: the mapping is used through atomics only; `member` is behind the waiter's mutex with all
// of this structure.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps `file`, which is at least [`LENGTH`] bytes long. `None` if the kernel refuses.
    pub fn new(file: OwnedFd) -> Option<Mapped> {
        // SAFETY: a new mapping of a file that we keep open; its address is the kernel's choice.
        let address = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let fd = file.as_raw_fd();
            libc::mmap(ptr::null_mut(), LENGTH, access, libc::MAP_SHARED, fd, 0)
        };
        if address == libc::MAP_FAILED {
            return None;
        }
        let Some(guarded) = sigbus::guard(address) else {
            // SAFETY: it is ours and nobody has seen it.
            unsafe { libc::munmap(address, LENGTH) };
            return None;
        };
        Some(Mapped {
            words: NonNull::new(address)?.cast(),
            file,
            member: std::cell::Cell::new(0),
            _guarded: guarded,
        })
    }

    /// All words, for the eye of an uncontended transaction.
    pub fn words(&self) -> *const AtomicU64 {
        self.words.as_ptr()
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        debug_assert!(word.index() < WORDS);
        // SAFETY: the mapping has WORDS words, each index is below that, it lives as long as self,
        // and any bit pattern is an AtomicU64. A truncated file is `sigbus`'s business.
        unsafe { self.words.add(word.index()).as_ref() }
    }

    /// The futex in a word: its lower half.
    fn futex(&self, word: Word) -> *const u32 {
        let low = self.word(word).as_ptr().cast::<u32>();
        if cfg!(target_endian = "big") {
            // SAFETY: inside of the word.
            unsafe { low.add(1) }
        } else {
            low
        }
    }

    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Our member number. The first call takes the byte lock that shows others that we live; 0 if
    /// the file system has no such locks.
    pub fn member(&self) -> u32 {
        if self.member.get() == 0 {
            // A number that is taken can only come from garbage; a few tries are enough.
            let numbers = (0..8).map(|_| self.add(Word::Members, 1) as u32);
            let free = numbers.filter(|&n| n != 0).find(|&n| self.lock(n));
            self.member.set(free.unwrap_or(0));
        }
        self.member.get()
    }

    fn lock(&self, member: u32) -> bool {
        let lock = byte(libc::F_WRLCK as c_short, member);
        fcntl(self.file.as_fd(), FcntlArg::F_OFD_SETLK(&lock)).is_ok()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our mapping; nobody uses it any more. It leaves `sigbus`'s list only after that: an
        // address that is used anew by then would be somebody else's, but a SIGBUS in it, in
        // between, would need a truncated file there as well.
        unsafe { libc::munmap(self.words.as_ptr().cast(), LENGTH) };
    }
}

fn byte(kind: c_short, member: u32) -> libc::flock {
    // SAFETY: a plain structure of numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind;
    lock.l_whence = libc::SEEK_SET as c_short;
    lock.l_start = (MEMBERS + i64::from(member)) as off_t;
    lock.l_len = 1;
    lock
}

impl Machine for Mapped {
    fn load(&self, word: Word) -> u64 {
        self.word(word).load(SeqCst)
    }

    fn store(&self, word: Word, value: u64) {
        self.word(word).store(value, SeqCst);
    }

    fn replace(&self, word: Word, old: u64, new: u64) -> bool {
        self.word(word)
            .compare_exchange(old, new, SeqCst, SeqCst)
            .is_ok()
    }

    fn add(&self, word: Word, value: u64) -> u64 {
        self.word(word).fetch_add(value, SeqCst).wrapping_add(value)
    }

    fn now(&self) -> u64 {
        now()
    }

    fn park(&self, word: Word, expected: u64, until: u64) {
        // FUTEX_WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC. Not private: other processes
        // wake us. What it answers does not matter, the caller looks for itself.
        let until = libc::timespec {
            tv_sec: (until / 1_000_000_000) as libc::time_t,
            tv_nsec: (until % 1_000_000_000) as c_long,
        };
        // SAFETY: an aligned address in our mapping (a bad one would be EFAULT), and a timespec.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.futex(word),
                libc::FUTEX_WAIT_BITSET,
                expected as u32,
                &until,
                ptr::null::<u32>(),
                libc::FUTEX_BITSET_MATCH_ANY,
            )
        };
    }

    fn wake(&self, word: Word, most: u32) -> u32 {
        // SAFETY: an aligned address in our mapping.
        let woken =
            unsafe { libc::syscall(libc::SYS_futex, self.futex(word), libc::FUTEX_WAKE, most) };
        u32::try_from(woken).unwrap_or(0)
    }

    fn is_alive(&self, member: u32) -> bool {
        // An open file's own locks do not show in its own eyes.
        if member == 0 || member == self.member.get() {
            return true;
        }
        let mut lock = byte(libc::F_WRLCK as c_short, member);
        let asked = fcntl(self.file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock));
        asked.is_err() || lock.l_type != libc::F_UNLCK as c_short
    }

    fn random(&self) -> u32 {
        random()
    }
}

/// Nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
pub fn now() -> u64 {
    // SAFETY: clock_gettime fills the structure; this clock exists on every Linux.
    let time = unsafe {
        let mut time = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time);
        time
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Different for each thread and moment: good enough to keep sleepers from waking in step.
pub fn random() -> u32 {
    thread_local! {
        static STATE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }
    STATE.with(|state| {
        // splitmix64, by Sebastiano Vigna.
        let seed = match state.get() {
            0 => {
                now()
                    ^ (std::ptr::from_ref(state) as u64).rotate_left(32)
                    ^ u64::from(std::process::id()) << 16
            }
            seed => seed,
        };
        let next = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    })
}
