//! The results as text: one column for each VFS, failures by name, then the proof.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::results::{Results, Summary, failed};
use super::sqlite_error::is_contention;
use super::units::{count, duration, three_digits};

/// All that is printed when `--json` is not asked for.
pub fn render(results: &Results) -> String {
    let mut text = String::new();
    let machine = &results.machine;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", results.title);
    let _ = writeln!(
        text,
        "{} cores, Linux {}, SQLite {}, {} ({})",
        machine.cores, machine.kernel, machine.sqlite, machine.directory, machine.file_system
    );
    if !machine.environment.is_empty() {
        let _ = writeln!(text, "{}", machine.environment.join(" "));
    }
    text.push('\n');
    for line in grid(&results.summary) {
        let _ = writeln!(text, "{line}");
    }
    text.push('\n');
    for line in proof(&results.summary) {
        let _ = writeln!(text, "{line}");
    }
    for line in notes(results) {
        let _ = writeln!(text, "note: {line}");
    }
    text
}

fn grid(summary: &[Summary]) -> Vec<String> {
    type Cell = fn(&Summary) -> Option<String>;
    let us = |figure: f64| duration(figure * 1e3);
    let latency: [(&str, Cell); 5] = [
        ("p50", |s| {
            s.latency.as_ref().map(|l| duration(l.p50_us * 1e3))
        }),
        ("p99", |s| {
            s.latency.as_ref().map(|l| duration(l.p99_us * 1e3))
        }),
        ("p99.9", |s| {
            s.latency.as_ref().map(|l| duration(l.p999_us * 1e3))
        }),
        ("max", |s| {
            s.latency.as_ref().map(|l| duration(l.max_us * 1e3))
        }),
        ("p99.9 / p50", |s| {
            s.latency.as_ref().map(|l| three_digits(l.p999_over_p50))
        }),
    ];
    let row = |label: &str, cell: &dyn Fn(&Summary) -> Option<String>| {
        let cells = summary
            .iter()
            .map(|s| cell(s).unwrap_or_else(|| "-".to_owned()));
        (label.to_owned(), cells.collect::<Vec<_>>())
    };

    let mut rows = vec![
        row("", &|s| Some(s.vfs.clone())),
        row("writes/s", &|s| {
            Some(count(s.writes_per_second.round() as u64))
        }),
    ];
    rows.extend(latency.iter().map(|(label, cell)| row(label, cell)));
    rows.push(row("failures", &|s| Some(count(failed(&s.failures)))));
    let names: BTreeSet<&String> = summary.iter().flat_map(|s| s.failures.keys()).collect();
    for name in names {
        let number = |s: &Summary| s.failures.get(name).map_or(0, |f| f.count);
        rows.push(row(&format!("  {name}"), &|s| Some(count(number(s)))));
        let longest = |s: &Summary| s.failures.get(name).map(|f| us(f.longest_ms * 1e3));
        rows.push(row("    after up to", &longest));
    }
    rows.push(row("Jain's fairness", &|s| {
        s.jain.map(|j| format!("{j:.3}"))
    }));
    if summary.iter().any(|s| s.writers_left_out > 0.0) {
        rows.push(row("  never got to write", &|s| {
            Some(format!("{}", s.writers_left_out))
        }));
    }
    rows.push(row("CPU per write", &|s| s.cpu_us_per_write.map(us)));
    rows.push(row("waits per write", &|s| {
        s.waits_per_write.map(three_digits)
    }));
    rows.push(row("others' cores", &|s| s.others_cores.map(three_digits)));

    let labels = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let cells = rows
        .iter()
        .flat_map(|(_, cells)| cells)
        .map(|c| c.chars().count());
    let width = cells.max().unwrap_or(0) + 3;
    rows.iter()
        .map(|(label, cells)| {
            let cells: String = cells.iter().map(|cell| format!("{cell:>width$}")).collect();
            format!("{label:labels$}{cells}")
        })
        .collect()
}

fn proof(summary: &[Summary]) -> Vec<String> {
    let width = summary.iter().map(|s| s.vfs.len()).max().unwrap_or(0);
    summary
        .iter()
        .map(|s| {
            let mut line = format!(
                "{:width$}   {} commits acknowledged, {} rows found",
                s.vfs,
                count(s.acknowledged),
                count(s.rows)
            );
            if s.unacknowledged_but_stored > 0 {
                let stored = count(s.unacknowledged_but_stored);
                let _ = write!(line, ", {stored} of them unacknowledged but stored");
            }
            line.push_str(if s.proven {
                ", integrity_check ok"
            } else {
                "  PROOF FAILED"
            });
            line
        })
        .collect()
}

/// Whatever a reader of the table should not miss.
fn notes(results: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    if results.interrupted {
        let asked = results.parameters.rounds as usize * results.parameters.vfs.len();
        notes.push(format!(
            "interrupted: {} of {asked} rounds were begun, the last one may be shorter",
            results.rounds.len()
        ));
    }
    for round in &results.rounds {
        let place = format!("round {} of {}", round.round, round.vfs);
        for casualty in &round.casualties {
            notes.push(format!("{place}: {casualty}"));
        }
        if !round.proof.holds() {
            notes.push(format!(
                "{place}: {} ACKNOWLEDGED COMMITS ARE LOST, {} rows are unexplained, integrity_check: {}",
                round.proof.lost,
                round.proof.unexplained,
                round.proof.integrity_check.join("; ")
            ));
        }
    }
    for summary in &results.summary {
        for (name, failure) in &summary.failures {
            if !is_contention(failure.code) {
                notes.push(format!(
                    "{}: {name} is not contention: {}",
                    summary.vfs, failure.message
                ));
            }
        }
    }
    notes
}
