//! Bad input: the error code that an expert expects, and one log line that names the file or the
//! option and says what to do.

mod support;

use rusqlite::{Connection, OpenFlags, ffi};
use std::ffi::c_int;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once};
use turnstile::{Fs, Options};

static LOG: Mutex<Vec<(c_int, String)>> = Mutex::new(Vec::new());
/// One test at a time: the log and the environment are the process's.
static TURN: Mutex<()> = Mutex::new(());

fn set_up() -> MutexGuard<'static, ()> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        fn keep(code: c_int, line: &str) {
            LOG.lock().unwrap().push((code, line.to_owned()));
        }
        // SAFETY: nothing has used SQLite yet.
        unsafe { rusqlite::trace::config_log(Some(keep)).unwrap() };
        turnstile::register(Options::default()).unwrap();
    });
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    LOG.lock().unwrap().clear();
    turn
}

/// Opens `path`, which must fail with `code` and one line of ours that ends in `line`.
#[track_caller]
fn refused(path: &Path, parameters: &str, code: c_int, line: &str) {
    LOG.lock().unwrap().clear();
    let uri = format!("file:{}?vfs=turnstile{parameters}", support::encoded(path));
    let error = Connection::open_with_flags(uri, OpenFlags::default()).unwrap_err();
    assert_eq!(
        error.sqlite_error().map(|e| e.extended_code & 0xff),
        Some(code),
        "{error}"
    );
    let log = LOG.lock().unwrap();
    let ours: Vec<_> = log
        .iter()
        .filter(|(_, line)| line.starts_with("turnstile: "))
        .collect();
    assert_eq!(ours.len(), 1, "{log:?}");
    assert!(
        ours[0].0 & 0xff == code && ours[0].1.contains(line),
        "{ours:?}"
    );
    assert!(ours[0].1.len() < 209, "renderLogMsg cuts it: {ours:?}");
}

#[test]
fn options_in_a_uri() {
    let _turn = set_up();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let cases = [
        (
            "&fs=nfs",
            "URI parameter fs has the value \"nfs\"; use auto, local or network",
        ),
        (
            "&fair=perhaps",
            "URI parameter fair has the value \"perhaps\"; use on or off",
        ),
        (
            "&quantum_us=-1",
            "URI parameter quantum_us has the value \"-1\"; use 0 to 1000000",
        ),
        (
            "&backoff_us=x",
            "URI parameter backoff_us has the value \"x\"; use 1 to 1000000",
        ),
        (
            "&backoff_cap_us=0",
            "URI parameter backoff_cap_us has the value \"0\"; use 1 to 10000000",
        ),
        (
            "&retry_ms=1.5",
            "URI parameter retry_ms has the value \"1.5\"; use 0 to 3600000",
        ),
        (
            "&resync_kb=",
            "URI parameter resync_kb has the value \"\"; use 0 to 1048576",
        ),
        (
            "&base=nope",
            "the VFS \"nope\", which is not registered; register it first, or use unix",
        ),
        (
            "&quantum=5",
            "URI parameter quantum is unknown; the options are",
        ),
        (
            "&Retry-MS=5",
            "URI parameter Retry-MS is unknown; the options are",
        ),
    ];
    for (parameters, line) in cases {
        refused(&path, parameters, ffi::SQLITE_ERROR, line);
        assert!(
            !path.exists(),
            "{parameters}: refused before anything was created"
        );
    }
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(100));
    refused(
        &dir.path().join(long),
        "&fs=nfs",
        ffi::SQLITE_ERROR,
        "use auto, local or network",
    );
    // Allowed values, each spelling of a boolean, and somebody else's parameter.
    for fine in [
        "&fs=network&fair=off&quantum_us=0&retry_ms=0",
        "&fair=1&fair=maybe",
        "&timeout=5",
    ] {
        let uri = format!("file:{}?vfs=turnstile{fine}", support::encoded(&path));
        Connection::open_with_flags(uri, OpenFlags::default()).unwrap();
    }
}

