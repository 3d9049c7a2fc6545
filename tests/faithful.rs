//! A faithful shim: what SQLite does on `unix`, it does on `turnstile`.
//!
//! Each scenario runs on both and must give the same answer; what only a shim can get wrong (method
//! tables, file controls) is asked of the C API directly.

mod support;

use rusqlite::{Connection, OpenFlags, ffi};
use std::ffi::{CString, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use support::encoded;

fn register() {
    turnstile::register(turnstile::Options::default()).unwrap();
}

/// Runs `scenario` with each VFS in a directory of its own and compares what it returns.
#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(scenario: impl Fn(&str, &Path) -> rusqlite::Result<T>) {
    register();
    let answers = ["unix", "turnstile"].map(|vfs| {
        let dir = tempfile::tempdir().unwrap();
        scenario(vfs, dir.path()).map_err(|e| e.to_string())
    });
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].is_ok(), "{answers:?}");
}

fn open(vfs: &str, path: impl AsRef<Path>, parameters: &str) -> rusqlite::Result<Connection> {
    let uri = format!("file:{}?vfs={vfs}{parameters}", encoded(path.as_ref()));
    Connection::open_with_flags(uri, OpenFlags::default())
}

/// All rows of `sql`, as text.
fn rows(db: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare(sql)?;
    let width = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        let cells: Result<Vec<String>, _> = (0..width)
            .map(|n| row.get_ref(n).map(|value| format!("{value:?}")))
            .collect();
        Ok(cells?.join(" "))
    };
    statement.query_map([], row)?.collect()
}

const FILL: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, x);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)
    INSERT INTO t SELECT i, hex(zeroblob(50)) || i FROM n;";

#[test]
fn journal_modes() {
    for mode in ["delete", "truncate", "persist", "memory", "off", "wal"] {
        same(|vfs, dir| {
            let db = open(vfs, dir.join("a.db"), "")?;
            let mut seen = rows(&db, &format!("PRAGMA journal_mode={mode}"))?;
            db.execute_batch(FILL)?;
            db.execute_batch("BEGIN; DELETE FROM t WHERE id%2; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT")?;
            db.execute_batch("BEGIN; UPDATE t SET x=1; ROLLBACK")
                .or_else(|e| match mode {
                    "off" => Ok(()),
                    _ => Err(e),
                })?;
            let files = |dir: &Path| {
                let mut names: Vec<String> = std::fs::read_dir(dir)
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .filter(|name| name != "a.db-turnstile")
                    .collect();
                names.sort();
                names
            };
            seen.extend(files(dir));
            if mode != "off" {
                seen.extend(rows(
                    &db,
                    "SELECT count(*), sum(id), sum(length(x)) FROM t",
                )?);
                seen.extend(rows(&db, "PRAGMA integrity_check")?);
            }
            drop(db);
            seen.extend(files(dir));
            Ok(seen)
        });
    }
}

/// Many statements at once: sorter and statement journals go to temporary files (null names).
#[test]
fn temporary_files() {
    same(|vfs, dir| {
        let db = open(vfs, dir.join("a.db"), "")?;
        db.execute_batch("PRAGMA temp_store=FILE; PRAGMA cache_size=-20; PRAGMA cache_spill=1")?;
        db.execute_batch(FILL)?;
        db.execute_batch("CREATE TEMP TABLE big AS SELECT a.id, b.x FROM t a, t b LIMIT 20000")?;
        db.execute_batch("CREATE INDEX temp.big_x ON big(x, id)")?;
        db.execute_batch(
            "BEGIN; INSERT INTO t(x) SELECT x FROM big; UPDATE OR ABORT t SET id=id+100000; COMMIT",
        )?;
        rows(
            &db,
            "SELECT count(*), sum(id) FROM t UNION ALL SELECT count(*), max(x) FROM big ORDER BY 1",
        )
    });
    same(|vfs, _| {
        let db = Connection::open_with_flags_and_vfs("", OpenFlags::default(), vfs)?;
        db.execute_batch("PRAGMA cache_size=5")?;
        db.execute_batch(FILL)?;
        rows(&db, "SELECT count(*) FROM t")
    });
    same(|vfs, _| {
        let db = Connection::open_with_flags_and_vfs(":memory:", OpenFlags::default(), vfs)?;
        db.execute_batch(FILL)?;
        rows(&db, "SELECT count(*) FROM t")
    });
}

