//! The README's own snippets, run in order, as a user would run them.
//!
//! They run in a scratch directory in which everything is a link into this source tree, so that the
//! paths in the README are right and what the snippets leave behind goes away with it.
#![cfg(feature = "cli")]

mod support;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use support::{has_program, root, succeed};

struct Snippet {
    language: String,
    text: String,
}

/// The fenced blocks of the README that say which language they are in.
fn snippets() -> Vec<Snippet> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = readme.split("\n```").skip(1).step_by(2);
    let mut snippets = Vec::new();
    for block in &mut blocks {
        let (language, text) = block.split_once('\n').unwrap();
        if !language.is_empty() {
            snippets.push(Snippet {
                language: language.to_owned(),
                text: text.to_owned(),
            });
        }
    }
    snippets
}

fn scratch() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "target" {
            symlink(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    // Not the target directory of those who run the tests: a library built with other features would take the
    // place of theirs, and the doctests that come after this would find it.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    std::fs::create_dir_all(&target).unwrap();
    symlink(target, dir.path().join("target")).unwrap();
    dir
}

fn run(snippet: &Snippet, dir: &Path) {
    // Debian's python3 and sqlite3, which are the ones that the README speaks of.
    let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap());
    let (program, argument) = match snippet.language.as_str() {
        "sh" => ("bash", "-euxc"),
        "python" => ("python3", "-c"),
        // Doctests (src/lib.rs), a manifest, and what a program prints.
        "rust" | "toml" | "text" => return,
        other => panic!("the README has a snippet in {other}, which nobody runs"),
    };
    // Not the test command: it is what runs this.
    let lines = snippet
        .text
        .lines()
        .filter(|line| !line.starts_with("cargo test"));
    let text = lines.collect::<Vec<_>>().join("\n");
    succeed(
        Command::new(program)
            .args([argument, &text])
            .current_dir(dir)
            .env("PATH", path)
            // Four programs are built here, none of which has to be quick.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env_remove("CARGO_TARGET_DIR"),
    );
}

#[test]
fn every_snippet_does_what_it_says() {
    let test = "every_snippet_does_what_it_says";
    for (program, package) in [
        ("/usr/bin/python3", "python3"),
        ("/usr/bin/sqlite3", "sqlite3"),
        ("cc", "gcc"),
    ] {
        if !has_program(test, program, package) {
            return;
        }
    }
    let snippets = snippets();
    let count = |language: &str| snippets.iter().filter(|s| s.language == language).count();
    assert!(
        count("sh") >= 3 && count("python") >= 1 && count("rust") >= 1,
        "the doors' snippets"
    );
    let dir = scratch();
    for snippet in &snippets {
        run(snippet, dir.path());
    }
}

/// The two commands that the README begins with, to the letter: CI runs the second one.
#[test]
fn the_two_commands() {
    let first = &snippets()[0];
    let commands: Vec<&str> = first.text.lines().filter(|l| !l.is_empty()).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert!(
        commands[0].starts_with("cargo run --release -- bench"),
        "{commands:?}"
    );
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    let test = commands[1].split('#').next().unwrap().trim();
    assert!(ci.replace(" --locked", "").contains(test), "{test}");
}
