//! The VFS `turnstile`: one registration for each SQLite library in the process.
//!
//! Invariant: a registered [`Shim`] is never moved or freed, and what it says never changes. SQLite
//! keeps a pointer to it for the life of the process, other threads follow that pointer without a
//! lock, and a forked child inherits it as it stands.
//!
//! | file | idea |
//! |---|---|
//! | `rim` | the line that no panic crosses |
//! | `methods` | the methods of `sqlite3_vfs` |
//! | `file` | the methods of `sqlite3_file` |
//! | `locks` | the lock methods of a file, where the waiting is hooked in |
//! | `courtesy` | what a file knows about those who wait for its locks |
//! | `open` | how the base's file comes to lie behind ours |
//! | `network` | the same methods where other machines can reach the database |
//! | `apart` | which open database a journal's path belongs to |
//! | `base` | which VFS is underneath, if a URI names another than the registered one |
//! | `explain` | why a file could not be opened, in words |
//! | `wal` | a WAL that is there is not opened as a new one |
//! | `poison` | after a sync that has failed, nothing more is written |
//! | `memory` | allocations that can say no |

mod apart;
mod base;
mod courtesy;

mod explain;
mod file;
mod locks;
pub mod memory;
mod methods;
mod network;
mod open;
mod poison;
pub mod rim;
mod wal;

use crate::sqlite::Sqlite;
use crate::sqlite::abi::*;
use crate::text::Text;
use crate::{Error, Options};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

/// The name by which a connection chooses us. A static, so that its address tells a VFS of this
/// copy of the library from one of another copy in the same process.
static NAME: &CStr = c"turnstile";

/// What one SQLite library has registered: SQLite's part first, then ours.
#[repr(C)]
struct Shim {
    /// SQLite writes to it (`pNext`, under a mutex of its own); we do not, once it is registered.
    vfs: UnsafeCell<sqlite3_vfs>,
    sqlite: Sqlite,
    /// The VFS underneath. It answers every call that names no open database.
    base: NonNull<sqlite3_vfs>,
    /// What the program asked for; the environment and a URI override it at each open.
    options: Options,
    /// Databases whose other files need something of us.
    apart: apart::Apart,
}

/// Registers the VFS with `sqlite`, or makes sure that it is registered.
///
/// Takes no lock: two threads that come here at once may both put a shim on SQLite's list. They are
/// alike, SQLite finds one of them, and the other is never called. A lock of ours could be held by
/// another thread at a `fork`, and then hang the child.
pub fn register(sqlite: &Sqlite, program: Options) -> Result<(), Error> {
    let options = program.with_environment()?;
    let vfs = match sqlite.find(Some(NAME)) {
        Some(found) => {
            agrees(found, program)?;
            if !options.make_default || sqlite.find(None) == Some(found) {
                return Ok(());
            }
            found
        }
        None => Shim::over_base(sqlite, program, options)?,
    };
    // SAFETY: it is a complete VFS that nobody frees: a leaked Shim, or one that is registered.
    match unsafe { sqlite.register(vfs, options.make_default) } {
        SQLITE_OK => Ok(()),
        code => Err(Error::new(code, "sqlite3_vfs_register refused the VFS")),
    }
}

/// Whether the registered VFS `found` is what `program` asks for.
fn agrees(found: NonNull<sqlite3_vfs>, program: Options) -> Result<(), Error> {
    // SAFETY: it is on SQLite's list, so it is complete and stays; if the name is this very
    // string of ours, it is a Shim.
    let registered = unsafe {
        let ours = found.as_ref().zName == NAME.as_ptr();
        ours.then(|| Shim::of(found.as_ptr()).options)
    };
    let settled = |o: Options| Options {
        make_default: false,
        ..o
    };
    let asks = settled(program);
    if asks == Options::default() || registered.map(settled) == Some(asks) {
        return Ok(());
    }
    let text = "the VFS \"turnstile\" is registered already with other options; \
                register it once, before anything else does";
    Err(Error::new(SQLITE_ERROR, text))
}