#[test]
fn read_only_immutable_and_nolock() {
    for parameters in [
        "&mode=ro",
        "&immutable=1",
        "&nolock=1",
        "&mode=ro&cache=shared",
        "&psow=0",
    ] {
        same(|vfs, dir| {
            let path = dir.join("a.db");
            open(vfs, &path, "")?.execute_batch(FILL)?;
            let db = open(vfs, &path, parameters)?;
            let mut seen = rows(&db, "SELECT count(*), sum(id) FROM t")?;
            seen.push(format!("{:?}", db.execute("DELETE FROM t WHERE id=1", [])));
            // No shared memory without locks: WAL is not to be had.
            seen.extend(
                rows(&db, "PRAGMA journal_mode=wal").unwrap_or_else(|e| vec![e.to_string()]),
            );
            Ok(seen)
        });
    }
}

/// A transaction over two databases writes a super-journal; a crash in it is rolled back in both.
#[test]
fn attach_and_super_journal() {
    same(|vfs, dir| {
        let (a, b) = (dir.join("a.db"), dir.join("b.db"));
        let db = open(vfs, &a, "")?;
        db.execute("ATTACH ?1 AS b", [b.to_str().unwrap()])?;
        db.execute_batch("CREATE TABLE main.t(x); CREATE TABLE b.u(x)")?;
        db.execute_batch("BEGIN; INSERT INTO t VALUES(1); INSERT INTO u VALUES(2); COMMIT")?;
        db.execute(
            &format!("ATTACH 'file:{}?vfs={vfs}&mode=ro' AS c", encoded(&b)),
            [],
        )?;
        rows(
            &db,
            "SELECT one.x, two.x, three.x FROM t AS one, b.u AS two, c.u AS three",
        )
    });
}

#[test]
fn a_hot_journal_is_rolled_back() {
    same(|vfs, dir| {
        let (path, crashed) = (dir.join("a.db"), dir.join("crashed.db"));
        let db = open(vfs, &path, "")?;
        db.execute_batch(FILL)?;
        db.execute_batch("PRAGMA cache_size=1; BEGIN IMMEDIATE; UPDATE t SET x='half'")?;
        // The files of a process that died here, in the order in which the journal is the older.
        let journal = |path: &Path| PathBuf::from(format!("{}-journal", path.display()));
        std::fs::copy(journal(&path), journal(&crashed)).unwrap();
        std::fs::copy(&path, &crashed).unwrap();
        let after = open(vfs, &crashed, "")?;
        let mut seen = rows(&after, "SELECT count(*) FROM t WHERE x='half'")?;
        seen.extend(rows(&after, "PRAGMA integrity_check")?);
        seen.push(journal(&crashed).exists().to_string());
        Ok(seen)
    });
}

#[test]
fn vacuum_backup_and_blobs() {
    same(|vfs, dir| {
        let db = open(vfs, dir.join("a.db"), "")?;
        db.execute_batch(FILL)?;
        db.execute_batch("DELETE FROM t WHERE id>100; PRAGMA page_size=8192; VACUUM")?;
        db.execute(
            "VACUUM INTO ?1",
            [format!("file:{}?vfs={vfs}", encoded(&dir.join("v.db")))],
        )?;
        let mut copy = open(vfs, dir.join("copy.db"), "")?;
        rusqlite::backup::Backup::new(&db, &mut copy)?.run_to_completion(
            3,
            std::time::Duration::ZERO,
            None,
        )?;
        let mut blob = copy.blob_open("main", "t", "x", 7, false)?;
        std::io::Write::write_all(&mut blob, b"changed").unwrap();
        drop(blob);
        let mut seen = rows(&copy, "SELECT count(*), min(x) FROM t")?;
        seen.extend(rows(
            &open(vfs, dir.join("v.db"), "")?,
            "SELECT count(*) FROM t",
        )?);
        seen.extend(rows(&db, "PRAGMA page_size")?);
        Ok(seen)
    });
}

