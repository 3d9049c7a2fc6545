//! The latency distributions as one picture: a lane for each VFS over one logarithmic axis.
//!
//! All areas are equal, so a high peak means that nearly all writes took about the same time. A
//! density cannot show one write in a thousand; therefore the bar under each curve, from the
//! median to p99.9, with every slower write as a dot.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::density;
use super::results::{Results, Summary, failed};
use super::svg::{Anchor, Font, Svg};
use super::units::{count, duration, three_digits};
use crate::Failure;

const WIDTH: f64 = 1000.0;
const TOP: f64 = 92.0;
const LANE: f64 = 196.0;
/// What a lane keeps free above the highest peak, and under the baseline for the bar.
const HEAD: f64 = 14.0;
const FOOT: f64 = 50.0;
const AXIS: f64 = 64.0;
const LEFT: f64 = 232.0;
const RIGHT: f64 = 968.0;

const INK: &str = "#1f2933";
const PALE: &str = "#6b7785";
const GRID: &str = "#e8ecf0";
const ALARM: &str = "#b42318";
/// Turnstile's own color, and those of the others in turn; told apart by the color-blind too.
const OURS: &str = "#0f7c8a";
const OTHERS: [&str; 3] = ["#d9622b", "#7a5195", "#8a7a2a"];

/// The dots of one lane; of more, evenly chosen ones are drawn.
const DOTS: usize = 400;

/// The file that the picture will be written to, known to be writable before anything is measured.
pub struct PlotFile {
    file: File,
    path: PathBuf,
    /// Whether it was made by us and is still empty.
    remove: bool,
}

impl PlotFile {
    /// Opens `path` and leaves what is in it for now.
    pub fn claim(path: &Path) -> Result<Self, Failure> {
        let remove = !path.exists();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let file = file.map_err(|e| {
            format!(
                "--plot {}: {e}; name a file in an existing directory",
                path.display()
            )
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            remove,
        })
    }

    /// Replaces the contents.
    pub fn write(mut self, picture: &str) -> Result<(), Failure> {
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.write_all(picture.as_bytes()));
        written.map_err(|e| format!("--plot {}: {e}", self.path.display()))?;
        self.remove = false;
        Ok(())
    }
}

