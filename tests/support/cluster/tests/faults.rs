//! Requests that fail, lie, are late, or do half of what they should.

use crate::cluster::guest::Guest;
use crate::cluster::{Cluster, Errno, Fault, Mount, Op};
use crate::{LONG, SOON, errno, guests, open, plain, read, within};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

#[test]
fn a_failed_fsync_loses_the_data() {
    if !Cluster::available("a_failed_fsync_loses_the_data") {
        return;
    }
    let cluster = Cluster::volatile(&[Mount::default(); 2]);
    let [file, other] = [0, 1].map(|node| open(&cluster.path(node).join("f")));
    let backing = cluster.backing().join("f");
    file.write_at(b"synced", 0).unwrap();
    file.sync_all().unwrap();
    file.write_at(b"dirty, ", 0).unwrap();
    assert_eq!(read(&other), "dirty, ");
    assert_eq!(std::fs::read(&backing).unwrap(), b"synced");
    let fault = Fault::at(&[Op::Fsync]).times(1).answer(Errno::EIO);
    let fault = cluster.inject(fault);
    assert_eq!(errno(file.sync_data()), Some(libc::EIO));
    // The second one says yes, and what it was to sync is gone.
    file.sync_data().unwrap();
    assert_eq!(cluster.fired(fault), 1);
    assert_eq!(
        (read(&file), read(&other)),
        ("synced".into(), "synced".into())
    );
    assert_eq!(file.metadata().unwrap().len(), 6);

    // Written again, it is synced.
    file.write_at(b"again", 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(std::fs::read(&backing).unwrap(), b"againd");
}

#[test]
fn a_crash_loses_what_is_not_synced() {
    if !Cluster::available("a_crash_loses_what_is_not_synced") {
        return;
    }
    let cluster = Cluster::volatile(&[Mount::cached(LONG); 2]);
    let file = open(&cluster.path(0).join("f"));
    file.write_at(b"0123456789", 0).unwrap();
    file.sync_all().unwrap();
    file.set_len(5).unwrap();
    file.write_at(b"lost", 8).unwrap();
    assert_eq!(read(&file), "01234\0\0\0lost");
    let new = cluster.path(0).join("new");
    std::fs::write(&new, "lost").unwrap();
    cluster.crash();
    assert_eq!(read(&file), "0123456789");
    assert_eq!(std::fs::read(&new).unwrap(), b"");
}

#[test]
fn errors_tell_the_truth_or_lie() {
    if !Cluster::available("errors_tell_the_truth_or_lie") {
        return;
    }
    let cluster = plain();
    let path = cluster.path(0).join("f-journal");
    let unlink = || Fault::at(&[Op::Unlink]).of("-journal").on(0).times(1);
    let file = open(&path);
    cluster.inject(unlink().answer(Errno::EIO));
    assert_eq!(errno(std::fs::remove_file(&path)), Some(libc::EIO));
    assert!(path.exists());
    cluster.inject(unlink().lie(Errno::EIO));
    assert_eq!(errno(std::fs::remove_file(&path)), Some(libc::EIO));
    assert!(!path.exists());
    assert!(!cluster.backing().join("f-journal").exists());
    cluster.inject(
        Fault::at(&[Op::Write])
            .of("-journal")
            .nth(2)
            .lie(Errno::ENOSPC),
    );
    file.write_at(b"one", 0).unwrap();
    assert_eq!(errno(file.write_at(b"two", 0)), Some(libc::ENOSPC));
    assert_eq!(read(&file), "two");
    cluster.lift_all();
    file.write_at(b"ok.", 0).unwrap();
    assert_eq!(cluster.injected(0)[Op::Unlink], 2);
    assert_eq!(cluster.injected(0).total(), 3);
}

/// Every kind of request can be refused; that is, each of the calls that make them fails.
#[test]
fn each_call_can_fail() {
    if !Cluster::available("each_call_can_fail") {
        return;
    }
    let cluster = plain();
    let dir = cluster.path(0);
    let path = dir.join("f");
    let file = open(&path);
    let absent = dir.join("absent");
    type Call<'a> = &'a dyn Fn() -> io::Result<()>;
    let calls: [(Op, Call); 15] = [
        (Op::Lookup, &|| path.metadata().map(drop)),
        (Op::Getattr, &|| file.metadata().map(drop)),
        (Op::Setattr, &|| {
            file.set_permissions(file.metadata()?.permissions())
        }),
        (Op::Truncate, &|| file.set_len(0)),
        (Op::Open, &|| File::open(&path).map(drop)),
        (Op::Create, &|| File::create_new(&absent).map(drop)),
        (Op::Read, &|| file.read_at(&mut [0; 8], 0).map(drop)),
        (Op::Write, &|| file.write_at(b"text", 0).map(drop)),
        (Op::Fsync, &|| file.sync_all()),
        (Op::Fsyncdir, &|| File::open(dir)?.sync_all()),
        (Op::Opendir, &|| File::open(dir).map(drop)),
        (Op::Mkdir, &|| std::fs::create_dir(&absent)),
        (Op::Link, &|| std::fs::hard_link(&path, &absent)),
        (Op::Rename, &|| std::fs::rename(&path, &absent)),
        (Op::Unlink, &|| std::fs::remove_file(&path)),
    ];
    for (op, call) in calls {
        let fault = cluster.inject(Fault::at(&[op]).answer(Errno::EIO));
        assert_eq!(errno(call()), Some(libc::EIO), "{op:?}");
        cluster.lift(fault);
    }
    assert!(path.exists() && !absent.exists());
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

#[test]
fn short_writes_reach_the_program() {
    if !Cluster::available("short_writes_reach_the_program") {
        return;
    }
    let cluster = Cluster::new(&[Mount::default(), Mount::cached(LONG)]);
    cluster.inject(Fault::at(&[Op::Write]).short(3));
    for node in 0..2 {
        let file = open(&cluster.path(node).join(format!("f{node}")));
        assert_eq!(file.write_at(b"abcdef", 0).unwrap(), 3);
        assert_eq!(read(&file), "abc");
    }
}

#[test]
fn a_late_answer_holds_up_nobody_else() {
    if !Cluster::available("a_late_answer_holds_up_nobody_else") {
        return;
    }
    let cluster = plain();
    let late = Duration::from_secs(3);
    let open_at = |node: usize, name: &str| open(&cluster.path(node).join(name));
    let [slow, quick] = ["slow", "quick"].map(|name| open_at(0, name));
    cluster.inject(Fault::at(&[Op::Read]).of("slow").late(late));
    std::thread::scope(|scope| {
        let start = Instant::now();
        let readers: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| errno(slow.read_at(&mut [0; 8], 0))))
            .collect();
        assert!(within(late, || cluster.injected(0)[Op::Read] == 16));
        quick.read_at(&mut [0; 8], 0).unwrap();
        quick.write_at(b"quick", 0).unwrap();
        quick.sync_all().unwrap();
        assert_eq!(read(&open_at(1, "quick")), "quick");
        assert!(start.elapsed() < late, "{:?}", start.elapsed());
        for reader in readers {
            assert_eq!(reader.join().unwrap(), None);
        }
        assert!(start.elapsed() >= late, "{:?}", start.elapsed());
    });
}

