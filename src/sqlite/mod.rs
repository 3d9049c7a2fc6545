//! The few SQLite functions that turnstile calls; the only place that knows how they are obtained.
//!
//! The core never names a `sqlite3_*` symbol: it calls through a [`Sqlite`], a structure of function
//! pointers that a C door fills (`c/extension.c` from the routines of the SQLite that loads us,
//! `c/linked.c` from the linker). So the extension cannot bring a second SQLite into the process,
//! and two SQLites in one process that load the same extension each get their own.

pub mod abi;
#[cfg(feature = "linked")]
pub mod linked;

use crate::text::{Text, utf8};
use abi::*;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};

/// The functions of one SQLite library. `struct turnstile_sqlite` in `c/core.h`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sqlite {
    vfs_find: unsafe extern "C" fn(*const c_char) -> *mut sqlite3_vfs,
    vfs_register: unsafe extern "C" fn(*mut sqlite3_vfs, c_int) -> c_int,
    log: unsafe extern "C" fn(c_int, *const c_char, ...),
    uri_parameter: unsafe extern "C" fn(*const c_char, *const c_char) -> *const c_char,
    uri_key: Option<unsafe extern "C" fn(*const c_char, c_int) -> *const c_char>,
    mprintf: unsafe extern "C" fn(*const c_char, ...) -> *mut c_char,
    free: unsafe extern "C" fn(*mut c_void),
    busy_handler: unsafe extern "C" fn(*mut c_void, Option<BusyHandler>, *mut c_void) -> c_int,
    txn_state: Option<unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int>,
    db_name: Option<unsafe extern "C" fn(*mut c_void, c_int) -> *const c_char>,
    db_filename: unsafe extern "C" fn(*mut c_void, *const c_char) -> *const c_char,
    is_interrupted: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    open: unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, *const c_char) -> c_int,
    close: unsafe extern "C" fn(*mut c_void) -> c_int,
    exec: unsafe extern "C" fn(
        *mut c_void,
        *const c_char,
        Option<
            unsafe extern "C" fn(*mut c_void, c_int, *mut *mut c_char, *mut *mut c_char) -> c_int,
        >,
        *mut c_void,
        *mut *mut c_char,
    ) -> c_int,
}

/// What `sqlite3_busy_handler` takes.
pub type BusyHandler = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;

impl Sqlite {
    /// The registered VFS of that name; `None` for the default one.
    pub fn find(&self, name: Option<&CStr>) -> Option<NonNull<sqlite3_vfs>> {
        let name = name.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: sqlite3_vfs_find takes NULL or a terminated string and initializes SQLite itself.
        NonNull::new(unsafe { (self.vfs_find)(name) })
    }

    /// Puts `vfs` on SQLite's list, in front (the default) or behind the front.
    ///
    /// # Safety
    /// `vfs` is complete and stays where it is for as long as the process lives.
    pub unsafe fn register(&self, vfs: NonNull<sqlite3_vfs>, make_default: bool) -> c_int {
        // SAFETY: the caller's promise is what sqlite3_vfs_register asks for.
        unsafe { (self.vfs_register)(vfs.as_ptr(), c_int::from(make_default)) }
    }

    /// One line to `sqlite3_log`, the library's only voice.
    ///
    /// SQLite cuts a line at 209 bytes (`renderLogMsg`): what matters goes first.
    pub fn log(&self, code: c_int, line: impl fmt::Display) {
        let line = Text::new(line);
        // SAFETY: "%s" takes one terminated string.
        unsafe { (self.log)(code, c"%s".as_ptr(), line.as_c_str().as_ptr()) }
    }

