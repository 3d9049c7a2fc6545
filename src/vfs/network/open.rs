//! Opening a database that other machines can reach, and its journals.

use super::convert::Pending;
use super::{Database, Journal, Network, Policy, Role, may_pass, methods, paths};
use crate::Options;
use crate::durable::coherence::Freshness;
use crate::durable::descriptor::{Descriptor, status_at};
use crate::durable::episode::Episode;
use crate::durable::transient::{Call, passes};
use crate::filesystem::{self, Ground, Kind, Locks};
use crate::sqlite::abi::*;
use crate::text::{PathEnd, Text};
use crate::vfs::open::Room;
use crate::vfs::{Shim, explain};
use nix::errno::Errno;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is opened.
#[derive(Clone, Copy)]
pub struct Request {
    pub shim: &'static Shim,
    pub base: NonNull<sqlite3_vfs>,
    pub room: Room,
    /// SQLite keeps it until xClose.
    pub path: &'static CStr,
    pub flags: c_int,
}

/// The methods of the file that was opened, and what is known of it.
pub type Opened = (&'static sqlite3_io_methods, Option<NonNull<Network>>);

/// Says what is wrong with the ground. `false`: too much.
pub fn judge(shim: &Shim, ground: &Ground, path: &CStr) -> bool {
    match (ground.locks, ground.kind) {
        (Locks::Shared, _) => true,
        (Locks::NodeLocal(_), _) | (Locks::Missing(_), Kind::Local) => {
            let line = Text::new(ground);
            if is_news(&line) {
                shim.log(SQLITE_WARNING, line);
            }
            true
        }
        (Locks::Missing(_), Kind::Network) => {
            let path = PathEnd(path);
            shim.log(SQLITE_CANTOPEN, format_args!("{ground} ({path})"));
            false
        }
    }
}

/// Whether this was not yet said in this process.
pub fn is_news(line: &Text) -> bool {
    static SAID: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
    let mut hasher = DefaultHasher::new();
    line.as_str().hash(&mut hasher);
    let hash = hasher.finish() | 1;
    for said in &SAID {
        match said.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(other) if other == hash => return false,
            Err(_) => {}
        }
    }
    false
}

/// Resolves the path `name` by `again`, after a first attempt that ended with `code` and `errno`, for as long as the error
/// passes. (The URI is not known yet: it is the environment's or the program's `retry_ms`.)
pub fn resolve(
    shim: &Shim,
    name: &CStr,
    mut errno: Errno,
    mut code: c_int,
    mut again: impl FnMut() -> c_int,
) -> c_int {
    let Ok(options) = shim.options.with_environment() else {
        return code;
    };
    let is_network = || filesystem::look(name, options.fs).kind == Kind::Network;
    let retry = Policy::of(&options).retry;
    let mut episode = Episode::new(&shim.sqlite, name, (Call::Look, None), retry);
    while passes(Call::Look, errno) && is_network() && episode.goes_on(errno) {
        code = again();
        if code & 0xff == SQLITE_OK {
            episode.succeeded();
            return code;
        }
        errno = Errno::last();
    }
    episode.failed("its path cannot be resolved");
    Errno::set(errno);
    code
}

