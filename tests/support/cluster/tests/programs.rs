//! Programs that people have, on the cluster.

use crate::cluster::guest::Guest;
use crate::cluster::{Cluster, Mount, Op, Pages};
use crate::support::{has_program, stdout, succeed};
use crate::{LONG, errno, guests, open, plain, read};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::Command;

#[test]
fn files_are_as_elsewhere() {
    if !Cluster::available("files_are_as_elsewhere") {
        return;
    }
    let cluster = plain();
    let [here, there] = [0, 1].map(|node| cluster.path(node));
    // A file lives on without a name, on both nodes.
    let file = open(&here.join("a"));
    let other = open(&there.join("a"));
    std::fs::remove_file(there.join("a")).unwrap();
    file.write_at(b"alive", 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(read(&other), "alive");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    assert!(!here.join("a").exists());
    // Under the same name there is another one.
    let new = open(&here.join("a"));
    assert_ne!(
        new.metadata().unwrap().ino(),
        file.metadata().unwrap().ino()
    );
    assert_eq!(read(&new), "");

    std::fs::create_dir(here.join("d")).unwrap();
    std::fs::write(here.join("d/x"), "x").unwrap();
    std::fs::hard_link(here.join("d/x"), here.join("d/y")).unwrap();
    assert_eq!(there.join("d/y").metadata().unwrap().nlink(), 2);
    std::fs::rename(there.join("d/x"), there.join("z")).unwrap();
    std::os::unix::fs::symlink("d/y", there.join("s")).unwrap();
    assert_eq!(
        std::fs::read_link(here.join("s")).unwrap().as_os_str(),
        "d/y"
    );
    assert_eq!(std::fs::read(here.join("s")).unwrap(), b"x");
    let exists = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(here.join("z"));
    assert_eq!(errno(exists), Some(libc::EEXIST));
    std::fs::write(here.join("z"), "shorter").unwrap();
    assert_eq!(std::fs::read(there.join("d/y")).unwrap(), b"shorter");
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(there.join("z"), mode).unwrap();
    assert_eq!(here.join("d/y").metadata().unwrap().mode() & 0o7777, 0o640);
    let listed = stdout(Command::new("ls").arg("-A").arg(here));
    assert_eq!(listed, "a\nd\ns\nz");
    assert_eq!(
        errno(std::fs::remove_dir(there.join("d"))),
        Some(libc::ENOTEMPTY)
    );
    for i in 0..500 {
        open(&here.join(format!("d/{i}")));
    }
    assert_eq!(std::fs::read_dir(there.join("d")).unwrap().count(), 501);
    std::fs::remove_dir_all(there.join("d")).unwrap();
    assert!(!here.join("d").exists());
    succeed(Command::new("df").arg(here));
}

#[test]
fn shared_maps_are_refused_where_nothing_is_cached() {
    let test = "shared_maps_are_refused_where_nothing_is_cached";
    if !Cluster::available(test) || !Guest::available(test) {
        return;
    }
    let expected = [
        (Pages::Direct, "ENODEV"),
        (Pages::DirectMapped, "b'mapped'"),
        (Pages::UntilOpened, "b'mapped'"),
        (Pages::Kept, "b'mapped'"),
    ];
    for (pages, shared) in expected {
        let mount = Mount {
            pages,
            ..Mount::default()
        };
        let cluster = Cluster::new(&[mount; 2]);
        let [mut a, mut b] = guests(&cluster, "f");
        a.run("os.pwrite(fd, b'before', 0) and None");
        assert_eq!(a.ask("mmap.mmap(fd, 6, mmap.MAP_PRIVATE)[:]"), "b'before'");
        let answer = a.ask("m = mmap.mmap(fd, 6, mmap.MAP_SHARED); m[:] = b'mapped'; m.flush()");
        assert_eq!(answer, if shared == "ENODEV" { shared } else { "None" });
        if shared != "ENODEV" {
            assert_eq!(a.ask("m[:]"), shared, "{pages:?}");
            assert_eq!(b.ask("os.pread(fd, 6, 0)"), shared, "{pages:?}");
        }
    }
}

/// The stock VFS, as Debian has it, on two nodes that cache nothing: two processes, each with 50 transactions.
#[test]
fn stock_sqlite_loses_nothing_where_nothing_is_cached() {
    let test = "stock_sqlite_loses_nothing_where_nothing_is_cached";
    if !Cluster::available(test) || !Guest::available(test) {
        return;
    }
    const WORK: &str = "
def work(who, journal):
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    db.execute(f'PRAGMA journal_mode={journal}')
    for i in range(50):
        db.execute('BEGIN IMMEDIATE')
        db.execute('INSERT INTO t VALUES(?, ?)', (who, i))
        db.execute('COMMIT')
    db.close()
";
    const TABLE: &str = "CREATE TABLE t(who, i)";
    for (journal, volatile) in [("DELETE", false), ("TRUNCATE", true), ("PERSIST", true)] {
        let cluster = match volatile {
            true => Cluster::volatile(&[Mount::default(); 2]),
            false => plain(),
        };
        let mut both = guests(&cluster, "state.db");
        both[0].run(&format!(
            "db = sqlite3.connect(path); db.execute('{TABLE}'); db.close()"
        ));
        for guest in &mut both {
            guest.run("os.close(fd)");
            guest.run(&format!("exec({WORK:?})"));
        }
        for (who, guest) in both.iter_mut().enumerate() {
            guest.tell(&format!("work({who}, {journal:?})"));
        }
        for guest in &mut both {
            assert_eq!(guest.answer(LONG).as_deref(), Some("None"));
        }
        // All was synced that was to be.
        cluster.crash();
        for guest in &mut both {
            guest.run("db = sqlite3.connect(path)");
            let count =
                "db.execute('SELECT count(*), count(DISTINCT 50 * who + i) FROM t').fetchall()";
            assert_eq!(guest.ask(count), "[(100, 100)]", "{journal}");
            let check = "db.execute('PRAGMA integrity_check').fetchall()";
            assert_eq!(guest.ask(check), "[('ok',)]", "{journal}");
        }
        for node in 0..2 {
            let counts = cluster.counts(node);
            assert!(counts[Op::Fsync] >= 100, "{counts:?}");
            if journal == "DELETE" {
                assert!(counts[Op::Unlink] >= 50, "{counts:?}");
            }
        }
    }
}

#[test]
fn the_shell_of_sqlite_works() {
    let test = "the_shell_of_sqlite_works";
    if !Cluster::available(test) || !has_program(test, "sqlite3", "sqlite3") {
        return;
    }
    let cluster = plain();
    let shell = |node: usize, sql: &str| {
        let db = cluster.path(node).join("state.db");
        stdout(Command::new("sqlite3").arg(db).arg(sql))
    };
    shell(0, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    shell(
        1,
        "INSERT INTO t SELECT value FROM generate_series(2, 1000)",
    );
    assert_eq!(shell(0, "SELECT sum(x) FROM t"), "500500");
    assert_eq!(shell(1, "VACUUM; PRAGMA integrity_check"), "ok");
    let db = cluster.path(0).join("state.db");
    let copy = cluster.path(1).join("copy.db");
    succeed(Command::new("cp").arg(&db).arg(&copy));
    assert_eq!(std::fs::read(db).unwrap(), std::fs::read(copy).unwrap());
}

#[test]
fn each_request_is_counted() {
    if !Cluster::available("each_request_is_counted") {
        return;
    }
    let cluster = plain();
    let file = open(&cluster.path(0).join("f"));
    cluster.reset_counts();
    for _ in 0..3 {
        file.write_at(b"text", 0).unwrap();
    }
    assert_eq!(read(&file), "text");
    file.sync_all().unwrap();
    let counts = cluster.counts(0);
    let seen = [Op::Write, Op::Read, Op::Fsync, Op::Open].map(|op| counts[op]);
    assert_eq!(seen, [3, 1, 1, 0], "{counts:?}");
    assert_eq!(counts.total(), 5, "{counts:?}");
    assert_eq!(cluster.counts(1).total(), 0);
    assert_eq!(format!("{counts:?}"), "{Read: 1, Write: 3, Fsync: 1}");
}
