//! No panic crosses into C. Every method is made to panic, answers with its own error, leaves one
//! line in the log, and works again afterwards. Built with the feature `inject`.
#![cfg(feature = "inject")]

mod support;

use rusqlite::{Connection, OpenFlags, ffi};
use std::ffi::{CString, c_char, c_int, c_void};
use std::process::Command;
use std::ptr;
use std::sync::{Mutex, MutexGuard, Once};
use turnstile::inject;

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// One test at a time: the armed point is the process's.
static TURN: Mutex<()> = Mutex::new(());

fn set_up() -> MutexGuard<'static, ()> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        fn keep(_: c_int, line: &str) {
            LOG.lock().unwrap().push(line.to_owned());
        }
        // SAFETY: nothing has used SQLite yet.
        unsafe { rusqlite::trace::config_log(Some(keep)).unwrap() };
        turnstile::register(turnstile::Options::default()).unwrap();
    });
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `call` with the point armed, then disarmed: what it answers then.
#[track_caller]
fn panicking<T>(method: &str, mut call: impl FnMut() -> T) -> (T, T) {
    LOG.lock().unwrap().clear();
    inject::arm(Some(method));
    let panicked = call();
    inject::arm(None);
    let line =
        format!("turnstile: {method} panicked, please report this bug: injected into {method}");
    let log = LOG.lock().unwrap().clone();
    assert_eq!(
        log.iter().filter(|l| **l == line).count(),
        1,
        "{method}: {log:?}"
    );
    (panicked, call())
}

#[track_caller]
fn fails(method: &str, code: c_int, call: impl FnMut() -> c_int) {
    assert_eq!(panicking(method, call), (code, ffi::SQLITE_OK), "{method}");
}

#[test]
fn every_method_of_the_vfs() {
    let _turn = set_up();
    let dir = tempfile::tempdir().unwrap();
    let path = CString::new(dir.path().join("a.db").to_str().unwrap()).unwrap();
    let path = path.as_ptr();
    // SAFETY: each method is called with the arguments that it takes.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(c"turnstile".as_ptr());
        let v = *vfs;
        let mut out = 0;
        let mut text: [c_char; 600] = [0; 600];
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_MAIN_DB;
        let mut room = vec![0_u64; v.szOsFile as usize / 8 + 1];
        let file: *mut ffi::sqlite3_file = room.as_mut_ptr().cast();
        fails("xOpen", ffi::SQLITE_CANTOPEN, || {
            let code = v.xOpen.unwrap()(vfs, path, file, flags, &mut out);
            assert_eq!((*file).pMethods.is_null(), code != ffi::SQLITE_OK);
            code
        });
        ((*(*file).pMethods).xClose.unwrap())(file);
        fails("xAccess", ffi::SQLITE_IOERR_ACCESS, || {
            v.xAccess.unwrap()(vfs, path, 0, &mut out)
        });
        fails("xDelete", ffi::SQLITE_IOERR_DELETE, || {
            v.xDelete.unwrap()(vfs, path, 0)
        });
        fails("xFullPathname", ffi::SQLITE_CANTOPEN, || {
            v.xFullPathname.unwrap()(vfs, path, 600, text.as_mut_ptr())
        });
        let libm = c"libm.so.6".as_ptr();
        let (none, library) = panicking("xDlOpen", || v.xDlOpen.unwrap()(vfs, libm));
        assert!(none.is_null() && !library.is_null());
        let (none, symbol) = panicking("xDlSym", || {
            v.xDlSym.unwrap()(vfs, library, c"cos".as_ptr())
        });
        assert!(none.is_none() && symbol.is_some());
        panicking("xDlError", || {
            v.xDlError.unwrap()(vfs, 600, text.as_mut_ptr())
        });
        panicking("xDlClose", || v.xDlClose.unwrap()(vfs, library));
        let (none, some) = panicking("xRandomness", || {
            v.xRandomness.unwrap()(vfs, 16, text.as_mut_ptr())
        });
        assert!(none == 0 && some == 16);
        let (none, some) = panicking("xSleep", || v.xSleep.unwrap()(vfs, 10));
        assert!(none == 0 && some >= 10);
        let (mut day, mut ms) = (0.0, 0);
        fails("xCurrentTime", ffi::SQLITE_ERROR, || {
            v.xCurrentTime.unwrap()(vfs, &mut day)
        });
        fails("xCurrentTimeInt64", ffi::SQLITE_ERROR, || {
            v.xCurrentTimeInt64.unwrap()(vfs, &mut ms)
        });
        panicking("xGetLastError", || {
            v.xGetLastError.unwrap()(vfs, 600, text.as_mut_ptr())
        });
        let stat = c"stat".as_ptr();
        let (none, call) = panicking("xGetSystemCall", || v.xGetSystemCall.unwrap()(vfs, stat));
        assert!(none.is_none() && call.is_some());
        fails("xSetSystemCall", ffi::SQLITE_NOTFOUND, || {
            v.xSetSystemCall.unwrap()(vfs, stat, call)
        });
        let (none, next) = panicking("xNextSystemCall", || v.xNextSystemCall.unwrap()(vfs, stat));
        assert!(none.is_null() && !next.is_null());
    }
}