/// How many descriptors the server holds on the cluster's files.
fn held(cluster: &Cluster) -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    links.filter(|l| l.starts_with(cluster.backing())).count()
}

#[test]
fn a_lie_hands_out_nothing() {
    if !Cluster::available("a_lie_hands_out_nothing") {
        return;
    }
    let cluster = plain();
    let path = |i: u32| cluster.path(0).join(format!("f{i}"));
    let before = held(&cluster);
    for i in 0..100 {
        cluster.inject(Fault::at(&[Op::Create]).times(1).lie(Errno::EIO));
        assert_eq!(errno(File::create(path(i))), Some(libc::EIO));
        cluster.inject(Fault::at(&[Op::Lookup]).times(1).lie(Errno::EIO));
        assert_eq!(errno(path(i).metadata()), Some(libc::EIO));
        cluster.inject(Fault::at(&[Op::Open]).times(1).lie(Errno::EIO));
        assert_eq!(errno(File::open(path(i))), Some(libc::EIO));
        // It is not asked again.
        cluster.inject(Fault::at(&[Op::Release, Op::Flush]).lie(Errno::EIO));
        drop(File::open(path(i)).unwrap());
        std::fs::remove_file(path(i)).unwrap();
        cluster.lift_all();
    }
    assert!(
        within(SOON, || held(&cluster) == before),
        "{}",
        held(&cluster)
    );
}

/// Nothing hangs, whatever fails; and when nothing fails any more, all is well.
#[test]
fn programs_end_though_everything_fails_by_chance() {
    let test = "programs_end_though_everything_fails_by_chance";
    if !Cluster::available(test) || !Guest::available(test) {
        return;
    }
    const WORK: &str = "
def work(seconds):
    end = time.monotonic() + seconds
    done = failed = 0
    while time.monotonic() < end:
        try:
            db = sqlite3.connect(path, timeout=1, isolation_level=None)
            db.execute('CREATE TABLE IF NOT EXISTS t(x)')
            db.execute('INSERT INTO t VALUES(randomblob(3000))')
            done += 1
        except sqlite3.Error:
            failed += 1
    return done + failed > 0
";
    let seed = 9;
    let cluster = Cluster::volatile(&[Mount::default(), Mount::cached(Duration::from_millis(50))]);
    let mut both = guests(&cluster, "state.db");
    let fails = Fault::at(Op::ALL)
        .of("/state.db-journal")
        .chance(0.02, seed);
    cluster.inject(fails.answer(Errno::EIO));
    let lies = Fault::at(Op::ALL).of("/state.db").chance(0.02, seed);
    cluster.inject(lies.lie(Errno::EIO));
    let late = Fault::at(Op::ALL).chance(0.05, seed);
    cluster.inject(late.late(Duration::from_millis(10)));
    for guest in &mut both {
        guest.run(&format!("exec({WORK:?})"));
        guest.tell("work(3)");
    }
    for guest in &mut both {
        assert_eq!(guest.answer(6 * SOON).as_deref(), Some("True"));
    }
    for node in 0..2 {
        let injected = cluster.injected(node);
        assert!(injected.total() > 20, "{injected:?}");
    }
    cluster.lift_all();
    assert_eq!(
        both[0].ask("os.pwrite(os.open(path + '2', os.O_RDWR | os.O_CREAT), b'x', 0)"),
        "1"
    );
}