impl Shim {
    /// A shim over the base that `options` names, as SQLite's list wants it. It is never freed.
    fn over_base(
        sqlite: &Sqlite,
        program: Options,
        options: Options,
    ) -> Result<NonNull<sqlite3_vfs>, Error> {
        let base = base::find(sqlite, &options)?;
        // SAFETY: a VFS on SQLite's list is complete and stays there.
        let mut vfs = methods::over(unsafe { base.as_ref() });
        vfs.zName = NAME.as_ptr();
        let shim = memory::try_box(Shim {
            vfs: UnsafeCell::new(vfs),
            sqlite: *sqlite,
            base,
            options: program,
            apart: apart::Apart::new(base),
        });
        let shim = shim.ok_or_else(|| Error::new(SQLITE_NOMEM, "out of memory"))?;
        let shim = NonNull::from(Box::leak(shim));
        // SAFETY: nobody else has the pointer yet.
        unsafe { (*shim.as_ptr()).vfs.get_mut().pAppData = shim.as_ptr().cast() };
        Ok(shim.cast())
    }

    /// The shim behind a VFS pointer that SQLite calls us with.
    ///
    /// By way of `pAppData` and not by a cast: a shim above us may have copied our `sqlite3_vfs` to
    /// change a method or two, and call the others with its copy.
    ///
    /// # Safety
    /// `vfs` is one that [`register`] registered, or such a copy.
    unsafe fn of<'a>(vfs: *mut sqlite3_vfs) -> &'a Shim {
        // SAFETY: the caller's promise; a Shim is never freed or changed.
        unsafe { &*(*vfs).pAppData.cast::<Shim>() }
    }

    /// Whether the base is one of SQLite's own.
    fn is_over_unix(&self) -> bool {
        // SAFETY: the base is on SQLite's list; its name is terminated.
        let name = unsafe { CStr::from_ptr(self.base.as_ref().zName) };
        name.to_bytes().starts_with(b"unix")
    }

    fn log(&self, code: c_int, text: impl std::fmt::Display) {
        self.sqlite.log(code, format_args!("turnstile: {text}"));
    }
}

/// The one way from C into the core; the C doors end here. See `c/core.h`.
///
/// # Safety
/// `sqlite` is a complete structure; `options` is NULL or terminated; `message` has `size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn turnstile_core_register(
    sqlite: *const Sqlite,
    options: *const c_char,
    guest: c_int,
    message: *mut c_char,
    size: c_int,
) -> c_int {
    // SAFETY: the C doors pass a complete structure.
    let sqlite = unsafe { &*sqlite };
    if guest != 0 {
        silence_panic_hook();
    }
    #[cfg(feature = "inject")]
    crate::inject::arm_from_environment();
    let panicked = Err(Error::new(
        SQLITE_ERROR,
        "panicked; sqlite3_log has the reason",
    ));
    let result = rim::guard(sqlite, "register", panicked, || {
        let program = match options.is_null() {
            true => Options::default(),
            // SAFETY: the caller's promise.
            false => Options::parse(unsafe { crate::sqlite::text(options) })?,
        };
        register(sqlite, program)
    });
    let Err(error) = result else {
        return SQLITE_OK;
    };
    let text = Text::new(format_args!("turnstile: {error}"));
    sqlite.log(error.code(), &text);
    let length = text
        .as_str()
        .len()
        .min(usize::try_from(size).unwrap_or(0).saturating_sub(1));
    if size > 0 {
        // SAFETY: `message` has room for `size` bytes, and length + 1 <= size.
        unsafe {
            ptr::copy_nonoverlapping(text.as_str().as_ptr().cast(), message, length);
            *message.add(length) = 0;
        }
    }
    error.code()
}

/// Rust's panic hook prints to stderr, which is not ours in somebody else's process. As a loadable
/// extension we have a Rust runtime of our own, so the hook is ours to replace; a panic's message
/// goes to `sqlite3_log` all the same (see `rim`). Linked into a program, the hook is the program's.
fn silence_panic_hook() {
    static SILENT: AtomicBool = AtomicBool::new(false);
    if !SILENT.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

unsafe extern "C" {
    // c/extension.c
    fn turnstile_extension_init(
        db: *mut c_void,
        message: *mut *mut c_char,
        routines: *const c_void,
    ) -> c_int;
}

/// The entry point that `sqlite3_load_extension` looks for; all of it is in `c/extension.c`. It is
/// here as well because rustc exports from a cdylib only what Rust defines.
///
/// # Safety
/// To be called by SQLite.
#[unsafe(no_mangle)]
unsafe extern "C" fn sqlite3_turnstile_init(
    db: *mut c_void,
    message: *mut *mut c_char,
    routines: *const c_void,
) -> c_int {
    // SAFETY: SQLite's own arguments, passed on.
    unsafe { turnstile_extension_init(db, message, routines) }
}
