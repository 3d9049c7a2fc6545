//! What several test files share: where the extension is, what this machine has, how to run a program.
//!
//! Every file in `tests/` is a crate of its own and uses only a part of this one.
#![allow(dead_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The loadable extension that cargo built beside this test (`deps/libturnstile.so`).
pub fn extension() -> PathBuf {
    let so = std::env::current_exe()
        .expect("the test knows its own path")
        .with_file_name("libturnstile.so");
    assert!(so.exists(), "{} was not built", so.display());
    so
}

/// The root of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether `what` is there. If it is not, the test named `test` is to return: the reason is
/// printed (past the harness's capture, so that it is seen), and CI fails instead of skipping.
pub fn available(test: &str, what: &str, there: bool, remedy: &str) -> bool {
    if !there {
        let line = format!("SKIPPED {test}: needs {what}; {remedy}");
        assert!(std::env::var_os("CI").is_none(), "{line}");
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    there
}

/// [`available`] for who may do everything.
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    available(test, "root", root, "run the tests as root")
}

/// [`available`] for a program on the PATH (or at an absolute path) from a Debian package.
pub fn has_program(test: &str, program: &str, package: &str) -> bool {
    let there = Command::new("sh")
        .args(["-c", "command -v \"$0\" >/dev/null", program])
        .status()
        .is_ok_and(|s| s.success());
    available(test, program, there, &format!("apt-get install {package}"))
}

/// Runs `command` to its end and returns its output, or panics with all that it said.
pub fn succeed(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n--- stdout\n{}--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Standard output of a command that must succeed, without the last newline.
pub fn stdout(command: &mut Command) -> String {
    let text = String::from_utf8(succeed(command).stdout).expect("UTF-8 output");
    text.trim_end_matches('\n').to_owned()
}

pub mod guest;

/// A path as it is spelt in a `file:` URI.
pub fn encoded(path: &Path) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|&b| match keep(b) {
            true => char::from(b).to_string(),
            false => format!("%{b:02X}"),
        })
        .collect()
}

/// What SQLITE_FCNTL_VFSNAME says of a connection's main database.
pub fn vfs_name(db: &rusqlite::Connection) -> String {
    use rusqlite::ffi;
    let mut name: *mut std::ffi::c_char = std::ptr::null_mut();
    // SAFETY: this file control leaves a string from sqlite3_malloc, or NULL.
    unsafe {
        let argument = (&raw mut name).cast();
        let op = ffi::SQLITE_FCNTL_VFSNAME;
        let code = ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), op, argument);
        assert!(code == ffi::SQLITE_OK && !name.is_null());
        let text = std::ffi::CStr::from_ptr(name)
            .to_str()
            .expect("a VFS's name")
            .to_owned();
        ffi::sqlite3_free(name.cast());
        text
    }
}

/// Waits until `done`, and says whether it came true in that time.
pub fn within(time: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