/// URI > environment > program > default, and the environment is read at each open.
#[test]
fn the_environment_is_read_at_open_and_the_uri_overrides_it() {
    let _turn = set_up();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    // SAFETY: tests that use the environment take turns.
    unsafe { std::env::set_var("TURNSTILE_BASE", "unix-excl") };
    let name = |parameters: &str| {
        let uri = format!("file:{}?vfs=turnstile{parameters}", support::encoded(&path));
        let db = Connection::open_with_flags(uri, OpenFlags::default()).unwrap();
        support::vfs_name(&db)
    };
    let seen = [name(""), name("&base=unix-none")];
    // SAFETY: as above.
    unsafe { std::env::set_var("TURNSTILE_FAIR", "perhaps") };
    let line = "environment variable TURNSTILE_FAIR has the value \"perhaps\"; use on or off";
    refused(&path, "", ffi::SQLITE_ERROR, line);
    // SAFETY: as above.
    unsafe {
        std::env::remove_var("TURNSTILE_FAIR");
        std::env::remove_var("TURNSTILE_BASE");
    }
    assert_eq!(seen, ["turnstile/unix-excl", "turnstile/unix-none"]);
    assert_eq!(name(""), "turnstile/unix");
}

#[test]
fn registering_again() {
    let _turn = set_up();
    turnstile::register(Options::default()).unwrap();
    let other = Options {
        fs: Fs::Network,
        ..Options::default()
    };
    let error = turnstile::register(other).unwrap_err();
    assert_eq!(error.code(), ffi::SQLITE_ERROR);
    assert!(
        error
            .to_string()
            .contains("registered already with other options"),
        "{error}"
    );
}

#[test]
fn what_is_not_a_database_file() {
    let _turn = set_up();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let cantopen = ffi::SQLITE_CANTOPEN;
    refused(
        dir.path(),
        "",
        cantopen,
        "it is a directory; name a file in it",
    );
    refused(
        &at("no/a.db"),
        "",
        cantopen,
        "its directory does not exist; create that first",
    );
    refused(
        &at("a.db"),
        "&mode=rw",
        cantopen,
        "there is no such file; create it first, or open it with mode=rwc",
    );
    std::os::unix::fs::symlink(at("loop"), at("loop")).unwrap();
    refused(
        &at("loop/a.db"),
        "",
        cantopen,
        "loop/a.db: Too many symbolic links encountered; check",
    );
    std::fs::write(at("plain"), "").unwrap();
    refused(
        &at("plain/a.db"),
        "",
        cantopen,
        "plain/a.db: Not a directory",
    );
    let long = "d/".repeat(300);
    refused(
        &at(&long).join("a.db"),
        "",
        cantopen,
        "it has no full path of less than 513 bytes",
    );
}

/// What sqlite3_system_errno says is what the base left, whatever the log line took to find out.
#[test]
fn the_system_error_is_the_bases() {
    let _turn = set_up();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(dir.path().join("loop"), dir.path().join("loop")).unwrap();
    for name in ["no/a.db", ".", "loop", "none/../a.db"] {
        let errno = ["unix", "turnstile"].map(|vfs| {
            let uri = format!("file:{}/{name}?vfs={vfs}", dir.path().display());
            let uri = std::ffi::CString::new(uri).unwrap();
            let mut db = std::ptr::null_mut();
            let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_URI;
            // SAFETY: plain use of the C API.
            unsafe {
                nix::errno::Errno::clear();
                let code = ffi::sqlite3_open_v2(uri.as_ptr(), &mut db, flags, std::ptr::null());
                let errno = ffi::sqlite3_system_errno(db);
                ffi::sqlite3_close(db);
                (code, errno)
            }
        });
        assert_eq!(errno[0], errno[1], "{name}");
    }
}

/// Root may do everything, so this is for somebody else.
#[test]
fn no_permission() {
    let _turn = set_up();
    let dir = tempfile::tempdir().unwrap();
    if nix::unistd::geteuid().is_root() {
        // Once more, as nobody: the test binary lies in a directory that only root may enter.
        let copy = dir.path().join("bad_input");
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        support::succeed(
            Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(copy)
                .args(["--exact", "no_permission"])
                .env("TMPDIR", dir.path())
                .current_dir(&dir),
        );
        return;
    }
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    let secret = dir.path().join("secret.db");
    std::fs::write(&secret, "").unwrap();
    set(&secret, 0o000);
    refused(
        &secret,
        "",
        ffi::SQLITE_CANTOPEN,
        "no permission to read it; ask its owner, or chmod it",
    );
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    set(&closed, 0o500);
    refused(
        &closed.join("a.db"),
        "",
        ffi::SQLITE_CANTOPEN,
        "no permission to create it; make its directory writable",
    );
    set(&closed, 0o700);
}