#[test]
fn exclusive_locking_and_heap_wal_index() {
    for mode in ["delete", "wal"] {
        same(|vfs, dir| {
            let path = dir.join("a.db");
            let db = open(vfs, &path, "")?;
            let mut seen = rows(&db, "PRAGMA locking_mode=EXCLUSIVE")?;
            seen.extend(rows(&db, &format!("PRAGMA journal_mode={mode}"))?);
            db.execute_batch(FILL)?;
            let other = open(vfs, &path, "")?;
            other.busy_timeout(std::time::Duration::ZERO)?;
            seen.push(format!(
                "{:?}",
                rows(&other, "SELECT count(*) FROM t").map_err(|e| e.sqlite_error_code())
            ));
            seen.push(dir.join("a.db-shm").exists().to_string());
            drop(db);
            seen.extend(rows(&other, "SELECT count(*) FROM t")?);
            Ok(seen)
        });
    }
}

#[test]
fn mmap_and_data_version() {
    same(|vfs, dir| {
        let path = dir.join("a.db");
        let db = open(vfs, &path, "")?;
        let mut seen = rows(&db, "PRAGMA mmap_size=1000000")?;
        db.execute_batch(FILL)?;
        seen.extend(rows(&db, "SELECT sum(length(x)) FROM t")?);
        let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
        seen.push(mapped.contains(path.to_str().unwrap()).to_string());
        let version = |db: &Connection| rows(db, "PRAGMA data_version").unwrap();
        let before = version(&db);
        open(vfs, &path, "")?.execute("DELETE FROM t WHERE id=1", [])?;
        seen.push((before != version(&db)).to_string());
        Ok(seen)
    });
}

#[test]
fn names_of_every_kind() {
    for name in [
        "a b.db",
        "a?b.db",
        "a#b.db",
        "a%41b.db",
        "ünïcødé 数据.db",
        "a&b=c.db",
        "'\"`$\\.db",
        "a-journal",
        ".db",
    ] {
        same(|vfs, dir| {
            let db = open(vfs, dir.join(name), "&quantum_us=7")?;
            db.execute_batch(FILL)?;
            assert!(dir.join(name).exists(), "{name}");
            // And not as a URI.
            let db = Connection::open_with_flags_and_vfs(
                dir.join(name),
                OpenFlags::SQLITE_OPEN_READ_WRITE,
                vfs,
            )?;
            rows(&db, "SELECT count(*) FROM t")
        });
    }
}

/// The longest path that `unix` takes, and one byte more.
#[test]
fn paths_up_to_the_limit() {
    for extra in [0, 1] {
        same(|vfs, dir| {
            // mxPathname, less the terminator and room for "-journal" (unixFullPathname, pager).
            let limit = vfs_of("unix").mxPathname as usize - 1 + extra;
            let mut path = dir.to_path_buf();
            while path.as_os_str().len() + 202 < limit {
                path.push("d".repeat(200));
            }
            std::fs::create_dir_all(&path).unwrap();
            let name = "f".repeat(limit - path.as_os_str().len() - 1);
            path.push(name);
            Ok(
                match open(vfs, &path, "").and_then(|db| db.execute_batch(FILL)) {
                    Ok(()) => path.exists().to_string(),
                    Err(error) => format!("{:?}", error.sqlite_error_code()),
                },
            )
        });
    }
}

// ---- the C API

