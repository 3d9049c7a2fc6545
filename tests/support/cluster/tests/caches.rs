//! What a node's kernel has cached is old news, and is believed.

use crate::cluster::{Cluster, Mount, Pages};
use crate::{LONG, SOON, errno, open, read, within};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Another node writes, and the size stays the same.
fn overwritten(mount: Mount) -> (Cluster, File) {
    let cluster = Cluster::new(&[Mount::default(), mount]);
    let writer = open(&cluster.path(0).join("f"));
    writer.write_at(b"old", 0).unwrap();
    let reader = open(&cluster.path(1).join("f"));
    assert_eq!(read(&reader), "old");
    writer.write_at(b"new", 0).unwrap();
    (cluster, reader)
}

#[test]
fn cached_pages_are_stale() {
    if !Cluster::available("cached_pages_are_stale") {
        return;
    }
    let (cluster, reader) = overwritten(Mount::cached(LONG));
    assert_eq!(read(&reader), "old");
    cluster.drop_caches(1);
    assert_eq!(read(&reader), "new");

    // Attributes that are fetched anew drop the pages.
    let (_cluster, reader) = overwritten(Mount::cached(LONG));
    // SAFETY: a descriptor and a path; the result goes into a struct of its own.
    let code = unsafe {
        let mut into = std::mem::zeroed();
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_FORCE_SYNC;
        let (fd, empty) = (reader.as_raw_fd(), c"".as_ptr());
        libc::statx(fd, empty, flags, libc::STATX_MTIME, &mut into)
    };
    assert_eq!(code, 0);
    assert_eq!(read(&reader), "new");

    // So does time.
    let (_cluster, reader) = overwritten(Mount::cached(Duration::from_millis(100)));
    assert!(within(SOON, || read(&reader) == "new"));

    // Without KEEP_CACHE an open drops them, too: on that node.
    let until_opened = Mount {
        pages: Pages::UntilOpened,
        ..Mount::cached(LONG)
    };
    let (cluster, reader) = overwritten(until_opened);
    assert_eq!(read(&reader), "old");
    open(&cluster.path(1).join("f"));
    assert_eq!(read(&reader), "new");
}

#[test]
fn pages_that_are_not_cached_are_never_stale() {
    if !Cluster::available("pages_that_are_not_cached_are_never_stale") {
        return;
    }
    for pages in [Pages::Direct, Pages::DirectMapped] {
        let (_cluster, reader) = overwritten(Mount {
            pages,
            ..Mount::cached(LONG)
        });
        assert_eq!(read(&reader), "new", "{pages:?}");
    }
    let (_cluster, reader) = overwritten(Mount {
        attributes: Duration::ZERO,
        ..Mount::cached(LONG)
    });
    assert_eq!(read(&reader), "new", "kept, but each time asked for");
}

#[test]
fn names_that_lead_nowhere_are_cached() {
    if !Cluster::available("names_that_lead_nowhere_are_cached") {
        return;
    }
    let with = |absences| Mount {
        absences,
        ..Mount::default()
    };
    let short = Duration::from_millis(100);
    let cluster = Cluster::new(&[with(Duration::ZERO), with(LONG), with(short)]);
    let [here, there, elsewhere] = [0, 1, 2].map(|node| cluster.path(node).join("f"));
    assert!(!there.exists() && !elsewhere.exists());
    open(&here);
    assert!(here.exists() && !there.exists());
    assert!(within(SOON, || elsewhere.exists()));
    assert!(!there.exists());
    // Nor does it help to look at the directory.
    let directory = there.parent().unwrap();
    let listed = std::fs::read_dir(directory).unwrap().count();
    assert_eq!((listed, there.exists()), (1, false));
    // A link to another file system's file cannot be made, but before it says so it asks.
    let linked = std::fs::hard_link("/proc/self/status", &there);
    assert_eq!(errno(linked), Some(libc::EEXIST));
    assert!(there.exists());
    std::fs::remove_file(&there).unwrap();
    let linked = std::fs::hard_link("/proc/self/status", &there);
    assert_eq!(errno(linked), Some(libc::EXDEV));
}

#[test]
fn names_that_lead_elsewhere_are_cached() {
    if !Cluster::available("names_that_lead_elsewhere_are_cached") {
        return;
    }
    let cluster = Cluster::new(&[Mount::default(), Mount::cached(LONG)]);
    let [here, there] = [0, 1].map(|node| cluster.path(node).join("f"));
    std::fs::write(&here, "old").unwrap();
    assert_eq!(std::fs::read(&there).unwrap(), b"old");
    std::fs::remove_file(&here).unwrap();
    assert!(there.exists());
    std::fs::write(&here, "new").unwrap();
    assert_eq!(std::fs::read(&there).unwrap(), b"old");
}
