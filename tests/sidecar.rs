//! Somebody tampers with the sidecar, before or while it is used: it costs fairness for a moment and
//! nothing else.
#![cfg(all(feature = "linked", feature = "inject"))]

mod support;
#[path = "support/writers.rs"]
mod writers;

use nix::fcntl::{FcntlArg, fcntl};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use writers::{House, JOURNALS, SOON, Writer, go_on, sleep_ms, within};

#[test]
fn writer_process() {
    writers::serve();
}

/// `tamper` strikes twice: while one holds the lock and four wait, and before anybody has come.
/// `mend` makes it possible to have a line again.
fn strike(what: &str, tamper: impl Fn(&House), mend: impl Fn(&House)) {
    for journal in JOURNALS {
        let house = House::new(journal);
        let mut all = house.lined_up(5);
        sleep_ms(30);
        tamper(&house);
        // They notice, or not.
        sleep_ms(50);
        let start = all[0].ask("commit", "done");
        go_on(
            &format!("{what}, {journal}, in use"),
            start,
            &mut all[1..],
            SOON,
        );
        // And again and again, with newcomers who find it like that.
        all.extend(house.writers(2));
        all_write(&format!("{what}, {journal}, later"), &house, &mut all);
        mend(&house);
        house.end(all);

        let house = House::new(journal);
        tamper(&house);
        let mut all = house.writers(4);
        all_write(&format!("{what}, {journal}, before"), &house, &mut all);
        mend(&house);
        house.end(all);
    }
}

/// A thousand processes that begin at once all want to make the sidecar: one does, and the others find it made.
#[test]
fn whoever_finds_somebody_at_work_on_it_is_in_the_line_soon() {
    for journal in JOURNALS {
        let house = House::new(journal);
        let mut all = house.writers(2);
        all[0].ask("hold IMMEDIATE", "fine");
        // Somebody has begun to mend it, and takes its time.
        // SAFETY: a plain structure of numbers.
        let sidecar = fs::File::options()
            .write(true)
            .open(house.sidecar())
            .unwrap();
        let mut byte: libc::flock = unsafe { std::mem::zeroed() };
        (byte.l_type, byte.l_len) = (libc::F_WRLCK as i16, 1);
        fcntl(&sidecar, FcntlArg::F_OFD_SETLK(&byte)).unwrap();
        sidecar.write_all_at(&[0; 8], 0).unwrap();
        assert!(!house.try_queue(&mut all[1], 200), "{journal}");
        drop(sidecar);
        assert!(within(SOON, || house.standing() == 1), "{journal}");
        let start = all[0].ask("commit", "done");
        go_on("after the mending", start, &mut all[1..], SOON);
        house.end(all);
    }
}

/// Everybody writes, whether there is a line or not.
fn all_write(what: &str, house: &House, all: &mut [Writer]) {
    all[0].ask("hold IMMEDIATE", "fine");
    for waiter in &mut all[1..] {
        house.try_queue(waiter, 20);
    }
    let start = all[0].ask("commit", "done");
    go_on(what, start, &mut all[1..], SOON);
}

fn nothing(_: &House) {}

fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir(path).unwrap();
    } else {
        let _ = fs::remove_file(path);
    }
}

fn resize(house: &House, size: u64) {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(false);
    file.open(house.sidecar()).unwrap().set_len(size).unwrap();
}

#[test]
fn deleted() {
    strike("deleted", |house| remove(&house.sidecar()), nothing);
}

/// Its connections share the sidecar, one after the other.
#[test]
fn deleted_beside_one_that_opens_the_database_for_each_write() {
    for journal in JOURNALS {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let house = House::at(dir.path(), journal);
        let mut writer = house.writer();
        writer.ask("anew 20", "stored 20");
        remove(&house.sidecar());
        writer.ask("anew 200", "stored 200");
        assert!(house.sidecar().exists(), "{journal}");
        house.end(vec![writer]);
    }
}

#[test]
fn deleted_beside_one_that_is_refused() {
    let house = House::new("delete");
    let mut all = house.writers(2);
    all_write("there", &house, &mut all);
    remove(&house.sidecar());
    all_write("deleted", &house, &mut all);
    assert!(house.sidecar().exists());
    house.end(all);
}

#[test]
fn truncated() {
    strike("truncated", |house| resize(house, 0), nothing);
}

#[test]
fn cut_in_the_middle() {
    strike("cut", |house| resize(house, 4_096), nothing);
}

#[test]
fn filled_with_random_bytes() {
    let garbage = |house: &House| {
        resize(house, 69_632);
        let mut state = writers::now() | 1;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(69_632)
        .collect();
        let file = fs::OpenOptions::new().write(true).open(house.sidecar());
        file.unwrap().write_all_at(&bytes, 0).unwrap();
    };
    strike("garbage", garbage, nothing);
}

/// Bytes that could be a line: the magic is right, and thousands seem to wait.
#[test]
fn filled_with_lies() {
    let lies = |house: &House| {
        resize(house, 69_632);
        let file = fs::OpenOptions::new().write(true).open(house.sidecar());
        let file = file.unwrap();
        file.write_all_at(b"turnstl1", 0).unwrap();
        for (word, value) in [
            (8, 7 << 32 | 1_000),
            (16, u64::MAX),
            (17, u64::MAX),
            (24, 9 << 32),
        ] {
            file.write_all_at(&u64::to_le_bytes(value), word * 8)
                .unwrap();
        }
    };
    strike("lies", lies, nothing);
}

