//! `base=`: another shim underneath.
//!
//! The shim `moved` keeps every named file at its path with `.moved` behind, so a call that went to
//! `unix` instead of to it is seen; its file is larger than `unix`'s, so it does not fit behind ours.

mod support;

use rusqlite::{Connection, OpenFlags, ffi};
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::ptr;
use std::sync::Once;

const EXTRA: c_int = 5000;

fn unix() -> *mut ffi::sqlite3_vfs {
    // SAFETY: plain use of the C API.
    unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) }
}

/// Registers a copy of `unix` as `name`, with the methods that `change` puts in.
fn register(name: &'static CStr, change: impl FnOnce(&mut ffi::sqlite3_vfs)) {
    // SAFETY: unix is registered and stays; the copy is leaked.
    unsafe {
        let mut vfs = ptr::read(unix());
        vfs.zName = name.as_ptr();
        vfs.pNext = ptr::null_mut();
        change(&mut vfs);
        let vfs = Box::leak(Box::new(vfs));
        assert_eq!(ffi::sqlite3_vfs_register(vfs, 0), ffi::SQLITE_OK);
    }
}

/// The name with `.moved` behind, terminated twice: unixOpen looks for URI parameters behind it.
unsafe fn moved(name: *const c_char) -> *const c_char {
    // SAFETY: a path of SQLite's. Leaked, since xOpen's name has to live as long as the file.
    let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap();
    Box::leak(format!("{name}.moved\0\0").into_boxed_str())
        .as_ptr()
        .cast()
}

unsafe extern "C" fn x_open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the arguments of xOpen; the last byte of the file we asked for is written.
    unsafe {
        let last = (*unix()).szOsFile + EXTRA - 1;
        *file.byte_add(last as usize).cast::<u8>() = 0xff;
        let name = if name.is_null() { name } else { moved(name) };
        ((*unix()).xOpen.unwrap())(unix(), name, file, flags, out)
    }
}

unsafe extern "C" fn x_delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: the arguments of xDelete.
    unsafe { ((*unix()).xDelete.unwrap())(unix(), moved(name), sync) }
}

unsafe extern "C" fn x_access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the arguments of xAccess.
    unsafe { ((*unix()).xAccess.unwrap())(unix(), moved(name), flags, out) }
}

fn set_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        turnstile::register(turnstile::Options::default()).unwrap();
        register(c"moved", |vfs| {
            vfs.szOsFile += EXTRA;
            vfs.xOpen = Some(x_open);
            vfs.xDelete = Some(x_delete);
            vfs.xAccess = Some(x_access);
        });
        register(c"circle", |vfs| {
            // SAFETY: it is registered.
            vfs.szOsFile = unsafe { (*ffi::sqlite3_vfs_find(c"turnstile".as_ptr())).szOsFile };
            vfs.xOpen = Some(open_in_turnstile);
        });
    });
}

fn connect(path: &Path, parameters: &str) -> rusqlite::Result<Connection> {
    let uri = format!("file:{}?vfs=turnstile{parameters}", support::encoded(path));
    Connection::open_with_flags(uri, OpenFlags::default())
}

fn names(dir: &Path) -> Vec<String> {
    let name =
        |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(name).collect();
    // Every database that was written has its queue beside it, where its path says.
    names.retain(|name| !name.ends_with("-turnstile"));
    names.sort();
    names
}

#[test]
fn every_call_for_a_database_goes_to_the_base_in_its_uri() -> rusqlite::Result<()> {
    set_up();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    for mode in ["delete", "truncate", "persist", "wal"] {
        let db = connect(&path, "&base=moved")?;
        db.pragma_update(None, "journal_mode", mode)?;
        db.execute_batch("CREATE TABLE IF NOT EXISTS t(x); BEGIN; INSERT INTO t VALUES(1)")?;
        let stray = names(dir.path())
            .into_iter()
            .find(|n| !n.ends_with(".moved") && !n.ends_with("-shm"));
        assert_eq!(stray, None, "{mode}");
        db.execute_batch("COMMIT")?;
    }
    let db = connect(&path, "&base=moved")?;
    db.pragma_update(None, "journal_mode", "delete")?;
    assert_eq!(
        names(dir.path()),
        ["a.db.moved"],
        "journals were deleted where they are"
    );
    // Beside it, a database on the registered base.
    let stock = connect(&dir.path().join("b.db"), "")?;
    stock.execute_batch("CREATE TABLE t(x)")?;
    assert_eq!(names(dir.path()), ["a.db.moved", "b.db"]);
    Ok(())
}