/// Opens a database.
///
/// # Safety
/// The request is that of `xOpen`, and `out_flags` what it has.
pub unsafe fn database(
    request: Request,
    options: &Options,
    ground: &Ground,
    out_flags: *mut c_int,
) -> Result<Opened, c_int> {
    let Request {
        shim,
        base,
        room,
        path,
        flags,
    } = request;
    let policy = Policy::of(options);
    // SAFETY: the caller's promise.
    let opened = unsafe { open_base(request, policy, flags)? };
    let mut zero: sqlite3_int64 = 0;
    // Whatever the compile-time default is: a hint about its size would make the base map it (fcntlSizeHint).
    // SAFETY: the file is open, and the argument is what this file control has.
    unsafe {
        let methods = (*room.lower).pMethods.as_ref().ok_or(SQLITE_CANTOPEN)?;
        if let Some(x_file_control) = methods.xFileControl {
            x_file_control(room.lower, SQLITE_FCNTL_MMAP_SIZE, (&raw mut zero).cast());
        }
    }
    // SAFETY: the base has opened it.
    let descriptor = unsafe { descriptor_of(base, room.lower) };
    let episode = || Episode::new(&shim.sqlite, path, (Call::Look, None), policy.retry);
    let inode = descriptor.and_then(|descriptor| {
        let there = super::look(&mut episode(), &mut || status_at(path)).ok()?;
        let open = super::look(&mut episode(), &mut || descriptor.status()).ok()?;
        (there.identity == open.identity).then_some(open.identity.inode)
    });
    if descriptor.is_some() && inode.is_none() {
        let path = PathEnd(path);
        shim.log(
            SQLITE_IOERR_FSTAT,
            format_args!("{path} cannot be looked at"),
        );
        return Err(SQLITE_IOERR_FSTAT);
    }
    let asks_by_making = keeps_absences(ground.name.as_str());
    let directory = match asks_by_making || descriptor.is_none() {
        true => None,
        false => super::look(&mut episode(), &mut || paths::open_directory(path)).ok(),
    };
    // SAFETY: the caller's promise.
    let has_locks = unsafe { !has_no_locks(request) };
    let pending = match has_locks {
        true => Pending::new(path, options, ground, opened),
        false => None,
    };
    let role = Role::Database(Database {
        has_locks: has_locks && descriptor.is_some(),
        pending: RefCell::new(pending),
        is_gluster: ground.name.as_str() == GLUSTER,
        inode,
        version: Cell::new(None),
        freshness: Freshness::default(),
        in_doubt: Cell::new(false),
        is_looked_after: Cell::new(false),
        is_unchanged: Cell::new(false),
        stamps_writes: stamps_writes(ground.name.as_str()),
        journal: Cell::new(None),
        open_journal: Cell::new(None),
        asks_by_making,
        directory,
    });
    // SAFETY: the base's file is open.
    let (methods, made) = unsafe { wrap(request, descriptor, policy, role)? };
    if !out_flags.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *out_flags = opened };
    }
    Ok((methods, Some(made)))
}

/// Whether the URI says that nobody changes the file, or that nobody else has it open.
///
/// # Safety
/// The request is that of `xOpen`.
unsafe fn has_no_locks(request: Request) -> bool {
    if request.flags & SQLITE_OPEN_URI == 0 {
        return false;
    }
    let known = [c"immutable", c"nolock"].into_iter();
    let mut found = false;
    // SAFETY: the caller's promise, and the flag.
    let _ = unsafe {
        request
            .shim
            .sqlite
            .uri_parameters(request.path.as_ptr(), known, |key, value| {
                let is_on = !matches!(value, "0" | "no" | "off" | "false");
                found |= matches!(key, "immutable" | "nolock") && is_on;
                Ok::<(), ()>(())
            })
    };
    found
}

/// The type of a GlusterFS mount.
const GLUSTER: &str = "fuse.glusterfs";

/// Whether each write gives a file a new time, as all nodes see it. (CephFS and Lustre take the latest of all clients'
/// clocks, SMB's servers may wait for 2 s, and GlusterFS' client answers with old pages.)
fn stamps_writes(kind: &str) -> bool {
    matches!(kind, "nfs" | "nfs4" | "fuse") || kind.starts_with("fuse.") && kind != GLUSTER
}

/// Whether "there is no such file" is believed for a time whatever the directory says, by the file system's type.
fn keeps_absences(kind: &str) -> bool {
    let is_smb = matches!(kind, "cifs" | "smb3" | "smb2" | "smbfs");
    is_smb || kind.starts_with("fuse") || kind == "virtiofs"
}