#[test]
fn every_method_of_a_file() {
    let _turn = set_up();
    let dir = tempfile::tempdir().unwrap();
    let path = CString::new(dir.path().join("a.db").to_str().unwrap()).unwrap();
    let mut buffer = [0_u8; 4096];
    let page = buffer.as_mut_ptr().cast::<c_void>();
    // SAFETY: each method is called with the arguments that it takes, on an open file.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(c"turnstile".as_ptr());
        let mut room = vec![0_u64; (*vfs).szOsFile as usize / 8 + 1];
        let file: *mut ffi::sqlite3_file = room.as_mut_ptr().cast();
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_MAIN_DB;
        let code = (*vfs).xOpen.unwrap()(vfs, path.as_ptr(), file, flags, ptr::null_mut());
        assert_eq!(code, ffi::SQLITE_OK);
        let m = *(*file).pMethods;
        assert_eq!(m.xWrite.unwrap()(file, page, 4096, 0), ffi::SQLITE_OK);
        let (mut size, mut out, mut mapped) = (0, 0, ptr::null_mut());
        fails("xRead", ffi::SQLITE_IOERR_READ, || {
            m.xRead.unwrap()(file, page, 4096, 0)
        });
        fails("xFileSize", ffi::SQLITE_IOERR_FSTAT, || {
            m.xFileSize.unwrap()(file, &mut size)
        });
        fails("xLock", ffi::SQLITE_IOERR_LOCK, || {
            m.xLock.unwrap()(file, ffi::SQLITE_LOCK_SHARED)
        });
        fails(
            "xCheckReservedLock",
            ffi::SQLITE_IOERR_CHECKRESERVEDLOCK,
            || m.xCheckReservedLock.unwrap()(file, &mut out),
        );
        fails("xWrite", ffi::SQLITE_IOERR_WRITE, || {
            m.xWrite.unwrap()(file, page, 4096, 0)
        });
        fails("xTruncate", ffi::SQLITE_IOERR_TRUNCATE, || {
            m.xTruncate.unwrap()(file, size)
        });
        fails("xSync", ffi::SQLITE_IOERR_FSYNC, || {
            m.xSync.unwrap()(file, ffi::SQLITE_SYNC_NORMAL)
        });
        let lockstate = ffi::SQLITE_FCNTL_LOCKSTATE;
        fails("xFileControl", ffi::SQLITE_IOERR, || {
            m.xFileControl.unwrap()(file, lockstate, (&raw mut out).cast())
        });
        let (default, sector) = panicking("xSectorSize", || m.xSectorSize.unwrap()(file));
        assert!(default == 4096 && sector > 0);
        let (none, _) = panicking("xDeviceCharacteristics", || {
            m.xDeviceCharacteristics.unwrap()(file)
        });
        assert_eq!(none, 0);
        fails("xShmMap", ffi::SQLITE_IOERR_SHMMAP, || {
            m.xShmMap.unwrap()(file, 0, 32768, 1, &mut mapped)
        });
        let (lock, unlock) = (ffi::SQLITE_SHM_LOCK, ffi::SQLITE_SHM_UNLOCK);
        for flags in [
            lock | ffi::SQLITE_SHM_SHARED,
            unlock | ffi::SQLITE_SHM_SHARED,
        ] {
            fails("xShmLock", ffi::SQLITE_IOERR_SHMLOCK, || {
                m.xShmLock.unwrap()(file, 4, 1, flags)
            });
        }
        panicking("xShmBarrier", || m.xShmBarrier.unwrap()(file));
        fails("xFetch", ffi::SQLITE_IOERR_MMAP, || {
            m.xFetch.unwrap()(file, 0, 4096, &mut mapped)
        });
        fails("xUnfetch", ffi::SQLITE_IOERR_MMAP, || {
            m.xUnfetch.unwrap()(file, 0, mapped)
        });
        fails("xUnlock", ffi::SQLITE_IOERR_UNLOCK, || {
            m.xUnlock.unwrap()(file, ffi::SQLITE_LOCK_SHARED)
        });
        fails("xShmUnmap", ffi::SQLITE_IOERR_SHMMAP, || {
            m.xShmUnmap.unwrap()(file, 0)
        });
        assert_eq!(m.xClose.unwrap()(file), ffi::SQLITE_OK);
    }
}

