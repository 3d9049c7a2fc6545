use super::super::tests::is_foreign;
use super::super::{Kind, judge};
use super::*;
use std::io;

const EXT4: u32 = 0xef53;
const NFS: u32 = 0x6969;
const OVERLAY: u32 = 0x794c_7630;
const UNKNOWN: u32 = 0x1234_5678;

/// A source that is interrupted before each piece, gives at most so many bytes at a time, and ends or
/// fails.
struct Dribble<'a> {
    rest: &'a [u8],
    most: usize,
    fails: bool,
    interrupted: bool,
}

impl Dribble<'_> {
    fn new(rest: &[u8], most: usize, fails: bool) -> Dribble<'_> {
        Dribble {
            rest,
            most,
            fails,
            interrupted: false,
        }
    }
}

impl Read for Dribble<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.interrupted ^= true;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.rest.is_empty() && self.fails {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = self.most.min(into.len()).min(self.rest.len());
        let (now, later) = self.rest.split_at(length);
        into[..length].copy_from_slice(now);
        self.rest = later;
        Ok(length)
    }
}

fn find_at(path: &str, device: (u64, u64), magic: u32, text: &str) -> Option<Mount> {
    let sought = Sought {
        path: path.as_bytes(),
        device: Some(device),
        magic,
    };
    find(text.as_bytes(), &sought)
}

fn name(mount: &Option<Mount>) -> Option<(&str, &str)> {
    let mount = mount.as_ref()?;
    Some((mount.name.as_str(), mount.point.as_ref()?.as_str()))
}

const MANY: &str = "\
    27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
    40 27 0:44 / /home rw,relatime shared:1 - nfs4 nas:/home rw,vers=4.2,local_lock=none\n\
    41 27 0:45 / /data rw,relatime shared:2 master:1 - nfs nas:/data rw,vers=3,nolock,local_lock=all\n\
    42 27 0:45 /sub /mnt/sub rw,relatime - nfs nas:/data rw,vers=3,nolock,local_lock=all\n\
    43 27 0:46 / /mnt/my\\040data rw,relatime - nfs nas:/mine rw,vers=3,local_lock=none\n\
    44 41 0:47 / /data rw,relatime - tmpfs  rw,size=1024k\n\
    45 27 0:48 / /mnt/x rw - newfs 10.0.0.1/x rw,writecache\n";

#[test]
fn the_device_number_decides_and_the_path_only_among_its_mounts() {
    let at = |path, device, magic| find_at(path, device, magic, MANY);
    assert_eq!(
        name(&at("/home/u/a.db", (0, 44), NFS)),
        Some(("nfs4", "/home"))
    );
    assert_eq!(
        name(&at("/data/a.db", (0, 45), NFS)),
        Some(("nfs", "/data"))
    );
    assert_eq!(
        name(&at("/mnt/sub/a.db", (0, 45), NFS)),
        Some(("nfs", "/mnt/sub"))
    );
    assert_eq!(name(&at("a.db", (0, 45), NFS)), Some(("nfs", "/mnt/sub")));
    assert_eq!(
        name(&at("/mnt/my data/a.db", (0, 46), NFS)),
        Some(("nfs", "/mnt/my data"))
    );
    assert_eq!(
        name(&at("/home/a.db", (0, 44), UNKNOWN)),
        Some(("nfs4", "/home"))
    );
}