/// Opens a journal, a super-journal or (while it is converted) the WAL of `owner`'s; of a super-journal there is no owner.
///
/// # Safety
/// The request is that of `xOpen`, and `out_flags` what it has; `owner` is the caller's own.
pub unsafe fn journal(
    request: Request,
    owner: Option<NonNull<Network>>,
    policy: Policy,
    out_flags: *mut c_int,
) -> Result<Opened, c_int> {
    let (path, flags) = (request.path, request.flags);
    // SAFETY: the caller's promise.
    let network = owner.map(|owner| unsafe { owner.as_ref() });
    // Who only looks whether it is hot has no turn.
    let writes = flags & SQLITE_OPEN_READWRITE != 0;
    let database = owner.filter(|_| writes && network.is_some_and(Network::has_the_turn));
    if database.is_some() && network.is_some_and(|network| network.stops(Call::Write)) {
        return Err(SQLITE_CANTOPEN);
    }
    let is_gluster = network
        .and_then(Network::database)
        .is_some_and(|d| d.is_gluster);
    // GlusterFS' client opens a file when it is first used (open-behind), and says yes to the opening of one that is gone.
    let mut tries = if is_gluster && database.is_some() {
        8
    } else {
        1
    };
    let (opened, descriptor) = loop {
        // SAFETY: the caller's promise.
        let opened = unsafe { open_base(request, policy, flags)? };
        // SAFETY: the base has opened it; what holds for its databases holds for its journals.
        let descriptor = unsafe { descriptor_of(request.base, request.room.lower) };
        let descriptor = descriptor.filter(|_| network.is_some_and(|n| n.descriptor.is_some()));
        tries -= 1;
        let is_there =
            |file: Descriptor| !matches!(file.sync(), Err(Errno::ESTALE | Errno::ENOENT));
        if tries == 0 || descriptor.is_none_or(is_there) {
            break (opened, descriptor);
        }
        // SAFETY: nobody has seen it.
        unsafe { close_base(request.room) };
    };
    // Some clients keep pages from one opening to the next (FOPEN_KEEP_CACHE: MooseFS), and so its beginning from before it
    // was synced.
    descriptor.inspect(|descriptor| descriptor.drop_pages());
    let role = Role::Journal(Journal {
        database,
        is_super: flags & SQLITE_OPEN_SUPER_JOURNAL != 0,
        is_new: Cell::new(flags & SQLITE_OPEN_CREATE != 0),
    });
    // SAFETY: the base's file is open.
    let (methods, journal) = unsafe { wrap(request, descriptor, policy, role)? };
    if let (Some(network), Some(descriptor)) = (network, descriptor)
        && let Some(state) = network.database()
        && database.is_some()
        && flags & SQLITE_OPEN_MAIN_JOURNAL != 0
    {
        let status = network.look_at(path, Call::Size, || descriptor.status_cached());
        let is_empty = status.is_ok_and(|status| status.size == 0);
        let makes = flags & SQLITE_OPEN_CREATE != 0;
        if makes && state.is_unchanged.get() && !is_empty {
            // SAFETY: nobody else has it.
            let emptied = empty_overlooked(network, unsafe { journal.as_ref() }, descriptor);
            if emptied != SQLITE_OK {
                // SAFETY: as above.
                unsafe { Network::free(journal) };
                return Err(emptied);
            }
        }
        // Without it there is no proof, see `prove_journal`: one that is never at its path.
        let identity = status.map(|s| s.identity).unwrap_or_default();
        state.journal.set(Some(identity));
        state.open_journal.set(Some(journal));
    }
    if !out_flags.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *out_flags = opened };
    }
    Ok((methods, Some(journal)))
}

/// A transaction is about to overwrite a journal that was not looked for under SHARED, because nothing of it is in the
/// database. If it is hot, its end could be taken for that of the new one (`readSuperJournal`).
fn empty_overlooked(network: &Network, journal: &Network, descriptor: Descriptor) -> c_int {
    let mut first = [0];
    match network.look(Call::Read, || descriptor.read_at(&mut first, 0)) {
        Ok(_) if first == [0] => SQLITE_OK,
        Ok(_) => journal.truncate(0),
        Err(errno) => {
            Errno::set(errno);
            SQLITE_CANTOPEN
        }
    }
}

