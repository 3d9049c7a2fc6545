//! The shim that people write first: system calls that failed with EIO are called again, and nothing is
//! asked. Below stock SQLite in a worker whose environment has `TURNSTILE_TEST_NAIVE`.
//!
//! A file that uses it has `#[test] fn worker_process() { worker::serve_with(naive::begin) }`.

use rusqlite::ffi;
use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub const NAIVE: &str = "TURNSTILE_TEST_NAIVE";

static ON: AtomicBool = AtomicBool::new(false);

pub fn begin() {
    if std::env::var_os(NAIVE).is_none() {
        return;
    }
    ON.store(true, Relaxed);
    let calls = [
        (c"open", open as *const c_void),
        (c"read", read as *const c_void),
        (c"write", write as *const c_void),
        (c"pread", pread as *const c_void),
        (c"pwrite", pwrite as *const c_void),
        (c"pread64", pread as *const c_void),
        (c"pwrite64", pwrite as *const c_void),
        (c"ftruncate", ftruncate as *const c_void),
        (c"fstat", fstat as *const c_void),
        (c"stat", stat as *const c_void),
        (c"unlink", unlink as *const c_void),
        (c"fcntl", fcntl as *const c_void),
    ];
    for (name, call) in calls {
        // SAFETY: each has the signature that the `unix` VFS calls it with.
        let code = unsafe {
            let vfs = ffi::sqlite3_vfs_find(c"unix".as_ptr());
            let set = (*vfs).xSetSystemCall.expect("unix has it");
            set(
                vfs,
                name.as_ptr(),
                std::mem::transmute::<*const c_void, ffi::sqlite3_syscall_ptr>(call),
            )
        };
        assert_eq!(code, ffi::SQLITE_OK, "{name:?}");
    }
}

fn again<T: PartialOrd + From<i8>>(call: impl Fn() -> T) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let result = call();
        let failed = result < T::from(0)
            && std::io::Error::last_os_error().raw_os_error() == Some(libc::EIO);
        if !failed || !ON.load(Relaxed) || Instant::now() > end {
            return result;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

// SAFETY of all: what SQLite gives is passed on.

extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    again(|| unsafe { libc::open(path, flags, mode) })
}

extern "C" fn read(fd: c_int, buffer: *mut c_void, size: usize) -> isize {
    again(|| unsafe { libc::read(fd, buffer, size) })
}

extern "C" fn write(fd: c_int, buffer: *const c_void, size: usize) -> isize {
    again(|| unsafe { libc::write(fd, buffer, size) })
}

extern "C" fn pread(fd: c_int, buffer: *mut c_void, size: usize, at: i64) -> isize {
    again(|| unsafe { libc::pread(fd, buffer, size, at) })
}

extern "C" fn pwrite(fd: c_int, buffer: *const c_void, size: usize, at: i64) -> isize {
    again(|| unsafe { libc::pwrite(fd, buffer, size, at) })
}

extern "C" fn ftruncate(fd: c_int, size: i64) -> c_int {
    again(|| unsafe { libc::ftruncate(fd, size) })
}

extern "C" fn fstat(fd: c_int, status: *mut libc::stat) -> c_int {
    again(|| unsafe { libc::fstat(fd, status) })
}

extern "C" fn stat(path: *const c_char, status: *mut libc::stat) -> c_int {
    again(|| unsafe { libc::stat(path, status) })
}

extern "C" fn unlink(path: *const c_char) -> c_int {
    again(|| unsafe { libc::unlink(path) })
}

extern "C" fn fcntl(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
    again(|| unsafe { libc::fcntl(fd, command, argument) })
}

/// The `unix` VFS does not let this one be replaced, but the linker does: SQLite is in this program.
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    again(|| unsafe { libc::syscall(libc::SYS_fsync, fd) as c_int })
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    again(|| unsafe { libc::syscall(libc::SYS_fdatasync, fd) as c_int })
}
