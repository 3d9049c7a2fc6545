//! The command line of a bench that counts: what is compared with `unix`, or a workload of the bench's own, which it runs
//! in a process of its own.

use std::process::ExitCode;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where a bench runs itself again as a workload, its first argument.
pub const WORKLOAD: &str = "--workload";

/// Runs the bench `name`. `compare` says whether its VFS keeps within what is accepted.
pub fn run(
    name: &str,
    compare: impl FnOnce(&str) -> Result<bool>,
    workload: impl FnOnce(&[&str]) -> Result<()>,
) -> ExitCode {
    // Cargo itself adds `--bench`.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [WORKLOAD, ref arguments @ ..] => workload(arguments).map(|()| true),
        [] => compare("turnstile"),
        [vfs] => compare(vfs),
        _ => Err(format!("usage: cargo bench --bench {name} [-- VFS]").into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