/// The base's file is closed all the same: its locks must not outlive the connection.
#[test]
fn a_panic_in_close_leaves_nothing_open() {
    let _turn = set_up();
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .filter(|target| target.starts_with(&dir))
            .count()
    };
    let path = dir.path().join("a.db");
    let db = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), "turnstile").unwrap();
    db.execute_batch("CREATE TABLE t(x)").unwrap();
    // The database and its queue.
    assert_eq!(open(), 2);
    inject::arm(Some("xClose"));
    drop(db);
    inject::arm(None);
    assert_eq!(open(), 0);
}

/// The extension in Debian's Python: whichever method panics, Python lives, prints nothing of ours, and
/// the error is SQLite's. Each method is armed before the workload that calls them all.
#[test]
fn python_survives_a_panic_in_any_method_of_the_extension() {
    const PYTHON: &str = "/usr/bin/python3";
    let test = "python_survives_a_panic_in_any_method_of_the_extension";
    if !support::has_program(test, PYTHON, "python3") {
        return;
    }
    let script = "
import sqlite3, sys
so, dir = sys.argv[1:]
db = sqlite3.connect(':memory:')
db.enable_load_extension(True)
try:
    db.load_extension(so)
except sqlite3.OperationalError as e:
    print(e)
    sys.exit()
for mode in 'wal', 'delete':
    try:
        db = sqlite3.connect(f'file:{dir}/{mode}.db?vfs=turnstile', uri=True)
        db.execute('PRAGMA mmap_size=100000')
        db.execute(f'PRAGMA journal_mode={mode}')
        db.execute('CREATE TABLE IF NOT EXISTS t(x)')
        with db: db.execute('INSERT INTO t VALUES(1)')
        db.execute('SELECT x, random(), datetime() FROM t').fetchall()
        db.close()
    except sqlite3.Error as e:
        print(e)
print('alive')
";
    let methods = [
        "xOpen",
        "xDelete",
        "xAccess",
        "xFullPathname",
        "xRandomness",
        "xCurrentTimeInt64",
        "xClose",
        "xRead",
        "xWrite",
        "xSync",
        "xFileSize",
        "xLock",
        "xUnlock",
        "xCheckReservedLock",
        "xFileControl",
        "xSectorSize",
        "xDeviceCharacteristics",
        "xShmMap",
        "xShmLock",
        "xShmBarrier",
        "xShmUnmap",
        "xFetch",
        "xUnfetch",
    ];
    let run = |point: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut python = Command::new(PYTHON);
        python
            .args(["-c", script])
            .arg(support::extension())
            .arg(dir.path());
        let output = support::succeed(python.env("TURNSTILE_INJECT_PANIC", point));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{point}");
        String::from_utf8(output.stdout).unwrap()
    };
    for method in methods {
        let said = run(method);
        assert!(said.ends_with("alive\n"), "{method}: {said}");
    }
    let said = run("register");
    assert!(
        said.ends_with("turnstile: panicked; sqlite3_log has the reason\n"),
        "{said}"
    );
}