fn vfs_of(name: &str) -> &'static ffi::sqlite3_vfs {
    register();
    let name = CString::new(name).unwrap();
    // SAFETY: a registered VFS stays.
    unsafe { ffi::sqlite3_vfs_find(name.as_ptr()).as_ref() }.expect("registered")
}

/// A file opened straight through a VFS's xOpen, in memory that is not clean.
struct Raw {
    memory: Vec<u64>,
}

impl Raw {
    fn open(vfs: &str, path: &Path, flags: c_int) -> (c_int, Raw) {
        let vfs = vfs_of(vfs);
        let mut raw = Raw {
            memory: vec![0x5a5a_5a5a_5a5a_5a5a; vfs.szOsFile as usize / 8 + 1],
        };
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the arguments of xOpen. The name outlives the file: it is leaked.
        let code = unsafe {
            let vfs = ptr::from_ref(vfs).cast_mut();
            ((*vfs).xOpen.unwrap())(vfs, path.into_raw(), raw.file(), flags, ptr::null_mut())
        };
        (code, raw)
    }

    fn file(&mut self) -> *mut ffi::sqlite3_file {
        self.memory.as_mut_ptr().cast()
    }

    fn methods(&mut self) -> Option<&ffi::sqlite3_io_methods> {
        // SAFETY: xOpen has set pMethods, whether it failed or not.
        unsafe { (*self.file()).pMethods.as_ref() }
    }
}

const DATABASE: c_int =
    ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_MAIN_DB;

#[test]
fn pmethods_are_null_after_a_failed_open() {
    let dir = tempfile::tempdir().unwrap();
    let (code, mut raw) = Raw::open("turnstile", &dir.path().join("no/such"), DATABASE);
    assert_eq!(code & 0xff, ffi::SQLITE_CANTOPEN);
    assert!(raw.methods().is_none());
}

#[test]
fn a_short_read_is_filled_with_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let (code, mut raw) = Raw::open("turnstile", &dir.path().join("a.db"), DATABASE);
    assert_eq!(code, ffi::SQLITE_OK);
    let (file, methods) = (raw.file(), *raw.methods().unwrap());
    let mut buffer = [0xaa_u8; 100];
    // SAFETY: the methods of an open file, with their arguments.
    unsafe {
        assert_eq!(
            methods.xWrite.unwrap()(file, c"data".as_ptr().cast(), 4, 0),
            ffi::SQLITE_OK
        );
        let code = methods.xRead.unwrap()(file, buffer.as_mut_ptr().cast(), 100, 2);
        assert_eq!(code, ffi::SQLITE_IOERR_SHORT_READ);
        assert_eq!(methods.xClose.unwrap()(file), ffi::SQLITE_OK);
    }
    assert_eq!(&buffer[..3], b"ta\0");
    assert_eq!(buffer[2..], [0; 98]);
}

/// Which methods there are: iVersion, and for each member whether it is set.
fn shape(methods: &ffi::sqlite3_io_methods) -> (c_int, Vec<bool>) {
    macro_rules! set {
        ($($member:ident)*) => { vec![$(methods.$member.is_some()),*] };
    }
    let mut members = set!(xClose xRead xWrite xTruncate xSync xFileSize xLock xUnlock
        xCheckReservedLock xFileControl xSectorSize xDeviceCharacteristics);
    if methods.iVersion >= 2 {
        members.extend(set!(xShmMap xShmLock xShmBarrier xShmUnmap));
    }
    if methods.iVersion >= 3 {
        members.extend(set!(xFetch xUnfetch));
    }
    (methods.iVersion, members)
}

/// The file behind a connection, by SQLITE_FCNTL_FILE_POINTER.
fn file_of(db: &Connection) -> *mut ffi::sqlite3_file {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    control(db, ffi::SQLITE_FCNTL_FILE_POINTER, (&raw mut file).cast());
    file
}

fn control(db: &Connection, op: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: the argument is what the file control takes.
    unsafe { ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), op, argument) }
}