impl Drop for PlotFile {
    fn drop(&mut self) {
        if self.remove {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// log10 of nanoseconds to pixels.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// From a decade's start to a decade's end around all latencies.
    fn around(summary: &[Summary]) -> Self {
        let logs = |ns: Option<&u64>| ns.map(|&ns| (ns.max(1) as f64).log10());
        let low = summary
            .iter()
            .filter_map(|s| logs(s.latencies.first()))
            .fold(f64::MAX, f64::min);
        let high = summary
            .iter()
            .filter_map(|s| logs(s.latencies.last()))
            .fold(0.0, f64::max);
        if low > high {
            return Self {
                low: 3.0,
                high: 9.0,
            }; // No write at all.
        }
        // A little air on both sides, for the smoothing and the labels.
        Self {
            low: low.min(high - 1.0) - 0.15,
            high: high + 0.3,
        }
    }

    fn x(&self, log: f64) -> f64 {
        LEFT + (log - self.low) / (self.high - self.low) * (RIGHT - LEFT)
    }

    fn of_us(&self, us: f64) -> f64 {
        self.x((us * 1e3).max(1.0).log10())
    }
}

fn font(size: f64, color: &'static str) -> Font {
    Font {
        size,
        bold: false,
        color,
        anchor: Anchor::Start,
    }
}

fn bold(size: f64, color: &'static str) -> Font {
    Font {
        bold: true,
        ..font(size, color)
    }
}

/// The picture.
pub fn draw(results: &Results) -> String {
    let lanes = &results.summary;
    let bottom = TOP + LANE * lanes.len() as f64;
    let axis = Axis::around(lanes);
    let title = match results.parameters.writers {
        1 => "How long one write takes".to_owned(),
        n => format!(
            "How long one write takes when {} processes share one SQLite database",
            count(n.into())
        ),
    };
    let description = format!("{title}: {}", results.title);
    let mut svg = Svg::new(WIDTH, bottom + AXIS, &description);
    svg.text((24.0, 38.0), bold(21.0, INK), &title);
    svg.text((24.0, 62.0), font(13.5, PALE), &results.title);
    scale(&mut svg, &axis, bottom);

    let curves: Vec<_> = lanes
        .iter()
        .map(|s| density::curve(&s.latencies, axis.low, axis.high))
        .collect();
    let peak = curves
        .iter()
        .flatten()
        .map(|(_, y)| *y)
        .fold(f64::MIN_POSITIVE, f64::max);
    let mut others = OTHERS.iter().cycle();
    for (i, (summary, curve)) in lanes.iter().zip(&curves).enumerate() {
        let top = TOP + LANE * i as f64;
        let color = match summary.vfs.as_str() {
            super::TURNSTILE => OURS,
            _ => others.next().unwrap_or(&PALE),
        };
        let ground = top + LANE - FOOT;
        let height = (LANE - FOOT - HEAD) / peak;
        let points: Vec<_> = curve
            .iter()
            .map(|&(log, y)| (axis.x(log), ground - y * height))
            .collect();
        legend(&mut svg, summary, top, color);
        svg.line((LEFT, ground), (RIGHT, ground), GRID, 1.5, "");
        if summary.latency.is_some() {
            let mut outline = points.clone();
            outline.push((RIGHT, ground));
            outline.push((LEFT, ground));
            svg.area(&outline, color, 0.28);
            svg.curve(&points, color, 2.0);
            tail(&mut svg, summary, &axis, ground, color);
        }
    }
    let m = &results.machine;
    let rounds = lanes.iter().map(|s| s.rounds).max().unwrap_or(0);
    let foot = format!(
        "Equal areas; {rounds} round{} each, in alternation. {} cores, Linux {}, SQLite {}, {}. turnstile {}",
        if rounds == 1 { "" } else { "s" },
        m.cores,
        m.kernel,
        m.sqlite,
        m.file_system,
        results.version
    );
    svg.text((24.0, bottom + AXIS - 14.0), font(11.5, PALE), &foot);
    svg.finish()
}

/// Decades with their names, and the lines between them.
fn scale(svg: &mut Svg, axis: &Axis, bottom: f64) {
    for decade in axis.low.floor() as i32..=axis.high.floor() as i32 {
        for step in 1..10 {
            let log = f64::from(decade) + f64::from(step).log10();
            if !(axis.low..=axis.high).contains(&log) {
                continue;
            }
            let x = axis.x(log);
            if step > 1 {
                svg.line((x, bottom - 4.0), (x, bottom), "#c5ccd3", 1.0, "");
                continue;
            }
            svg.line((x, TOP), (x, bottom), GRID, 1.0, "");
            let name = match decade.rem_euclid(3) {
                power if decade < 9 => {
                    format!(
                        "{} {}",
                        10_i32.pow(power as u32),
                        ["ns", "µs", "ms"][decade as usize / 3]
                    )
                }
                _ => format!("{} s", 10_i64.pow((decade - 9) as u32)),
            };
            let font = Font {
                anchor: Anchor::Middle,
                ..font(12.5, INK)
            };
            svg.text((x, bottom + 18.0), font, &name);
        }
    }
}

/// The lane's name and its figures, left of the curve.
fn legend(svg: &mut Svg, summary: &Summary, top: f64, color: &'static str) {
    svg.text((24.0, top + 40.0), bold(19.0, color), &summary.vfs);
    let rate = format!(
        "{} writes/s",
        count(summary.writes_per_second.round() as u64)
    );
    svg.text((24.0, top + 64.0), font(14.0, INK), &rate);
    if let Some(jain) = summary.jain {
        svg.text(
            (24.0, top + 84.0),
            font(14.0, INK),
            &format!("fairness {jain:.3} (Jain)"),
        );
    }
    if let Some(latency) = &summary.latency {
        let ratio = format!("p99.9 = {} × p50", three_digits(latency.p999_over_p50));
        svg.text((24.0, top + 104.0), font(14.0, INK), &ratio);
    }
    if failed(&summary.failures) == 0 {
        svg.text((24.0, top + 124.0), font(14.0, INK), "no write failed");
    }
    for (i, (name, failure)) in summary.failures.iter().enumerate() {
        let text = format!("{} × {name}", count(failure.count));
        svg.text(
            (24.0, top + 124.0 + 18.0 * i as f64),
            bold(14.0, ALARM),
            &text,
        );
    }
}

/// Median and p99.9, the bar between them, and every write beyond.
fn tail(svg: &mut Svg, summary: &Summary, axis: &Axis, ground: f64, color: &'static str) {
    let Some(latency) = &summary.latency else {
        return;
    };
    let bar = ground + 14.0;
    let (p50, p999) = (axis.of_us(latency.p50_us), axis.of_us(latency.p999_us));
    svg.line((p50, ground), (p50, bar), color, 1.5, "");
    svg.line((p999, ground), (p999, bar), color, 1.5, "");
    svg.line((p50, bar), (p999, bar), color, 4.0, "");

    let slower = summary
        .latencies
        .partition_point(|&ns| ns as f64 <= latency.p999_us * 1e3);
    let slower = &summary.latencies[slower..];
    for &ns in slower.iter().rev().step_by(slower.len() / DOTS + 1) {
        svg.dot((axis.of_us(ns as f64 / 1e3), bar), 2.2, color, 0.55);
    }
    svg.dot((p50, bar), 5.0, color, 1.0);
    svg.dot((p999, bar), 5.0, color, 1.0);

    let us = |us: f64| duration(us * 1e3);
    let median = format!("p50 {}", us(latency.p50_us));
    let worst = format!("p99.9 {} · max {}", us(latency.p999_us), us(latency.max_us));
    // No font is at hand to measure with; bold sans-serif is about this wide.
    let width = worst.chars().count() as f64 * 7.6;
    // The worst begin under their dot or end at the edge; the median ends under its dot or there.
    let y = bar + 23.0;
    let start = (p999 - 5.0).max(p50 + 24.0).min(RIGHT - width);
    let end = (p50 + 5.0).min(start - 14.0);
    let text = bold(13.5, color);
    svg.text((start, y), text, &worst);
    svg.text(
        (end, y),
        Font {
            anchor: Anchor::End,
            ..text
        },
        &median,
    );
}
