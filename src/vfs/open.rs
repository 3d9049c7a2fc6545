//! How the base's file comes to lie behind ours.
//!
//! Invariant: our `pMethods` are set if and only if the base's file is open and ours is complete.
//! Whatever happens before that (a bad option, the base's refusal, a panic) leaves `pMethods` NULL
//! and the base's file closed.
//!
//! Journals, WALs and temporary files need nothing of us on this machine's own file systems: `xOpen` in `methods` lets the
//! base open them into SQLite's own memory, and from then on they cost what they cost without us.

use super::apart::Owner;
use super::courtesy::Courtesy;
use super::file::{self, File};
use super::network::{self, Network};
use super::{Shim, base, explain};
use crate::filesystem::{self, Ground, Kind};
use crate::sqlite::abi::*;
use crate::text::PathEnd;
use crate::wait::manners::Manners;
use crate::{Error, Fs, Options, options};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::ptr::{self, NonNull};

/// Files are allocated by SQLite at multiples of 8 bytes; one on our own heap gets the most that
/// any C type asks for.
const ALIGN: usize = 16;

const OURS: usize = size_of::<File>();
const _: () = assert!(OURS.is_multiple_of(8) && align_of::<File>() <= 8);

/// `szOsFile` of our VFS over a base with `lower`: ours, and the base's right behind it.
pub fn size_over(lower: c_int) -> c_int {
    lower.saturating_add(OURS as c_int)
}

/// `xOpen` for a database, or while there is a database on another base than the registered one.
///
/// # Safety
/// The arguments are those of `xOpen`, and `file`'s `pMethods` are NULL.
pub unsafe fn open(
    shim: &'static Shim,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: a name is NULL (a temporary file) or terminated, and stays until xClose.
    let path = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) });
    let database = path.filter(|_| flags & SQLITE_OPEN_MAIN_DB != 0);

    let mut options = shim.options;
    let mut owner = None;
    let base = match database {
        // SAFETY: the arguments of xOpen.
        Some(path) => match unsafe { base_of_database(shim, path, flags, &mut options) } {
            Ok(base) => base,
            Err(error) => return refuse(shim, &error, path),
        },
        None => match path.map(|path| shim.apart.owner_of(path)) {
            Some(Some(found @ Owner { base, .. })) => {
                owner = found.policy.map(|policy| (found.network, policy));
                base
            }
            Some(None) => return SQLITE_CANTOPEN,
            None => shim.base,
        },
    };
    let Some(_nesting) = Nesting::enter() else {
        let text = "the base VFS lies on turnstile itself; name another base, for example unix";
        return refuse(
            shim,
            &Error::new(SQLITE_ERROR, text),
            path.unwrap_or_default(),
        );
    };
    // SAFETY: the base is on SQLite's list; `file` has room for our szOsFile.
    let Some(room) = (unsafe { Room::of(shim, file, base) }) else {
        return SQLITE_NOMEM;
    };
    let mut undo = Undo {
        shim,
        room,
        network: None,
        apart: None,
        done: false,
    };
    // A database that others may open, on a base that keeps it where its path says.
    let shared = database.filter(|_| flags & SQLITE_OPEN_MEMORY == 0 && base::has_files(base));
    let request = network::open::Request {
        shim,
        base,
        room,
        path: path.unwrap_or_default(),
        flags,
    };
    let journals = SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL;
    let is_journal = flags & journals != 0;
    let opened = match (shared.map(|path| ground_of(path, &mut options)), owner) {
        (Some(ground), _) if !network::open::judge(shim, &ground, request.path) => {
            return SQLITE_CANTOPEN;
        }
        // SAFETY: the arguments of xOpen.
        (Some(ground), _) if ground.kind == Kind::Network => unsafe {
            network::open::database(request, &options, &ground, out_flags)
        },
        // SAFETY: the arguments of xOpen; the owner's connection is the one that calls us.
        (None, Some((owner, policy))) if is_journal => unsafe {
            network::open::journal(request, owner, policy, out_flags)
        },
        // SAFETY: the arguments of xOpen.
        _ => unsafe { open_base(request, name, out_flags) },
    };
    let methods = match opened {
        Ok((methods, network)) => {
            undo.network = network;
            methods
        }
        Err(code) => return code,
    };
    // Nothing else of the database is opened before this returns.
    let is_apart = base != shim.base || undo.network.is_some();
    if let Some(path) = database.filter(|_| is_apart) {
        let has_parameters = flags & SQLITE_OPEN_URI != 0;
        // SAFETY: the flag.
        let entered = unsafe { shim.apart.enter(path, has_parameters, base, undo.network) };
        if entered.is_none() {
            return SQLITE_NOMEM;
        }
        undo.apart = Some(path);
    }
    undo.done = true;
    let ours = File {
        head: sqlite3_file { pMethods: methods },
        room,
        shim,
        base,
        apart: undo.apart,
        courtesy: Courtesy::new(Manners::of(&options), shared),
        network: undo.network,
    };
    // SAFETY: `file` has room for a File.
    unsafe { file.cast::<File>().write(ours) };
    SQLITE_OK
}

