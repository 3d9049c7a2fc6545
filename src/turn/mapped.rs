//! The line's machine on one computer: a shared mapping, futexes, and signal 0.
//!
//! Why no byte locks, which the kernel frees however their owner dies: Linux keeps a file's locks in a list that each
//! lock, unlock and close walks from its beginning (`posix_lock_inode`). With a thousand waiters that is 12 µs a
//! walk; a lock for each waiter cost 36 µs of a write's 600. They are also inherited
//! by `fork`, and then outlive their owner.

use super::layout::{WORDS, Word};
use super::machine::Machine;
use super::sigbus::{self, Guarded, LENGTH};
use libc::c_long;
use nix::errno::Errno;
use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Which file it is: device and inode.
pub type Identity = (libc::dev_t, libc::ino_t);

/// An open sidecar.
pub struct Mapped {
    words: NonNull<AtomicU64>,
    file: OwnedFd,
    /// Its device and inode, which nobody else gets while it is open.
    identity: Identity,
    /// How many connections it was handed on to.
    heirs: Cell<u32>,
    _guarded: Guarded,
}

// SAFETY: the mapping is used through atomics only.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps `file`, which is at least [`LENGTH`] bytes long. `None` if the kernel refuses.
    pub fn new(file: OwnedFd, identity: Identity) -> Option<Mapped> {
        // SAFETY: a new mapping of a file that we keep open; where, the kernel decides.
        let address = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let fd = file.as_raw_fd();
            libc::mmap(apart(), LENGTH, access, libc::MAP_SHARED, fd, 0)
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
            identity,
            heirs: Cell::new(0),
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

    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// One more connection of this process has it. Says how many there were.
    pub fn hand_on(&self) -> u32 {
        let heirs = self.heirs.get().wrapping_add(1);
        self.heirs.set(heirs);
        heirs
    }

    /// Who we are, for the eyes of others: our process, and the namespace in which its number
    /// means us.
    pub fn member(&self) -> u32 {
        std::process::id() & PID_MASK | namespace()
    }
}

/// Where we would like to be: somewhere from 64 to 128 GiB. If that is not to be had, the kernel takes another place.
///
/// By itself it would take the place right below SQLite's `-shm`, which comes and goes with each connection. Then a
/// write of a process that opens the database for each one took 375 µs instead of 310 on a virtual machine's disk, even
/// if nothing in our mapping was touched, and without a page fault, a shoot-down or a request to the disk more. (What
/// differs is how the kernel enters `-shm` into its tree of mappings: into a gap that fits exactly, or at their end.)
fn apart() -> *mut libc::c_void {
    const FROM: u64 = 64 << 30;
    let address = FROM + u64::from(random() >> 8) * 4096;
    ptr::without_provenance_mut(usize::try_from(address).unwrap_or(0))
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our mapping; nobody uses it any more. It leaves `sigbus`'s list only after that: an
        // address that is used anew by then would be somebody else's, but a SIGBUS in it, in
        // between, would need a truncated file there as well.
        unsafe { libc::munmap(self.words.as_ptr().cast(), LENGTH) };
    }
}

/// A process number's bits: PID_MAX_LIMIT is 2^22.
const PID_MASK: u32 = (1 << 22) - 1;

/// What tells our process namespace from others, in the bits above the process number. Processes in
/// other containers have numbers that mean nothing here.
fn namespace() -> u32 {
    static KNOWN: AtomicU32 = AtomicU32::new(0);
    match KNOWN.load(Relaxed) {
        0 => {
            let inode = nix::sys::stat::stat(c"/proc/self/ns/pid").map_or(0, |s| s.st_ino);
            let known = (inode as u32).wrapping_mul(0x9e37_79b1) & !PID_MASK | 1;
            KNOWN.store(known, Relaxed);
            known & !PID_MASK
        }
        known => known & !PID_MASK,
    }
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

    fn park(&self, word: Word, expected: u64, until: u64) -> bool {
        // FUTEX_WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC. Not private: other processes
        // wake us. What else it answers does not matter, the caller looks for itself.
        let until = libc::timespec {
            tv_sec: (until / 1_000_000_000) as libc::time_t,
            tv_nsec: (until % 1_000_000_000) as c_long,
        };
        // SAFETY: an aligned address in our mapping (a bad one would be EFAULT), and a timespec.
        let ended = unsafe {
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
        ended < 0 && Errno::last() == Errno::EINTR
    }

    fn wake(&self, word: Word, most: u32) -> u32 {
        // SAFETY: an aligned address in our mapping.
        let woken =
            unsafe { libc::syscall(libc::SYS_futex, self.futex(word), libc::FUTEX_WAKE, most) };
        u32::try_from(woken).unwrap_or(0)
    }

    /// By signal 0, and then by whether its parent could wait for it: one that was killed stays a
    /// zombie until then, which may be long (Python's multiprocessing waits at `join`). A process of
    /// another namespace, or one that has taken the number of a dead one, counts as alive: the watcher
    /// passes over whoever does not answer.
    fn is_alive(&self, member: u32) -> bool {
        let pid = (member & PID_MASK) as libc::pid_t;
        if member & !PID_MASK != namespace() || pid == 0 {
            return true;
        }
        // SAFETY: signal 0 only asks.
        let there = unsafe { libc::kill(pid, 0) } == 0;
        (there || Errno::last() != Errno::ESRCH) && !is_zombie(pid)
    }

    fn random(&self) -> u32 {
        random()
    }
}

/// Whether the process is over and only its number is left. If that cannot be told, it is not.
fn is_zombie(pid: libc::pid_t) -> bool {
    // SAFETY: plain system calls; the descriptor is closed on exec and nobody else's.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as libc::c_int;
        if fd < 0 {
            return false;
        }
        let mut ended = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let ready = libc::poll(&mut ended, 1, 0);
        libc::close(fd);
        ready > 0
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