#[test]
fn without_a_device_number_the_longest_mount_point_decides() {
    let at = |path, magic| find_at(path, (9, 9), magic, MANY);
    assert_eq!(name(&at("/home/u/a.db", NFS)), Some(("nfs4", "/home")));
    assert_eq!(name(&at("/home", NFS)), Some(("nfs4", "/home")));
    // Where statfs says NFS, the disk below and the tmpfs above are not what is looked for.
    assert_eq!(name(&at("/homes/a.db", NFS)), None);
    assert_eq!(name(&at("/data/a.db", NFS)), Some(("nfs", "/data")));
    assert_eq!(name(&at("a.db", NFS)), None);
    assert_eq!(name(&at("/mnt/x/a.db", UNKNOWN)), Some(("newfs", "/mnt/x")));
    assert_eq!(name(&at("/home/a.db", UNKNOWN)), None);
    // A type that is not known says nothing against a number that is.
    assert_eq!(name(&at("/mnt/x/a.db", NFS)), None);
    // It must not be local by a line that does not have the number.
    assert_eq!(name(&at("/a.db", UNKNOWN)), None);
    assert_eq!(name(&find_at("/a.db", (254, 0), UNKNOWN, MANY)), None);
    assert_eq!(name(&at("/a.db", EXT4)), Some(("ext4", "/")));
}

#[test]
fn of_two_mounts_on_one_point_the_last_lies_on_top() {
    let text = "\
        1 0 0:5 / /m rw - nfs a:/ rw\n\
        2 1 0:5 / /m rw - nfs b:/ rw,nolock\n";
    let mut mount = find_at("/m/a.db", (0, 5), NFS, text).unwrap();
    assert!(matches!(mount.locks(), Locks::NodeLocal(_)));
}

#[test]
fn a_line_may_be_as_long_as_it_likes() {
    let lower = (0..3000)
        .map(|n| format!("/var/lib/{n}"))
        .collect::<Vec<_>>();
    let text = format!(
        "1 0 0:5 / / rw,relatime - overlay overlay rw,lowerdir={},upperdir=/up\\040per,workdir=/w\n",
        lower.join(":")
    );
    assert!(text.len() > 40_000);
    let mut mount = find_at("/a.db", (0, 5), OVERLAY, &text).unwrap();
    assert_eq!(mount.path.as_c_str(), Some(c"/up per"));
    let point = "/p".repeat(3000);
    let text = format!("1 0 0:5 / {point} rw - nfs nas:/ rw,nolock\n");
    let mut mount = find_at("/a.db", (0, 5), NFS, &text).unwrap();
    assert_eq!(mount.point, None);
    assert!(matches!(mount.locks(), Locks::NodeLocal(_)));
}

#[test]
fn lines_that_are_none_are_passed_over() {
    let line = "1 0 0:5 / /m rw - nfs nas:/ rw\n";
    for odd in [
        "",
        "\n\n",
        "1\n",
        "1 0 0:5 / /m rw\n",
        "1 0 0:5 / /m rw - nfs\n",
        "1 0 0:5 / /m rw - nfs nas:/\n",
        " - \n",
        "1 0 0:5:6 / / rw - nfs x rw\n",
    ] {
        let found = find_at("/m/a.db", (0, 5), NFS, &format!("{odd}{line}{odd}"));
        assert_eq!(name(&found), Some(("nfs", "/m")), "{odd:?}");
        assert_eq!(name(&find_at("a.db", (0, 5), NFS, odd)), None, "{odd:?}");
    }
}

#[test]
fn a_line_that_breaks_off_says_nothing() {
    let text = "1 0 0:5 / /m rw - lustre mgs:/l rw,flock\n";
    let sought = Sought {
        path: b"/m/a.db",
        device: Some((0, 5)),
        magic: 0x0bd0_0bd0,
    };
    for length in 0..text.len() {
        for fails in [false, true] {
            let part = Dribble::new(&text.as_bytes()[..length], 7, fails);
            assert!(find(part, &sought).is_none(), "{length}");
        }
    }
    assert!(find(text.as_bytes(), &sought).is_some());
    // Nor does what came before.
    assert!(find(format!("{text}2 0 0:6 / /n").as_bytes(), &sought).is_none());
}

