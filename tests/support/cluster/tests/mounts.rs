//! Whatever happens, nothing stays mounted.

use crate::cluster::guest::Guest;
use crate::cluster::{Cluster, Mount};
use crate::{SOON, errno, guests, open, plain, within};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether any node of the cluster is mounted that has its files here.
fn mounted(home: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.contains(&format!(" {}/", home.display()))
}

#[test]
fn a_mount_has_a_kind() {
    if !Cluster::available("a_mount_has_a_kind") {
        return;
    }
    let kind = "fuse.glusterfs";
    let cluster = Cluster::new(&[Mount {
        kind,
        ..Mount::default()
    }]);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = cluster.path(0).to_str().unwrap();
    let mut of_it = mounts.lines().filter(|line| line.contains(path));
    assert!(of_it.any(|line| line.contains(&format!(" - {kind} "))));
}

#[test]
fn unmounted_though_it_is_in_use() {
    let test = "unmounted_though_it_is_in_use";
    if !Cluster::available(test) || !Guest::available(test) {
        return;
    }
    let cluster = plain();
    let home = cluster.path(0).parent().unwrap().to_owned();
    let file = open(&cluster.path(0).join("f"));
    let [mut a, mut b] = guests(&cluster, "f");
    a.run("lock(fd, W)");
    b.tell("wait(fd, W)");
    assert!(mounted(&home));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _dropped = cluster;
        std::panic::resume_unwind(Box::new("a test fails"));
    }));
    assert!(panicked.is_err());
    assert!(!mounted(&home));
    assert!(!home.exists());
    assert_eq!(errno(file.write_at(b"late", 0)), Some(libc::ENOTCONN));
    // Who waits is told as well.
    let told = b.answer(SOON);
    assert!(told.is_some_and(|told| told != "None"));
}

/// The process of [`unmounted_though_the_test_was_killed`].
#[test]
fn doomed_process() {
    if std::env::var_os("CLUSTER_DOOMED").is_none() {
        return;
    }
    let cluster = plain();
    let file = open(&cluster.path(0).join("f"));
    file.write_at(b"text", 0).unwrap();
    writeln!(std::io::stderr(), "mounted {}", cluster.path(0).display()).unwrap();
    // With one of its own files open.
    std::thread::sleep(crate::LONG);
}

#[test]
fn unmounted_though_the_test_was_killed() {
    if !Cluster::available("unmounted_though_the_test_was_killed") {
        return;
    }
    let mut doomed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mounts::doomed_process", "--nocapture"])
        .env("CLUSTER_DOOMED", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(doomed.stderr.take().unwrap());
    let mut said = said.lines().map_while(Result::ok);
    let path = said.find_map(|line| line.strip_prefix("mounted ").map(PathBuf::from));
    let path = path.expect("it says where");
    let home = path.parent().unwrap();
    assert!(mounted(home));
    doomed.kill().unwrap();
    assert!(within(SOON, || matches!(doomed.try_wait(), Ok(Some(_)))));
    assert!(within(SOON, || !mounted(home)));
    // Its files it leaves behind, as any test that is killed.
    std::fs::remove_dir_all(home).unwrap();
}
