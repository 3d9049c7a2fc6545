//! The command `turnstile`. One file or folder per verb; this one only takes the words apart.
//!
//! Exit codes: 0 done, 1 it failed or found something wrong, 2 bad usage (clap), 130 interrupted.
#![deny(unsafe_code)] // the one exception, with its reason: bench/control.rs

mod bench;

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a verb fails with: one sentence for the user, saying what and what to do about it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One SQLite database for very many processes.
#[derive(Parser)]
#[command(name = "turnstile", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Bench(bench::Arguments),

    /// One writer of `bench`, started by it and by nobody else.
    #[command(hide = true)]
    BenchWriter(bench::WriterArguments),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::BenchWriter(arguments) => bench::run_writer(&arguments),
    };
    outcome.unwrap_or_else(|failure| {
        // A closed stderr is no reason to panic.
        let _ = writeln!(stderr(), "turnstile: {failure}");
        ExitCode::FAILURE
    })
}