#[test]
fn a_file_has_the_methods_of_its_base() {
    register();
    let dir = tempfile::tempdir().unwrap();
    for base in ["unix", "unix-excl", "unix-dotfile", "unix-none"] {
        for parameters in ["", "&nolock=1", "&mode=ro", "&immutable=1"] {
            let path = dir.path().join("a.db");
            let stock = open(base, &path, parameters).unwrap();
            let ours = open("turnstile", &path, &format!("{parameters}&base={base}")).unwrap();
            let [stock, ours] = [&stock, &ours].map(|db| {
                rows(db, "PRAGMA schema_version").unwrap();
                // SAFETY: the file is open.
                unsafe { shape(&*(*file_of(db)).pMethods) }
            });
            assert_eq!(stock, ours, "{base}{parameters}");
        }
    }
    assert_eq!(vfs_of("turnstile").iVersion, vfs_of("unix").iVersion);
    assert_eq!(vfs_of("turnstile").mxPathname, vfs_of("unix").mxPathname);
    assert!(vfs_of("turnstile").szOsFile > vfs_of("unix").szOsFile);
}

#[test]
fn file_controls() {
    register();
    let dir = tempfile::tempdir().unwrap();
    let db = open("turnstile", dir.path().join("a.db"), "").unwrap();
    db.execute_batch(FILL).unwrap();

    assert_eq!(support::vfs_name(&db), "turnstile/unix");
    let excl = open("turnstile", dir.path().join("b.db"), "&base=unix-excl").unwrap();
    assert_eq!(support::vfs_name(&excl), "turnstile/unix-excl");

    let mut vfs: *const ffi::sqlite3_vfs = ptr::null();
    control(&db, ffi::SQLITE_FCNTL_VFS_POINTER, (&raw mut vfs).cast());
    assert!(ptr::eq(vfs, vfs_of("turnstile")));
    assert!(!file_of(&db).is_null());

    // Controls that the base answers.
    let mut moved: c_int = -1;
    assert_eq!(
        control(&db, ffi::SQLITE_FCNTL_HAS_MOVED, (&raw mut moved).cast()),
        ffi::SQLITE_OK
    );
    assert_eq!(moved, 0);
    let mut persist: c_int = 1;
    assert_eq!(
        control(
            &db,
            ffi::SQLITE_FCNTL_PERSIST_WAL,
            (&raw mut persist).cast()
        ),
        ffi::SQLITE_OK
    );
    let mut chunk: c_int = 65536;
    assert_eq!(
        control(&db, ffi::SQLITE_FCNTL_CHUNK_SIZE, (&raw mut chunk).cast()),
        ffi::SQLITE_OK
    );
    db.execute_batch("INSERT INTO t(x) SELECT zeroblob(3000) FROM t")
        .unwrap();
    let size = dir.path().join("a.db").metadata().unwrap().len();
    assert_eq!(size % 65536, 0, "chunk size reached the base");
    // One that nobody knows.
    assert_eq!(control(&db, 987_654, ptr::null_mut()), ffi::SQLITE_NOTFOUND);
}

/// SQLite counts the size of a VFS's files as page cache memory; its own test suite
/// (dbstatus.test) allows a tenth more than it expects.
#[test]
fn the_page_cache_does_not_look_larger() {
    register();
    let used = ["unix", "turnstile"].map(|vfs| {
        let dir = tempfile::tempdir().unwrap();
        let db = open(vfs, dir.path().join("a.db"), "").unwrap();
        db.execute_batch("CREATE TABLE t(x)").unwrap();
        let (mut now, mut highest) = (0, 0);
        // SAFETY: plain use of the C API.
        unsafe {
            let op = ffi::SQLITE_DBSTATUS_CACHE_USED;
            ffi::sqlite3_db_status(db.handle(), op, &mut now, &mut highest, 0);
        }
        // Without the pages themselves, of which there are two.
        now - 2 * 4096
    });
    assert!(used[0] > 0 && used[1] * 10 <= used[0] * 11, "{used:?}");
}