#[test]
fn what_lies_on_the_device_itself_is_not_local_if_it_is_of_another_type() {
    let server = "\
        1 0 254:0 / / rw - ext4 /dev/vda rw\n\
        2 1 0:50 / /9p rw - 9p share rw,trans=virtio\n\
        3 1 0:51 / /new rw - newfs x rw\n\
        4 1 0:52 / /t rw - tmpfs x rw\n";
    let at = |path, device, magic| find_at(path, device, magic, server);
    // The number is that of the server's file system.
    assert_eq!(name(&at("/9p/a.db", (0, 50), EXT4)), Some(("9p", "/9p")));
    assert_eq!(
        name(&at("/new/a.db", (0, 51), EXT4)),
        Some(("newfs", "/new"))
    );
    assert_eq!(name(&at("/t/a.db", (0, 52), NFS)), None);
}

/// Bytes that look like lines, now and then.
fn garbage(random: &mut fastrand::Rng) -> Vec<u8> {
    let alphabet = b"\n\n  --,=\\0124:/\x00\xff amnfsolck";
    if random.bool() {
        let length = random.usize(..300);
        return (0..length)
            .map(|_| alphabet[random.usize(..alphabet.len())])
            .collect();
    }
    let mut text = MANY.as_bytes().to_vec();
    for _ in 0..random.usize(..20) {
        let at = random.usize(..text.len());
        match random.u8(..3) {
            0 => text[at] = random.u8(..),
            1 => text.insert(at, alphabet[random.usize(..alphabet.len())]),
            _ => drop(text.remove(at)),
        }
    }
    text
}

#[test]
fn whatever_the_lines_say_nothing_panics_and_nothing_foreign_is_local() {
    let mut random = fastrand::Rng::with_seed(0x0bd0_0bd0);
    let magics = [EXT4, NFS, OVERLAY, UNKNOWN, 0x6573_5546, 0x0bd0_0bd0];
    for _ in 0..20_000 {
        let text = garbage(&mut random);
        let sought = Sought {
            path: [&b"/data/a.db"[..], b"/", b"", b"a.db"][random.usize(..4)],
            device: [Some((0, 45)), Some((254, 0)), None][random.usize(..3)],
            magic: magics[random.usize(..magics.len())],
        };
        let mut whole = find(&text[..], &sought);
        // Nor does it matter in which pieces they come.
        let most = random.usize(1..30);
        let mut parts = find(Dribble::new(&text, most, false), &sought);
        assert_eq!(name(&whole), name(&parts));
        let locks = |mount: &mut Option<Mount>| mount.as_mut().map(Mount::locks);
        assert_eq!(locks(&mut whole), locks(&mut parts));
        let ground = judge(sought.magic, whole, |_| None);
        if is_foreign(sought.magic) {
            let text = text.escape_ascii();
            assert_eq!(ground.kind, Kind::Network, "{ground}: {text}");
        }
    }
}

#[test]
fn any_mount_point_is_found_again() {
    let mut random = fastrand::Rng::with_seed(42);
    for _ in 0..2_000 {
        let mut point = vec![b'/'];
        let length = random.usize(1..=60);
        point.extend((0..length).map(|_| match random.u8(..4) {
            0 => b" \t\n\\#,"[random.usize(..6)],
            1 => random.u8(b'0'..b'8'),
            _ => random.u8(1..),
        }));
        // As the kernel writes it (show_mountinfo: mangle).
        let mut line = b"1 0 0:5 / ".to_vec();
        for &byte in &point {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => line.extend(format!("\\{byte:03o}").bytes()),
                byte => line.push(byte),
            }
        }
        line.extend(b" rw - nfs nas:/ rw\n");
        let path = [&point[..], b"/a.db"].concat();
        let sought = Sought {
            path: &path,
            device: None,
            magic: NFS,
        };
        assert!(find(&line[..], &sought).is_some(), "{point:?}");
        let elsewhere = Sought {
            path: &path[..point.len() - 1],
            ..sought
        };
        assert!(find(&line[..], &elsewhere).is_none(), "{point:?}");
    }
}
