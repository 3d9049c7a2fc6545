//! What is said of the place where a database lies, on real mounts. Each test has a mount namespace of its
//! own, so that it leaves nothing behind.
//!
//! The module is private, so it is built into this program a second time.

mod support;

#[path = "support/cluster/mod.rs"]
mod cluster;
#[path = "../src/filesystem/mod.rs"]
mod filesystem;
#[allow(dead_code)]
#[path = "../src/text.rs"]
mod text;

use cluster::Cluster;
use filesystem::{Ground, Kind, Locks};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::major;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use support::{available, succeed};
use text::Text;
use turnstile::Fs;

/// The system's allocator; it counts.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u32> = const { Cell::new(0) };
}

// SAFETY: it is the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `body` with an empty directory in a mount namespace: this program again, with this test alone.
fn in_a_namespace(test: &str, body: impl FnOnce(&Path)) {
    const INSIDE: &str = "FILESYSTEM_TEST_INSIDE";
    if let Some(dir) = std::env::var_os(INSIDE) {
        return body(Path::new(&dir));
    }
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(arguments);
        command
    };
    let can = |arguments: &[&str]| {
        let mut command = unshare(arguments);
        command.args(["mount", "-t", "tmpfs", "x", "/mnt"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    let ways = [&["--mount"][..], &["--mount", "--map-root-user"]];
    let way = ways.into_iter().find(|way| can(way));
    if available(test, "a mount namespace", way.is_some(), "run as root") {
        let dir = tempfile::tempdir().unwrap();
        succeed(
            unshare(way.unwrap())
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(INSIDE, dir.path())
                .env("TMPDIR", dir.path()),
        );
    }
}

/// The same, for tests that mount a FUSE.
fn with_fuse(test: &str, body: impl FnOnce(&Path)) {
    if Cluster::available(test) {
        in_a_namespace(test, body);
    }
}

fn mount(arguments: &[&str], point: &Path) {
    fs::create_dir_all(point).unwrap();
    succeed(Command::new("mount").args(arguments).arg(point));
}

fn bind(there: &Path, point: &Path) {
    mount(&["--bind", there.to_str().unwrap()], point);
}

/// `upper` under `dir` takes the writes.
fn mount_overlay(dir: &Path) {
    let [lower, upper, work] = ["lower", "layers/upper", "layers/work"].map(|name| dir.join(name));
    fs::create_dir_all(&lower).unwrap();
    mount(&["-t", "tmpfs", "x"], &dir.join("layers"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let [lower, upper, work] = [lower, upper, work].map(|path| path.display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let arguments = ["-t", "overlay", "overlay", "-o", &options];
    mount(&arguments, &dir.join("overlay"));
}

/// A FUSE file system of this kind, as long as the cluster lives.
#[must_use]
fn mount_fuse(kind: &'static str, point: &Path) -> Cluster {
    let mount = cluster::Mount::default();
    let cluster = Cluster::new(&[cluster::Mount { kind, ..mount }]);
    bind(cluster.path(0), point);
    cluster
}

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn look(at: impl AsRef<Path>) -> Ground {
    filesystem::look(&path(at.as_ref()), Fs::Auto)
}

/// What it is on, if it is this machine's own.
fn local(at: impl AsRef<Path>) -> String {
    let ground = look(at);
    assert_eq!((ground.kind, ground.locks), (Kind::Local, Locks::Shared));
    ground.name.as_str().to_owned()
}

#[test]
fn a_database_that_does_not_exist_lies_where_its_directory_does() {
    in_a_namespace(
        "a_database_that_does_not_exist_lies_where_its_directory_does",
        |dir| {
            mount(&["-t", "tmpfs", "x"], dir);
            assert_eq!(local(dir.join("a.db")), "tmpfs");
            File::create(dir.join("b.db")).unwrap();
            assert_eq!(local(dir.join("b.db")), "tmpfs");
            std::env::set_current_dir(dir).unwrap();
            for relative in ["a.db", "b.db", "./a.db", "../a/../no-such/a.db"] {
                let there = !relative.contains("no-such");
                assert_eq!(look(relative).kind == Kind::Local, there, "{relative}");
            }
            assert_eq!(look("/no-such.db").name, look("/").name);
            for nowhere in ["no/such/a.db", "b.db/a.db"] {
                let ground = look(nowhere);
                let said = ground.to_string();
                assert_eq!(ground.kind, Kind::Network, "{said}");
            }
            let long = format!("/{}a.db", "d/".repeat(4000));
            assert_eq!(look(long).kind, Kind::Network);
        },
    );
}

#[test]
fn a_fuse_is_known_by_its_subtype_and_named_by_its_mount_point() {
    with_fuse(
        "a_fuse_is_known_by_its_subtype_and_named_by_its_mount_point",
        |dir| {
            let (there, bound) = (dir.join("my data"), dir.join("bound"));
            let _ssh = mount_fuse("fuse.sshfs", &there);
            bind(&there, &bound);
            for point in [&there, &bound] {
                for name in ["", "a.db"] {
                    let ground = look(point.join(name));
                    assert_eq!(ground.kind, Kind::Network);
                    assert!(matches!(ground.locks, Locks::NodeLocal(_)), "{ground}");
                    assert_eq!(ground.name.as_str(), "fuse.sshfs");
                    let sentence = format!(
                        "{} (fuse.sshfs) passes no locks to the server: locks hold on this node only; \
                         use the database on one machine only",
                        point.display()
                    );
                    assert_eq!(ground.to_string(), sentence);
                }
            }
            std::env::set_current_dir(&there).unwrap();
            assert_eq!(look("a.db").name.as_str(), "fuse.sshfs");
            let other = dir.join("other");
            let _unknown = mount_fuse("fuse", &other);
            let ground = look(other.join("a.db"));
            assert_eq!((ground.kind, ground.locks), (Kind::Network, Locks::Shared));
            // What lies on top is what counts.
            mount(&["-t", "tmpfs", "x"], &other);
            assert_eq!(local(other.join("a.db")), "tmpfs");
        },
    );
}

#[test]
fn the_option_overrides_the_kind_and_nothing_else() {
    with_fuse("the_option_overrides_the_kind_and_nothing_else", |dir| {
        let there = dir.join("fuse");
        let _ssh = mount_fuse("fuse.sshfs", &there);
        for at in [dir.join("a.db"), there.join("a.db")] {
            let (auto, at) = (look(&at), path(&at));
            for (fs, kind) in [(Fs::Local, Kind::Local), (Fs::Network, Kind::Network)] {
                let ground = filesystem::look(&at, fs);
                let expected = Ground {
                    kind,
                    ..auto.clone()
                };
                assert_eq!(ground, expected);
                let memory = filesystem::can_share_memory(&at, fs);
                assert_eq!(memory, kind == Kind::Local);
            }
            let memory = filesystem::can_share_memory(&at, Fs::Auto);
            assert_eq!(memory, auto.kind == Kind::Local);
        }
    });
}

/// Whether this kernel numbers its mounts so that no number is given twice.
fn has_mount_numbers() -> bool {
    // SAFETY: numbers, all of them; a terminated path, and room for the answer.
    unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let mask = libc::STATX_MNT_ID_UNIQUE;
        libc::statx(libc::AT_FDCWD, c"/".as_ptr(), 0, mask, &mut found);
        found.stx_mask & mask != 0
    }
}

#[test]
fn an_overlay_is_local_if_its_upper_directory_is() {
    with_fuse("an_overlay_is_local_if_its_upper_directory_is", |dir| {
        mount_overlay(dir);
        let at = dir.join("overlay/a.db");
        assert_eq!(local(&at), "overlay");
        File::create(&at).unwrap();
        assert_eq!(local(&at), "overlay");
        let point = Text::new(dir.join("overlay").display());
        assert_eq!(look(&at).mount_point, Some(point));
        // As if the upper directory's path led to a network.
        let _gluster = mount_fuse("fuse.glusterfs", &dir.join("layers/upper"));
        bind(&dir.join("overlay"), &dir.join("network"));
        let ground = look(dir.join("network/a.db"));
        assert_eq!(ground.kind, Kind::Network);
        assert_eq!(ground.name.as_str(), "overlay on fuse.glusterfs");
        // The one that is mounted since before is not looked for again.
        if has_mount_numbers() {
            assert_eq!(local(&at), "overlay");
        }
        // As in a container, where it leads nowhere.
        mount(&["-t", "tmpfs", "x"], &dir.join("layers"));
        bind(&dir.join("overlay"), &dir.join("nowhere"));
        assert_eq!(local(dir.join("nowhere/a.db")), "overlay");
    });
}

#[test]
fn without_proc_the_magic_number_is_enough() {
    with_fuse("without_proc_the_magic_number_is_enough", |dir| {
        mount_overlay(dir);
        mount(&["-t", "tmpfs", "x"], &dir.join("tmpfs"));
        let _ssh = mount_fuse("fuse.sshfs", &dir.join("fuse"));
        let look_around = || {
            // The cluster's threads still need their paths: this one gets a root of its own.
            // SAFETY: it has nothing to do with memory.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
            nix::unistd::chroot(dir).unwrap();
            std::env::set_current_dir("/").unwrap();
            assert_eq!(local("/tmpfs/a.db"), "tmpfs");
            assert_eq!(local("/overlay/a.db"), "overlay");
            let ground = look("/fuse/a.db");
            assert_eq!((ground.kind, ground.locks), (Kind::Network, Locks::Shared));
            assert_eq!((ground.name.as_str(), ground.mount_point), ("fuse", None));
        };
        std::thread::scope(|scope| scope.spawn(look_around).join().unwrap());
    });
}

#[test]
fn looking_costs_the_process_none_of_its_locks() {
    in_a_namespace("looking_costs_the_process_none_of_its_locks", |dir| {
        mount_overlay(dir);
        for at in [dir.join("a.db"), dir.join("overlay/a.db")] {
            let file = File::create(&at).unwrap();
            let mut lock = libc::flock {
                l_type: libc::F_WRLCK as _,
                l_whence: libc::SEEK_SET as _,
                l_start: 0,
                l_len: 10,
                l_pid: 0,
            };
            fcntl(&file, FcntlArg::F_SETLK(&lock)).unwrap();
            // Open to the end: closing it would cost the lock, too.
            let other = File::open(&at).unwrap();
            let mut is_locked = || {
                lock.l_type = libc::F_WRLCK as _;
                lock.l_pid = 0;
                fcntl(&other, FcntlArg::F_OFD_GETLK(&mut lock)).unwrap();
                lock.l_type == libc::F_WRLCK as i16
            };
            assert!(is_locked());
            assert_eq!(look(&at).kind, Kind::Local);
            assert!(is_locked(), "{}", at.display());
        }
    });
}

#[test]
fn nothing_is_read_for_a_disk_and_nothing_allocated_for_any() {
    with_fuse(
        "nothing_is_read_for_a_disk_and_nothing_allocated_for_any",
        |dir| {
            mount(&["-t", "tmpfs", "x"], &dir.join("tmpfs"));
            mount_overlay(dir);
            let _ssh = mount_fuse("fuse.sshfs", &dir.join("fuse"));
            // Of this thread, the reading of this file included.
            let reads = || {
                let io = fs::read_to_string("/proc/thread-self/io").unwrap();
                let line = io.lines().find_map(|line| line.strip_prefix("syscr: "));
                line.unwrap().parse::<u64>().unwrap()
            };
            // Where the tests' directory is on a disk.
            let disk = major(fs::metadata(dir).unwrap().dev()) > 0;
            for (name, is_disk) in [
                (".", disk),
                ("tmpfs", false),
                ("overlay", false),
                ("fuse", false),
            ] {
                let at = path(&dir.join(name).join("a.db"));
                let (first, second) = (reads(), reads());
                let before = ALLOCATIONS.get();
                let ground = filesystem::look(&at, Fs::Auto);
                let sentence = Text::new(&ground);
                let after = ALLOCATIONS.get();
                let third = reads();
                assert_eq!(after, before, "{}", sentence.as_str());
                let more = third - second > second - first;
                assert_eq!(more, !is_disk, "{}", sentence.as_str());
            }
        },
    );
}
