//! Locks: between processes, between nodes, and when they end.

use crate::cluster::guest::Guest;
use crate::cluster::{Cluster, LockScope, Mount, Op};
use crate::{SOON, guests, plain, within};
use std::time::Duration;

#[test]
fn locks_exclude_across_nodes() {
    let test = "locks_exclude_across_nodes";
    if !Cluster::available(test) || !Guest::available(test) {
        return;
    }
    let cluster = plain();
    let [mut a, mut b] = guests(&cluster, "f");
    a.run("lock(fd, W, 10, 5)");
    assert_eq!(b.ask("lock(fd, R, 14)"), "EAGAIN");
    assert_eq!(b.ask("ofd(fd, R, 14)"), "EAGAIN");
    let held = format!("('W', 10, 5, {})", a.id());
    assert_eq!(b.ask("holder(fd, R, 0, 0)"), held);
    b.run("lock(fd, W, 15)");
    a.run("lock(fd, R, 10, 5)");
    b.run("ofd(fd, R, 14)");
    assert_eq!(b.ask("lock(fd, W, 12)"), "EAGAIN");
    a.run("lock(fd, U, 10, 2)");
    b.run("lock(fd, W, 10, 2)");
    assert!(cluster.counts(1)[Op::Setlk] >= 6);
    assert_eq!(cluster.counts(0)[Op::Unlock], 1);
}

#[test]
fn posix_locks_end_with_any_close_by_their_owner() {
    let test = "posix_locks_end_with_any_close_by_their_owner";
    if !Cluster::available(test) || !Guest::available(test) {
        return;
    }
    let cluster = plain();
    let [mut a, mut b] = guests(&cluster, "f");
    a.run("lock(fd, W)");
    a.run("other = os.open(path, os.O_RDONLY)");
    assert_eq!(b.ask("lock(fd, W)"), "EAGAIN");
    a.run("os.close(other)");
    b.run("lock(fd, W)");
    assert_eq!(a.ask("lock(fd, W)"), "EAGAIN");
    b.kill();
    a.run("lock(fd, W)");
}

#[test]
fn ofd_locks_end_with_their_open_file() {
    let test = "ofd_locks_end_with_their_open_file";
    if !Cluster::available(test) || !Guest::available(test) {
        return;
    }
    let cluster = plain();
    let [mut a, mut b] = guests(&cluster, "f");
    a.run("ofd(fd, W)");
    a.run("other = os.open(path, os.O_RDWR)");
    // The same process, but not the same open file.
    assert_eq!(a.ask("ofd(other, W)"), "EAGAIN");
    a.run("os.close(other)");
    a.run("copy = os.dup(fd); os.close(fd)");
    assert_eq!(b.ask("ofd(fd, W)"), "EAGAIN");
    a.run("os.close(copy)");
    // The kernel's RELEASE follows the close, and nobody waits for it.
    assert!(within(SOON, || b.ask("ofd(fd, W)") == "None"));
    assert_eq!(a.ask("ofd(os.open(path, os.O_RDWR), W)"), "EAGAIN");
    b.kill();
    let again = "ofd(os.open(path, os.O_RDWR), W)";
    assert!(within(SOON, || a.ask(again) == "None"));
}

#[test]
fn who_waits_for_a_lock_holds_up_nobody_else() {
    let test = "who_waits_for_a_lock_holds_up_nobody_else";
    if !Cluster::available(test) || !Guest::available(test) {
        return;
    }
    let cluster = plain();
    let [mut a, mut b] = guests(&cluster, "f");
    a.run("lock(fd, W)");
    let mut waiting: Vec<Guest> = (0..8)
        .map(|_| {
            let mut guest = Guest::new();
            let path = cluster.path(1).join("f");
            guest.run(&format!("fd = os.open({:?}, os.O_RDWR)", path.display()));
            guest.tell("wait(fd, R)");
            guest
        })
        .collect();
    assert!(within(SOON, || cluster.counts(1)[Op::Setlk] == 8));
    b.run("lock(fd, W, 5)");
    a.run("lock(fd, U)");
    for guest in &mut waiting {
        assert_eq!(guest.answer(SOON).as_deref(), Some("None"));
    }
    assert_eq!(a.ask("lock(fd, W)"), "EAGAIN");
}

#[test]
fn locks_can_be_local_or_missing() {
    let test = "locks_can_be_local_or_missing";
    if !Cluster::available(test) || !Guest::available(test) {
        return;
    }
    let with = |locks| Mount {
        locks,
        ..Mount::default()
    };
    let local = Cluster::new(&[with(LockScope::Node); 2]);
    let [mut a, mut b] = guests(&local, "f");
    a.run("lock(fd, W)");
    b.run("lock(fd, W)");
    assert_eq!(local.counts(0)[Op::Setlk], 0);
    let missing = Cluster::new(&[with(LockScope::Nobody); 2]);
    let [mut a, mut b] = guests(&missing, "f");
    assert_eq!(a.ask("lock(fd, W)"), "ENOSYS");
    assert_eq!(a.ask("wait(fd, W)"), "ENOSYS");
    assert_eq!(b.ask("holder(fd, W)"), "ENOSYS");
}

#[test]
fn an_evicted_node_has_lost_its_locks() {
    let test = "an_evicted_node_has_lost_its_locks";
    if !Cluster::available(test) || !Guest::available(test) {
        return;
    }
    let cluster = plain();
    let [mut a, mut b] = guests(&cluster, "f");
    a.run("lock(fd, W)");
    a.run("ofd(fd, W, 7)");
    cluster.forget_locks(0);
    b.run("lock(fd, W, 0, 0)");
    // The other has not heard of it and writes.
    assert_eq!(a.ask("os.pwrite(fd, b'late', 0)"), "4");
    cluster.forget_locks(1);
    a.run("lock(fd, W)");
    let eviction = cluster.evict(0, Duration::from_secs(2));
    assert_eq!(a.ask("os.pwrite(fd, b'late', 0)"), "EIO");
    b.run("lock(fd, W)");
    assert!(cluster.fired(eviction) > 0);
    assert!(within(SOON, || a.ask("os.pwrite(fd, b'late', 0)") == "4"));
    assert_eq!(a.ask("lock(fd, W)"), "EAGAIN");
}
