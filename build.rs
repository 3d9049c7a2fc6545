//! Compiles the C doors (`c/`).
//!
//! SQLite's headers come from libsqlite3-sys where it is in the build (features `linked`, `cli`),
//! else from the system. Only declarations are used, and nothing newer than SQLite 3.26 without a
//! check, so it does not matter which version they are of.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=c");
    println!("cargo:rerun-if-env-changed=DEP_SQLITE3_INCLUDE");

    let mut build = cc::Build::new();
    build
        .files(["c/extension.c", "c/linked.c"])
        .flag_if_supported("-std=c99")
        .flag_if_supported("-fvisibility=hidden")
        .extra_warnings(true);
    if let Some(directory) = env::var_os("DEP_SQLITE3_INCLUDE") {
        build.include(directory);
    }
    if let Err(error) = build.try_compile("turnstile_doors") {
        eprintln!("{error}");
        eprintln!(
            "turnstile: the C files in c/ do not compile. They need sqlite3.h and sqlite3ext.h: \
             build with the feature `linked`, which brings them, or install them \
             (Debian: apt-get install libsqlite3-dev)"
        );
        std::process::exit(1);
    }

    // A registered VFS is called for as long as the process lives. SQLITE_OK_LOAD_PERMANENTLY asks
    // SQLite not to unload us; this asks the dynamic linker, for hosts that ignore the former.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