/// Has the base open the file, for as long as the error passes. The flags with which it is open.
///
/// # Safety
/// The request is that of `xOpen`.
unsafe fn open_base(request: Request, policy: Policy, flags: c_int) -> Result<c_int, c_int> {
    let Request {
        shim,
        base,
        room,
        path,
        ..
    } = request;
    let mut episode = Episode::new(&shim.sqlite, path, (Call::Open, None), policy.retry);
    loop {
        let mut opened = flags;
        // SAFETY: the base gets its own VFS pointer, room for its own file, and SQLite's arguments.
        let code = unsafe {
            (*room.lower).pMethods = std::ptr::null();
            match (*base.as_ptr()).xOpen {
                Some(x_open) => {
                    x_open(base.as_ptr(), path.as_ptr(), room.lower, flags, &mut opened)
                }
                None => SQLITE_CANTOPEN,
            }
        };
        let errno = match code {
            SQLITE_OK if is_as_asked(flags, opened) => None,
            // unixOpen takes any error for "it may only be read", and tries that.
            SQLITE_OK => match paths::is_writable(path) {
                Ok(false) => None,
                Ok(true) => Some(Errno::EIO),
                Err(errno) => Some(errno),
            },
            code if may_pass(code) => Some(why_not(path, flags)),
            code => return Err(code),
        };
        let Some(errno) = errno else {
            episode.succeeded();
            return Ok(opened);
        };
        // SAFETY: nobody has seen it.
        unsafe { close_base(room) };
        if !passes(Call::Open, errno) || !episode.goes_on(errno) {
            episode.failed("it cannot be opened");
            Errno::set(errno);
            if flags & SQLITE_OPEN_MAIN_DB != 0 {
                explain::cannot_open(shim, SQLITE_CANTOPEN, path, flags);
            }
            return Err(if code == SQLITE_OK {
                SQLITE_CANTOPEN
            } else {
                code
            });
        }
    }
}

/// Closes what the base has opened. A file whose pMethods are set is to be closed, even if its xOpen failed.
///
/// # Safety
/// The base was asked to open it, and it is not used any more.
unsafe fn close_base(room: Room) {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(x_close) = (*room.lower).pMethods.as_ref().and_then(|m| m.xClose) {
            x_close(room.lower);
            (*room.lower).pMethods = std::ptr::null();
        }
    }
}

/// Why the base has not opened a file. What could not be made, it has tried to open for reading, and that is not
/// there.
fn why_not(path: &CStr, flags: c_int) -> Errno {
    let errno = Errno::last();
    let makes = flags & SQLITE_OPEN_CREATE != 0;
    if errno != Errno::ENOENT || !makes {
        return errno;
    }
    match paths::of_directory(path, status_at) {
        Ok(_) => Errno::EIO,
        Err(why) => why,
    }
}

/// Whether a file that was to be written to can be.
fn is_as_asked(flags: c_int, opened: c_int) -> bool {
    flags & SQLITE_OPEN_READWRITE == 0 || opened & SQLITE_OPEN_READONLY == 0
}

/// # Safety
/// The base's file is open.
unsafe fn wrap(
    request: Request,
    descriptor: Option<Descriptor>,
    policy: Policy,
    role: Role,
) -> Result<(&'static sqlite3_io_methods, NonNull<Network>), c_int> {
    // SAFETY: xOpen has set them, and they stay as long as the file is open.
    let lower = unsafe { (*request.room.lower).pMethods.as_ref() }.ok_or(SQLITE_CANTOPEN)?;
    let methods = methods::over(lower).ok_or(SQLITE_NOMEM)?;
    let lower = request.room.lower;
    let network = Network::new(request.shim, lower, descriptor, request.path, policy, role);
    Ok((methods, network.ok_or(SQLITE_NOMEM)?))
}

/// The descriptor of a file of the stock VFS.
///
/// SQLite tells nobody, but `unixFile` has had it at the same place since 3.7.0: behind the methods, the VFS and
/// the inode. It is looked at only in a file of the VFS named "unix" that says of itself to be one; whether it
/// then is the right file, the caller asks the file system.
///
/// # Safety
/// `file` was opened by `base`.
unsafe fn descriptor_of(
    base: NonNull<sqlite3_vfs>,
    file: *const sqlite3_file,
) -> Option<Descriptor> {
    #[repr(C)]
    struct UnixFile {
        methods: *const sqlite3_io_methods,
        vfs: *const sqlite3_vfs,
        inode: *const u8,
        descriptor: RawFd,
    }
    // SAFETY: a VFS on SQLite's list; its files have szOsFile bytes.
    unsafe {
        let is_unix = CStr::from_ptr(base.as_ref().zName.cast::<c_char>()) == c"unix";
        if !is_unix || (base.as_ref().szOsFile as usize) < size_of::<UnixFile>() {
            return None;
        }
        let file = &*file.cast::<UnixFile>();
        let is_its = std::ptr::eq(file.vfs, base.as_ptr()) && file.descriptor > 2;
        is_its.then(|| Descriptor::new(file.descriptor))
    }
}
