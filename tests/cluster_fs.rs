//! The proving ground itself: the cluster file system of `tests/support/cluster`, with real programs on it.

mod support;

#[path = "support/cluster/mod.rs"]
mod cluster;

#[path = "support/cluster/tests/caches.rs"]
mod caches;
#[path = "support/cluster/tests/faults.rs"]
mod faults;
#[path = "support/cluster/tests/locks.rs"]
mod locks;
#[path = "support/cluster/tests/mounts.rs"]
mod mounts;
#[path = "support/cluster/tests/pieces.rs"]
mod pieces;
#[path = "support/cluster/tests/programs.rs"]
mod programs;

use cluster::guest::Guest;
use cluster::{Cluster, Mount};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use support::within;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

const SOON: Duration = Duration::from_secs(10);

/// Two nodes that cache nothing.
fn plain() -> Cluster {
    Cluster::new(&[Mount::default(); 2])
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true);
    options.truncate(false).open(path).unwrap()
}

fn read(file: &File) -> String {
    let mut data = [0; 64];
    let length = file.read_at(&mut data, 0).unwrap();
    String::from_utf8(data[..length].into()).unwrap()
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().map(|e| e.raw_os_error().unwrap())
}

/// A guest on each node that has the file `name` open as `fd`.
fn guests(cluster: &Cluster, name: &str) -> [Guest; 2] {
    [0, 1].map(|node| {
        let mut guest = Guest::new();
        let path = cluster.path(node).join(name);
        guest.run(&format!("path = {:?}", path.display().to_string()));
        guest.run("fd = os.open(path, os.O_RDWR | os.O_CREAT)");
        guest
    })
}
