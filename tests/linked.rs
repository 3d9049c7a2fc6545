//! The second and third door: the Rust and the C example, built and run as a user would.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::{has_program, root, stdout, succeed};

/// `cargo` with a target directory of its own: the test's is in use.
fn cargo(arguments: &[&str], target: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    succeed(
        cargo
            .current_dir(root())
            .args(arguments)
            .arg("--target-dir")
            .arg(target),
    );
}

fn target() -> PathBuf {
    root().join("target/doors")
}

#[test]
fn a_rust_program_with_rusqlite() {
    // Without the default features, as another crate would depend on this one.
    let features = ["--no-default-features", "--features", "linked"];
    cargo(
        &[
            &["build", "--quiet", "--example", "rusqlite"],
            &features[..],
        ]
        .concat(),
        &target(),
    );
    let dir = tempfile::tempdir().unwrap();
    let mut program = Command::new(target().join("debug/examples/rusqlite"));
    assert_eq!(
        stdout(program.arg("state.db").current_dir(&dir)),
        "2 events"
    );
}

#[test]
fn a_c_program_with_the_static_library() {
    let test = "a_c_program_with_the_static_library";
    let header = Path::new("/usr/include/sqlite3.h").exists();
    if !has_program(test, "cc", "gcc")
        || !support::available(test, "sqlite3.h", header, "apt-get install libsqlite3-dev")
    {
        return;
    }
    let library = [
        "rustc",
        "--quiet",
        "--lib",
        "--no-default-features",
        "--crate-type",
        "staticlib",
    ];
    cargo(&library, &target().join("static"));
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("linked");
    succeed(
        Command::new("cc")
            .current_dir(root())
            .args([
                "-std=c99",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Ic",
                "examples/linked.c",
            ])
            .arg(target().join("static/debug/libturnstile.a"))
            .args(["-lsqlite3", "-lpthread", "-ldl", "-lm", "-o"])
            .arg(&program),
    );
    let run = |environment: &str| {
        let mut command = Command::new(&program);
        command
            .arg("state.db")
            .current_dir(&dir)
            .env("TURNSTILE_FS", environment);
        command
    };
    assert_eq!(stdout(&mut run("local")), "turnstile: not an error");
    assert!(dir.path().join("state.db").exists());
    assert_eq!(run("nfs").status().unwrap().code(), Some(1));
}
