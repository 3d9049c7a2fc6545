//! Rust ends the process when an allocation fails; SQLite's users are promised SQLITE_NOMEM. Each of
//! our allocations is made to fail in turn: if one is not provided for, this test program is gone.

use rusqlite::ffi;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{CString, c_int};
use std::ptr;

/// The system's allocator, but for the allocation of this thread that is to fail.
struct Failing;

thread_local! {
    /// How many allocations there are until the one that fails; 0: none will.
    static LEFT: Cell<u32> = const { Cell::new(0) };
    static COUNTED: Cell<u32> = const { Cell::new(0) };
}

// SAFETY: it is the system's allocator, which may fail, too.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTED.set(COUNTED.get() + 1);
        let left = LEFT.get();
        LEFT.set(left.saturating_sub(1));
        match left {
            1 => ptr::null_mut(),
            // SAFETY: the caller's promise.
            _ => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Opens, writes and closes with the n-th allocation failing: the result, and how many there were.
/// Through the C API, so that all allocations of Rust are ours.
fn work(uri: &CString, fails: u32) -> (c_int, u32) {
    let mut db = ptr::null_mut();
    let sql = c"CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES(1)".as_ptr();
    let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_URI;
    COUNTED.set(0);
    LEFT.set(fails);
    // SAFETY: plain use of the C API.
    let code = unsafe {
        let mut code = ffi::sqlite3_open_v2(uri.as_ptr(), &mut db, flags, ptr::null());
        if code == ffi::SQLITE_OK {
            code = ffi::sqlite3_exec(db, sql, None, ptr::null_mut(), ptr::null_mut());
        }
        ffi::sqlite3_close(db);
        code
    };
    LEFT.set(0);
    (code, COUNTED.get())
}

#[test]
fn every_allocation_may_fail() {
    // The first registration counts, too.
    LEFT.set(1);
    let refused = turnstile::register(turnstile::Options::default());
    LEFT.set(0);
    assert_eq!(refused.unwrap_err().code(), ffi::SQLITE_NOMEM);
    turnstile::register(turnstile::Options::default()).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let long = format!("no/{}", "d".repeat(400));
    for (name, parameters, expected) in [
        ("a.db", "", ffi::SQLITE_OK),
        ("a.db", "&base=memdb", ffi::SQLITE_OK),
        ("a.db", "&base=unix-none&foo=%ff", ffi::SQLITE_OK),
        ("a.db", "&fs=nfs", ffi::SQLITE_ERROR),
        ("a.db", "&Quantum=1", ffi::SQLITE_ERROR),
        ("no/a.db", "", ffi::SQLITE_CANTOPEN),
        (&long, "", ffi::SQLITE_CANTOPEN),
    ] {
        let uri = format!("file:{}?vfs=turnstile{parameters}", path(name));
        let uri = CString::new(uri).unwrap();
        let (code, allocations) = work(&uri, 0);
        assert_eq!(code, expected, "{uri:?}");
        for n in 1..=allocations {
            let (code, _) = work(&uri, n);
            assert!(
                code == ffi::SQLITE_NOMEM || code == expected,
                "{uri:?}, allocation {n}: {code}"
            );
        }
    }
}