#[test]
fn replaced_by_another_file() {
    let replace = |house: &House| {
        let other = house.dir.join("other");
        fs::write(&other, b"something else").unwrap();
        fs::rename(other, house.sidecar()).unwrap();
    };
    strike("another file", replace, nothing);
}

#[test]
fn replaced_by_a_link() {
    let target = |house: &House| house.dir.join("precious");
    let replace = |house: &House| {
        fs::write(target(house), b"not yours").unwrap();
        remove(&house.sidecar());
        symlink(target(house), house.sidecar()).unwrap();
    };
    let mend = |house: &House| {
        assert_eq!(fs::read(target(house)).unwrap(), b"not yours");
        assert!(house.sidecar().is_symlink());
        remove(&house.sidecar());
    };
    strike("a link", replace, mend);
}

#[test]
fn replaced_by_a_directory() {
    let replace = |house: &House| {
        remove(&house.sidecar());
        fs::create_dir(house.sidecar()).unwrap();
    };
    strike("a directory", replace, |house| remove(&house.sidecar()));
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn give(path: &Path) {
    std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
}

fn nobodies(house: &House, count: usize) -> Vec<Writer> {
    let nobody = |_| {
        house.writer_with(20_000, |c| {
            c.env("TURNSTILE_WRITER_UID", "65534");
        })
    };
    (0..count).map(nobody).collect()
}

/// Some have it mapped from before, the others may only read it.
#[test]
fn read_only() {
    if !support::is_root("read_only") {
        return;
    }
    for journal in JOURNALS {
        let house = House::new(journal);
        allow(&house.dir, 0o777);
        give(&house.db);
        let mut all = nobodies(&house, 4);
        all_write("writable", &house, &mut all);
        allow(&house.sidecar(), 0o444);
        all.extend(nobodies(&house, 3));
        all_write("read-only", &house, &mut all);
        all.drain(..4);
        all_write("read-only from the beginning", &house, &mut all);
        allow(&house.sidecar(), 0o666);
        house.end(all);
    }
}

/// A WAL that is open needs nothing of the directory, and there is no sidecar yet.
#[test]
fn unwritable_directory() {
    if !support::is_root("unwritable_directory") {
        return;
    }
    let house = House::new("wal");
    allow(&house.dir, 0o777);
    give(&house.db);
    let stock = rusqlite::Connection::open(&house.db).unwrap();
    stock
        .execute_batch("INSERT INTO t VALUES(-1, 0, 0)")
        .unwrap();
    allow(&house.dir, 0o555);
    let mut all = nobodies(&house, 4);
    all_write("unwritable directory", &house, &mut all);
    assert!(!house.sidecar().exists());
    allow(&house.dir, 0o777);
    house.end(all);
}

/// A file system of our own, unmounted in the end.
struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // The last of its processes may be about to close its files.
        within(2_000, || {
            let done = std::process::Command::new("umount").arg(self.0).output();
            done.is_ok_and(|d| d.status.success())
        });
    }
}

#[test]
fn disk_full() {
    for journal in JOURNALS {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "none"])
            .arg(dir.path())
            .output()
            .is_ok_and(|d| d.status.success());
        if !support::available("disk_full", "mount", mounted, "run the tests as root") {
            return;
        }
        let _mount = Mount(dir.path());
        let house = House::at(dir.path(), journal);
        // The -wal and the -shm have their room already.
        let stock = rusqlite::Connection::open(&house.db).unwrap();
        let rows = "WITH RECURSIVE n(i) AS (VALUES(0) UNION ALL SELECT i+1 FROM n WHERE i<3000)
            INSERT INTO t SELECT -1, i, 0 FROM n; DELETE FROM t; PRAGMA wal_checkpoint(RESTART)";
        stock.execute_batch(rows).unwrap();
        let filler = fill(&house, 48 * 1024);
        let mut all = house.writers(4);
        all_write("full from the beginning", &house, &mut all);
        let size = fs::metadata(house.sidecar()).map_or(0, |m| m.len());
        assert_eq!(size, 0, "there was room for it");
        fs::remove_file(&filler).unwrap();
        // Whoever was refused looks for it again after a second.
        let more = house.fifo_run();
        assert!(fs::metadata(house.sidecar()).unwrap().len() > 0);
        all.extend(more);
        fill(&house, 16 * 1024);
        all.truncate(4);
        all_write("full in use", &house, &mut all);
        fs::remove_file(&filler).unwrap();
        house.end(all);
    }
}

/// Leaves so much room, and says in what file the rest is.
fn fill(house: &House, room: u64) -> std::path::PathBuf {
    let path = house.dir.join("filler");
    let file = fs::File::create(&path).unwrap();
    let block = [1; 4096];
    let mut size = 0;
    while file.write_all_at(&block, size).is_ok() {
        size += block.len() as u64;
    }
    file.set_len(size - room).unwrap();
    path
}