/// The hot journal of a database elsewhere is looked for elsewhere.
#[test]
fn a_hot_journal_is_found_through_the_base() -> rusqlite::Result<()> {
    set_up();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let db = connect(&at("a.db"), "&base=moved")?;
    db.execute_batch(
        "CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(9000)); PRAGMA cache_size=1",
    )?;
    db.execute_batch(
        "BEGIN IMMEDIATE; UPDATE t SET x='half'; INSERT INTO t SELECT zeroblob(90000)",
    )?;
    std::fs::copy(at("a.db-journal.moved"), at("b.db-journal.moved")).unwrap();
    std::fs::copy(at("a.db.moved"), at("b.db.moved")).unwrap();
    let after = connect(&at("b.db"), "&base=moved")?;
    let half: i64 = after.query_row("SELECT count(*) FROM t WHERE x='half'", [], |r| r.get(0))?;
    assert_eq!(half, 0);
    assert!(!at("b.db-journal.moved").exists());
    Ok(())
}

unsafe extern "C" fn open_in_turnstile(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the arguments of xOpen; `circle` asked for as much room as turnstile does.
    unsafe {
        let turnstile = ffi::sqlite3_vfs_find(c"turnstile".as_ptr());
        ((*turnstile).xOpen.unwrap())(turnstile, name, file, flags, out)
    }
}

#[test]
fn a_base_that_lies_on_turnstile_is_an_error_and_not_a_stack_overflow() {
    set_up();
    let dir = tempfile::tempdir().unwrap();
    let error = connect(&dir.path().join("a.db"), "&base=circle").unwrap_err();
    assert_eq!(
        error.sqlite_error().unwrap().extended_code,
        ffi::SQLITE_ERROR
    );
    let error = connect(&dir.path().join("a.db"), "&base=turnstile");
    assert_eq!(
        error.unwrap_err().sqlite_error().unwrap().extended_code,
        ffi::SQLITE_ERROR
    );
}

/// A file of the base that is larger than the room behind ours lies elsewhere, and not over what
/// follows that room.
#[test]
fn a_larger_file_of_the_base_stays_out_of_others_memory() {
    set_up();
    let dir = tempfile::tempdir().unwrap();
    let path = CString::new(dir.path().join("a.db").to_str().unwrap()).unwrap();
    // SAFETY: plain use of the C API, and the methods of an open file.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(c"turnstile".as_ptr());
        let room = (*vfs).szOsFile as usize / 8;
        let mut memory = vec![0x5a5a_5a5a_5a5a_5a5a_u64; room + 1000];
        let file: *mut ffi::sqlite3_file = memory.as_mut_ptr().cast();
        let mut parameters = [c"base".as_ptr(), c"moved".as_ptr()];
        let none = c"".as_ptr();
        let name =
            ffi::sqlite3_create_filename(path.as_ptr(), none, none, 1, parameters.as_mut_ptr());
        let flags = ffi::SQLITE_OPEN_READWRITE
            | ffi::SQLITE_OPEN_CREATE
            | ffi::SQLITE_OPEN_MAIN_DB
            | ffi::SQLITE_OPEN_URI;
        let code = (*vfs).xOpen.unwrap()(vfs, name, file, flags, ptr::null_mut());
        assert_eq!(code, ffi::SQLITE_OK);
        assert!(
            memory[room..]
                .iter()
                .all(|&word| word == 0x5a5a_5a5a_5a5a_5a5a)
        );
        assert_eq!((*(*file).pMethods).xClose.unwrap()(file), ffi::SQLITE_OK);
        ffi::sqlite3_free_filename(name);
    }
    assert_eq!(names(dir.path()), ["a.db.moved"]);
}

/// A database whose path merely begins with that of one elsewhere is none of its journals: it keeps
/// its own where they belong, and a hot one is found.
#[test]
fn a_neighbour_with_a_longer_name_stays_where_it_is() -> rusqlite::Result<()> {
    set_up();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let elsewhere = connect(&at("x"), "&base=moved")?;
    elsewhere.execute_batch("CREATE TABLE t(x)")?;
    let neighbour = connect(&at("x2.db"), "")?;
    neighbour.execute_batch("PRAGMA journal_mode=persist; CREATE TABLE t(x)")?;
    neighbour.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES(1)")?;
    assert_eq!(names(dir.path()), ["x.moved", "x2.db", "x2.db-journal"]);
    Ok(())
}

/// memdb is in memory and has no xDelete.
#[test]
fn a_base_without_every_method() -> rusqlite::Result<()> {
    set_up();
    let dir = tempfile::tempdir().unwrap();
    let db = connect(&dir.path().join("a.db"), "&base=memdb")?;
    db.execute_batch("CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES(1); COMMIT")?;
    let count: i64 = db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
    assert_eq!((count, names(dir.path())), (1, vec![]));
    Ok(())
}
