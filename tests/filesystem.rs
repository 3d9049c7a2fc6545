//! What is said of the place where a database lies, on real mounts. Each test has a mount namespace of its
//! own, so that it leaves nothing behind.
//!
//! The module is private, so it is built into this program a second time.

mod support;

#[path = "../src/filesystem/mod.rs"]
mod filesystem;
#[allow(dead_code)]
#[path = "../src/text.rs"]
mod text;

use filesystem::{Ground, Kind, Locks};
use nix::fcntl::{FcntlArg, fcntl};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
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
                .env(INSIDE, dir.path()),
        );
    }
}

fn mount(arguments: &[&str], point: &Path) {
    fs::create_dir_all(point).unwrap();
    succeed(Command::new("mount").args(arguments).arg(point));
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

/// A FUSE file system that has an empty directory and no locks.
fn mount_fuse(kind: &str, point: &Path) {
    fs::create_dir_all(point).unwrap();
    let mut device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    let [kind, options] = [kind, &options].map(|text| CString::new(text).unwrap());
    let point = CString::new(point.as_os_str().as_bytes()).unwrap();
    // SAFETY: terminated strings.
    let code = unsafe {
        libc::mount(
            c"nothing".as_ptr(),
            point.as_ptr(),
            kind.as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    std::thread::spawn(move || {
        let mut request = vec![0; 1 << 20];
        while device.read(&mut request).is_ok() {
            // include/uapi/linux/fuse.h: fuse_in_header is length, opcode, unique ...
            let opcode = u32::from_ne_bytes(request[4..8].try_into().unwrap());
            let (error, body) = answer(opcode);
            let mut reply = Vec::new();
            reply.extend((16 + body.len() as u32).to_ne_bytes());
            reply.extend((-error).to_ne_bytes());
            reply.extend(&request[8..16]);
            reply.extend(body);
            let _ = device.write(&reply);
        }
    });
}

fn answer(opcode: u32) -> (i32, Vec<u8>) {
    const LOOKUP: u32 = 1;
    const GETATTR: u32 = 3;
    const STATFS: u32 = 17;
    const INIT: u32 = 26;
    let mut body = Vec::new();
    match opcode {
        INIT => {
            body.extend([7_u32, 31, 0, 0, 0, 4096].map(u32::to_ne_bytes).concat());
            body.resize(64, 0);
        }
        GETATTR => {
            body.resize(16, 0);
            body.extend([1_u64, 0, 0, 0, 0, 0].map(u64::to_ne_bytes).concat());
            let directory = 0o40_755;
            body.extend([0_u32, 0, 0, directory, 2].map(u32::to_ne_bytes).concat());
            body.resize(16 + 88, 0);
        }
        STATFS => body.resize(80, 0),
        LOOKUP => return (libc::ENOENT, body),
        _ => return (libc::ENOSYS, body),
    }
    (0, body)
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
    in_a_namespace(
        "a_fuse_is_known_by_its_subtype_and_named_by_its_mount_point",
        |dir| {
            let (there, bound) = (dir.join("my data"), dir.join("bound"));
            mount_fuse("fuse.sshfs", &there);
            mount(&["--bind", there.to_str().unwrap()], &bound);
            for point in [&there, &bound] {
                for name in ["", "a.db"] {
                    let ground = look(point.join(name));
                    assert_eq!(ground.kind, Kind::Network);
                    assert!(matches!(ground.locks, Locks::NodeLocal(_)), "{ground}");
                    assert_eq!(ground.name.as_str(), "fuse.sshfs");
                    let sentence = format!(
                        "{} (fuse.sshfs) passes no locks to the server: locks hold on this node only; \
                         let one machine only use the database",
                        point.display()
                    );
                    assert_eq!(ground.to_string(), sentence);
                }
            }
            std::env::set_current_dir(&there).unwrap();
            assert_eq!(look("a.db").name.as_str(), "fuse.sshfs");
            let other = dir.join("other");
            mount_fuse("fuse", &other);
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
    in_a_namespace("the_option_overrides_the_kind_and_nothing_else", |dir| {
        let there = dir.join("fuse");
        mount_fuse("fuse.sshfs", &there);
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

#[test]
fn an_overlay_is_local_if_its_upper_directory_is() {
    in_a_namespace("an_overlay_is_local_if_its_upper_directory_is", |dir| {
        mount_overlay(dir);
        let at = dir.join("overlay/a.db");
        assert_eq!(local(&at), "overlay");
        File::create(&at).unwrap();
        assert_eq!(local(&at), "overlay");
        let point = Text::new(dir.join("overlay").display());
        assert_eq!(look(&at).mount_point, Some(point));
        // As if the upper directory's path led to a network.
        mount_fuse("fuse.glusterfs", &dir.join("layers/upper"));
        let ground = look(&at);
        assert_eq!(ground.kind, Kind::Network);
        assert_eq!(ground.name.as_str(), "overlay on fuse.glusterfs");
        // As in a container, where it leads nowhere.
        mount(&["-t", "tmpfs", "x"], &dir.join("layers"));
        assert_eq!(local(&at), "overlay");
    });
}

#[test]
fn without_proc_the_magic_number_is_enough() {
    in_a_namespace("without_proc_the_magic_number_is_enough", |dir| {
        mount_overlay(dir);
        mount(&["-t", "tmpfs", "x"], &dir.join("tmpfs"));
        mount_fuse("fuse.sshfs", &dir.join("fuse"));
        nix::unistd::chroot(dir).unwrap();
        std::env::set_current_dir("/").unwrap();
        assert_eq!(local("/tmpfs/a.db"), "tmpfs");
        assert_eq!(local("/overlay/a.db"), "overlay");
        let ground = look("/fuse/a.db");
        assert_eq!((ground.kind, ground.locks), (Kind::Network, Locks::Shared));
        assert_eq!((ground.name.as_str(), ground.mount_point), ("fuse", None));
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
fn nothing_is_read_for_a_local_file_system_and_nothing_allocated_for_any() {
    in_a_namespace(
        "nothing_is_read_for_a_local_file_system_and_nothing_allocated_for_any",
        |dir| {
            mount(&["-t", "tmpfs", "x"], &dir.join("tmpfs"));
            mount_overlay(dir);
            mount_fuse("fuse.sshfs", &dir.join("fuse"));
            // Of this thread, the reading of this file included.
            let reads = || {
                let io = fs::read_to_string("/proc/thread-self/io").unwrap();
                let line = io.lines().find_map(|line| line.strip_prefix("syscr: "));
                line.unwrap().parse::<u64>().unwrap()
            };
            for (name, is_local) in [("tmpfs", true), ("overlay", false), ("fuse", false)] {
                let at = path(&dir.join(name).join("a.db"));
                let (first, second) = (reads(), reads());
                let before = ALLOCATIONS.get();
                let ground = filesystem::look(&at, Fs::Auto);
                let sentence = Text::new(&ground);
                let after = ALLOCATIONS.get();
                let third = reads();
                assert_eq!(after, before, "{}", sentence.as_str());
                let more = third - second > second - first;
                assert_eq!(more, !is_local, "{}", sentence.as_str());
            }
        },
    );
}