/// Has the base open the file, and says which methods it has then.
///
/// # Safety
/// The arguments are those of `xOpen`.
unsafe fn open_base(
    request: network::open::Request,
    name: *const c_char,
    out_flags: *mut c_int,
) -> Result<(&'static sqlite3_io_methods, Option<NonNull<Network>>), c_int> {
    let base = request.base.as_ptr();
    let lower = request.room.lower;
    // SAFETY: the base gets its own VFS pointer, room for its own file, and SQLite's arguments.
    let code = unsafe {
        match (*base).xOpen {
            Some(x_open) => x_open(base, name, lower, request.flags, out_flags),
            None => SQLITE_CANTOPEN,
        }
    };
    if code != SQLITE_OK {
        if request.flags & SQLITE_OPEN_MAIN_DB != 0 {
            explain::cannot_open(request.shim, code, request.path, request.flags);
        }
        return Err(code);
    }
    // SAFETY: xOpen has set them, and they stay as long as the file is open.
    let methods = unsafe { (*lower).pMethods.as_ref() }.ok_or(SQLITE_CANTOPEN)?;
    let methods = file::over(methods, &file::TABLE).ok_or(SQLITE_NOMEM)?;
    Ok((methods, None))
}

/// What the database lies on. The options say it from now on.
fn ground_of(path: &CStr, options: &mut Options) -> Ground {
    let ground = filesystem::look(path, options.fs);
    options.fs = match ground.kind {
        Kind::Local => Fs::Local,
        Kind::Network => Fs::Network,
    };
    ground
}

fn refuse(shim: &Shim, error: &Error, path: &CStr) -> c_int {
    shim.log(error.code(), format_args!("{error} ({})", PathEnd(path)));
    error.code()
}

/// What is to be undone if an open is not done in the end.
struct Undo<'a> {
    shim: &'a Shim,
    room: Room,
    network: Option<NonNull<Network>>,
    apart: Option<&'static CStr>,
    done: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut left = true;
        if let Some(path) = self.apart {
            left = self.shim.apart.leave(path);
        }
        let lower = self.room.lower;
        // SAFETY: the room's pMethods are NULL, or those of an open file: one whose pMethods are set
        // is to be closed, even if its xOpen failed.
        unsafe {
            if let Some(x_close) = (*lower).pMethods.as_ref().and_then(|m| m.xClose) {
                x_close(lower);
            }
            self.room.free();
            if let Some(network) = self.network.filter(|_| left) {
                Network::free(network);
            }
        }
    }
}

/// How many calls of `xOpen` this thread is in. A shim that is registered over the default VFS while
/// that is turnstile, and then named as our base, would open in a circle until the stack is gone.
struct Nesting;

impl Nesting {
    const MOST: u32 = 8;

    fn enter() -> Option<Nesting> {
        NESTING.set(NESTING.get() + 1);
        let nesting = Nesting;
        (NESTING.get() <= Self::MOST).then_some(nesting)
    }
}

impl Drop for Nesting {
    fn drop(&mut self) {
        NESTING.set(NESTING.get() - 1);
    }
}

thread_local! {
    static NESTING: Cell<u32> = const { Cell::new(0) };
}

/// The base for a database, and what its options say.
///
/// # Safety
/// `path` and `flags` are those of `xOpen`.
unsafe fn base_of_database(
    shim: &Shim,
    path: &CStr,
    flags: c_int,
    options: &mut Options,
) -> Result<NonNull<sqlite3_vfs>, Error> {
    if let Some(converting) = network::converting(path) {
        *options = converting;
        return base::find(&shim.sqlite, options);
    }
    *options = options.with_environment()?;
    // Without the flag there is no query behind the name: unixOpen looks at it likewise.
    if flags & SQLITE_OPEN_URI != 0 {
        let set = |key: &str, value: &str| options.set_from_uri(key, value);
        // SAFETY: the caller's promise, and the flag.
        unsafe {
            shim.sqlite
                .uri_parameters(path.as_ptr(), options::uri_names(), set)?
        };
    }
    base::find(&shim.sqlite, options)
}

/// Where a base's file lies.
#[derive(Clone, Copy)]
pub struct Room {
    pub lower: *mut sqlite3_file,
    /// Its size, if it is on our own heap because it did not fit behind ours; else 0.
    heap: usize,
}

impl Room {
    /// Room for a file of `base`, its `pMethods` NULL. `None` if memory is out.
    ///
    /// # Safety
    /// `file` has room for our szOsFile.
    unsafe fn of(shim: &Shim, file: *mut sqlite3_file, base: NonNull<sqlite3_vfs>) -> Option<Room> {
        // SAFETY: both are VFSes on SQLite's list.
        let (needed, behind) = unsafe { (base.as_ref().szOsFile, shim.base.as_ref().szOsFile) };
        let heap = match needed <= behind {
            true => 0,
            false => usize::try_from(needed).ok()?,
        };
        let lower = match heap {
            // SAFETY: szOsFile has OURS bytes for us and `behind` bytes more.
            0 => unsafe { file.byte_add(OURS) },
            // SAFETY: the layout's size is not zero.
            _ => unsafe { alloc_zeroed(Room::layout(heap)?).cast() },
        };
        // SAFETY: `lower` has room for the base's file, which begins with pMethods.
        unsafe { lower.as_mut()?.pMethods = ptr::null() };
        Some(Room { lower, heap })
    }

    fn layout(size: usize) -> Option<Layout> {
        Layout::from_size_align(size, ALIGN).ok()
    }

    /// Gives the room back.
    ///
    /// # Safety
    /// The base's file is closed.
    pub unsafe fn free(&self) {
        if self.heap != 0
            && let Some(layout) = Room::layout(self.heap)
        {
            // SAFETY: it came from alloc_zeroed with this layout.
            unsafe { dealloc(self.lower.cast(), layout) };
        }
    }
}