    /// Calls `each` with every key and value in the query of the URI that `name` was opened with.
    /// SQLite before 3.31 cannot list the keys; there, only those in `known` are looked for.
    ///
    /// # Safety
    /// `name` was handed to `xOpen` by SQLite together with SQLITE_OPEN_URI: the query then stands
    /// behind the name's terminator, which is where `sqlite3_uri_parameter` reads it.
    pub unsafe fn uri_parameters<E>(
        &self,
        name: *const c_char,
        known: impl Iterator<Item = &'static CStr>,
        mut each: impl FnMut(&str, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut visit = |key: *const c_char| {
            // SAFETY: the caller's promise; a NULL answer means that the key is not there.
            let value = unsafe { (self.uri_parameter)(name, key) };
            if value.is_null() {
                return Ok(());
            }
            // SAFETY: both are terminated strings that live as long as `name` does.
            let (key, value) = unsafe { (text(key), text(value)) };
            each(key, value)
        };
        let Some(uri_key) = self.uri_key else {
            return known.map(CStr::as_ptr).try_for_each(visit);
        };
        // SAFETY: as for uri_parameter; NULL ends the list.
        (0..)
            .map(|n| unsafe { uri_key(name, n) })
            .take_while(|key| !key.is_null())
            .try_for_each(&mut visit)
    }

    /// Opens the database at `path` for writing, by the VFS of that name and with a cache of its own, executes `sql` and
    /// closes it.
    pub fn execute_once(&self, path: &CStr, vfs: &CStr, sql: &CStr) -> c_int {
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE;
        let mut db = ptr::null_mut();
        // SAFETY: terminated strings; the connection is this function's alone, and closed even if its open failed.
        unsafe {
            let mut code = (self.open)(path.as_ptr(), &mut db, flags, vfs.as_ptr());
            if code == SQLITE_OK {
                code = (self.exec)(db, sql.as_ptr(), None, ptr::null_mut(), ptr::null_mut());
            }
            (self.close)(db);
            code
        }
    }

    /// Installs a busy handler, or removes it.
    ///
    /// # Safety
    /// `db` is an open connection; `argument` is what `handler` takes.
    pub unsafe fn set_busy_handler(
        &self,
        db: *mut c_void,
        handler: Option<BusyHandler>,
        argument: *mut c_void,
    ) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { (self.busy_handler)(db, handler, argument) }
    }

    /// How far `db` is in a transaction of the database that `xOpen` was called for with `filename`: SQLITE_TXN_NONE,
    /// READ or WRITE. NONE if this SQLite cannot tell (before 3.34); before 3.39, or if a VFS above us has
    /// changed the name, that of any of its databases.
    ///
    /// # Safety
    /// `db` is an open connection, and we are inside of a call of it.
    pub unsafe fn transaction(&self, db: *mut c_void, filename: &CStr) -> c_int {
        let Some(state) = self.txn_state else {
            return SQLITE_TXN_NONE;
        };
        let name = self.db_name.and_then(|name| {
            // SAFETY: the caller's promise; NULL ends the list of names.
            let names = (0..).map(|n| unsafe { name(db, n) });
            let mut names = names.take_while(|name| !name.is_null());
            // SAFETY: as above. SQLite opens a file by the very string that it has for its name.
            let file = |name| unsafe { (self.db_filename)(db, name) };
            names.find(|name| ptr::eq(file(*name), filename.as_ptr()))
        });
        // SAFETY: as above; NULL means any of its databases.
        unsafe { state(db, name.unwrap_or(ptr::null())) }
    }

    /// Whether `sqlite3_interrupt` was called; `None` if this SQLite cannot tell (before 3.41).
    ///
    /// # Safety
    /// `db` is an open connection.
    pub unsafe fn is_interrupted(&self, db: *mut c_void) -> Option<bool> {
        // SAFETY: the caller's promise.
        self.is_interrupted.map(|asked| unsafe { asked(db) } != 0)
    }

    /// SQLITE_FCNTL_VFSNAME, after the base has answered: puts our name before the base's.
    ///
    /// # Safety
    /// `answer` holds NULL or a string from `sqlite3_malloc`, as that file control has it.
    pub unsafe fn prefix_vfs_name(&self, answer: *mut *mut c_char, ours: &CStr) {
        // SAFETY: the caller's promise; sqlite3_mprintf returns NULL when memory is out, and a NULL
        // answer is one that the file control allows.
        unsafe {
            let base = *answer;
            *answer = match base.is_null() {
                true => (self.mprintf)(c"%s".as_ptr(), ours.as_ptr()),
                false => (self.mprintf)(c"%s/%s".as_ptr(), ours.as_ptr(), base),
            };
            (self.free)(base.cast());
        }
    }
}

/// A C string as text.
///
/// # Safety
/// `string` is terminated and lives as long as the answer is used.
pub unsafe fn text<'a>(string: *const c_char) -> &'a str {
    // SAFETY: the caller's promise.
    utf8(unsafe { CStr::from_ptr(string) }.to_bytes())
}
