//! What the numbers were measured on, and what else was going on there.

use std::fs;
use std::path::Path;
use std::thread;

use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

/// The facts that belong beside every result.
#[derive(Serialize)]
pub struct Machine {
    pub cores: usize,
    pub kernel: String,
    pub directory: String,
    pub file_system: String,
    pub sqlite: &'static str,
    /// `TURNSTILE_...` variables: they change what is measured.
    pub environment: Vec<String>,
}

impl Machine {
    /// This machine, with `directory` as the place of the databases.
    pub fn here(directory: &Path) -> Self {
        let mut environment: Vec<String> = std::env::vars_os()
            .filter(|(name, _)| name.to_string_lossy().starts_with("TURNSTILE_"))
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
            .collect();
        environment.sort();
        Self {
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            directory: directory.display().to_string(),
            file_system: file_system(directory, &read("/proc/self/mountinfo")),
            sqlite: rusqlite::version(),
            environment,
        }
    }
}

/// CPU seconds that the whole machine has been busy since it started, I/O wait not included.
pub fn busy_seconds() -> Option<f64> {
    let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten()?;
    Some(busy_ticks(&read("/proc/stat"))? as f64 / hertz as f64)
}

/// The sum of user, nice, system, irq, softirq and steal; guest time is part of user.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq + steal)
}

/// The type of the mount that `directory` (an absolute path) is on.
fn file_system(directory: &Path, mountinfo: &str) -> String {
    let mut longest = (0, "unknown file system");
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else {
            continue;
        };
        let point = point.replace("\\040", " ");
        // A later mount covers an earlier one on the same point.
        if directory.starts_with(&point) && point.len() >= longest.0 {
            longest = (point.len(), kind);
        }
    }
    longest.1.to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "21 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
                      22 21 0:20 / /mnt/my\\040disk rw - fuse.sshfs host: rw\n\
                      23 21 0:21 / /mnt/my rw - tmpfs tmpfs rw\n";
        assert_eq!(
            file_system(Path::new("/mnt/my disk/x"), mounts),
            "fuse.sshfs"
        );
        assert_eq!(file_system(Path::new("/mnt/mys"), mounts), "ext4");
        assert_eq!(file_system(Path::new("/x"), ""), "unknown file system");
    }

    #[test]
    fn idle_and_iowait_are_not_busy() {
        assert_eq!(
            busy_ticks("cpu  1 2 4 1000 1000 8 16 32 64 0\ncpu0 9"),
            Some(63)
        );
        assert_eq!(busy_ticks(""), None);
    }
}
