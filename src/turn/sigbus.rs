//! A sidecar that is truncated under us: the next access to its pages is a SIGBUS.
//!
//! No check beforehand helps, since the file can be cut between the check and the access; and
//! the accesses of an uncontended transaction shall be plain loads. So the process gets a handler
//! that puts zeroed private memory in the place of *our* mappings, where the line is then found to be
//! garbage and left. Every other SIGBUS goes to the handler that was there before.
//!
//! Limits: a host that installs a handler of its own later and does not pass on what is not its
//! own, or that blocks SIGBUS in its threads, is not protected from somebody who truncates the sidecar (nor is it from somebody
//! who truncates SQLite's own `-shm`).

use super::layout::{Line, WORDS, Word};
use libc::{c_int, c_void, siginfo_t};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Bytes of a mapping.
pub const LENGTH: usize = WORDS * 8;

/// Connections of one process that can have a mapping; further ones do without the line.
const MOST: usize = 4096;

/// The addresses of all mappings. An array, because a signal handler can take no lock.
static MAPPINGS: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
/// The entries in use are below this one.
static USED: AtomicUsize = AtomicUsize::new(0);

/// A registered mapping.
pub struct Guarded(usize);

/// Protects the mapping at `address`. `None` if there are too many.
pub fn guard(address: *mut c_void) -> Option<Guarded> {
    install()?;
    for (at, entry) in MAPPINGS.iter().enumerate() {
        let free = entry.compare_exchange(0, address as usize, Ordering::SeqCst, Ordering::Relaxed);
        if free.is_ok() {
            USED.fetch_max(at + 1, Ordering::SeqCst);
            return Some(Guarded(at));
        }
    }
    None
}

impl Drop for Guarded {
    fn drop(&mut self) {
        MAPPINGS[self.0].store(0, Ordering::SeqCst);
    }
}

/// The handler that was there before ours.
static mut BEFORE: MaybeUninit<libc::sigaction> = MaybeUninit::uninit();

/// Installs the handler, once.
fn install() -> Option<()> {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.load(Ordering::SeqCst) {
        return Some(());
    }
    if BEGUN.swap(true, Ordering::SeqCst) {
        // Another thread is at it; this connection does without for now.
        return DONE.load(Ordering::SeqCst).then_some(());
    }
    // SAFETY: the structure is completely set; the handler is async-signal-safe. BEFORE is written
    // once, before the handler can run, and never changed.
    unsafe {
        let mut before = MaybeUninit::uninit();
        libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr());
        (&raw mut BEFORE).write(before);
        let mut ours: libc::sigaction = std::mem::zeroed();
        ours.sa_sigaction = handle as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&mut ours.sa_mask);
        if libc::sigaction(libc::SIGBUS, &ours, ptr::null_mut()) != 0 {
            return None;
        }
    }
    DONE.store(true, Ordering::SeqCst);
    Some(())
}

/// Async-signal-safe: atomics, mmap and sigaction only.
unsafe extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: SA_SIGINFO: the kernel passes a complete structure.
    let address = unsafe { (*info).si_addr() } as usize;
    let used = USED.load(Ordering::SeqCst).min(MOST);
    for entry in &MAPPINGS[..used] {
        let start = entry.load(Ordering::SeqCst);
        if start != 0 && (start..start + LENGTH).contains(&address) {
            // SAFETY: a mapping of ours of just this length. All access to it is atomic and takes
            // any content. A line that seems to be standing sends everybody to look closer.
            unsafe {
                let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let new = libc::mmap(start as *mut c_void, LENGTH, access, flags, -1, 0);
                if new != libc::MAP_FAILED {
                    let line = new.cast::<AtomicU64>().add(Word::Line.index());
                    (*line).store(Line { head: 0, tail: 1 }.into(), Ordering::SeqCst);
                    return;
                }
            }
        }
    }
    // SAFETY: BEFORE is what sigaction answered when ours was installed, so it is a handler of
    // the kind that its flags say.
    unsafe {
        let before = &*(&raw const BEFORE).cast::<libc::sigaction>();
        match before.sa_sigaction {
            // The access will be tried again and end the process, as it would have without us.
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &default, ptr::null_mut());
                // Sent by somebody, and not an access that will be repeated.
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
            theirs if before.sa_flags & libc::SA_SIGINFO != 0 => {
                let theirs: unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                    std::mem::transmute(theirs);
                theirs(signal, info, context);
            }
            theirs => {
                let theirs: unsafe extern "C" fn(c_int) = std::mem::transmute(theirs);
                theirs(signal);
            }
        }
    }
}
