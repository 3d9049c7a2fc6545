//! The line of /proc/self/mountinfo that a path is on. proc_pid_mountinfo(5):
//!
//! ```text
//! 36 35 0:58 / /scratch rw,relatime shared:1 - lustre 10.0.0.1@tcp:/scratch rw,flock,lazystatfs
//! |  |  |    | |        |           |          |      |                     options of the file system
//! |  |  |    | |        |           |          |      source: may be empty
//! |  |  |    | |        |           |          type, for FUSE with a subtype
//! |  |  |    | |        |           any number of tags, until the hyphen
//! |  |  |    | |        options of the mount
//! |  |  |    | mount point, as seen from the process's root
//! |  |  |    root of the mount within the file system
//! |  |  device number: what stat says
//! |  parent
//! mount
//! ```
//!
//! **The device number decides**: it names the file system, and it is the file system's type and options
//! that we are after. Of the mounts of one file system the one whose mount point is the longest beginning of
//! the path is named, of those on the same point the last: it lies on top. The path alone decides only
//! if no line has the device number (btrfs, overlay and Ceph's snapshots have more of them than mounts).
//!
//! A line that does not agree with what statfs said is not the path's, whatever its mount point:
//! so the file system below is not taken for the one that we do not see.

use super::Locks;
use super::pieces::{Field, Pieces};
use super::table::{self, Home, RULES, Row, When};
use crate::text::{PathEnd, Text, utf8};
use std::io::Read;

/// PATH_MAX.
const PATH: usize = 4096;

/// What is known of a path.
pub struct Sought<'a> {
    pub path: &'a [u8],
    /// Major and minor.
    pub device: Option<(u64, u64)>,
    /// What statfs said.
    pub magic: u32,
}

/// How surely a line is the path's: by its device number, and by how much of the path its mount point
/// is. The greatest and last wins.
type Rank = (bool, usize);

/// A mount.
pub struct Mount {
    /// Of its type, if that is known.
    pub row: Option<&'static Row>,
    /// Its type.
    pub name: Text,
    /// Where it is. `None` if that is too long.
    pub point: Option<Text>,
    rank: Rank,
    /// Which of the row's rules speak of an option that it has.
    seen: [bool; RULES],
    /// The value of the row's path option.
    pub path: Field<PATH>,
}

impl Mount {
    /// Takes one of its options in.
    fn take(&mut self, option: &Field<PATH>) {
        let (Some(row), Some(option)) = (self.row, option.bytes()) else {
            return;
        };
        for (rule, seen) in row.rules.iter().zip(&mut self.seen) {
            if let When::Has(name) | When::Lacks(name) = rule.when {
                *seen |= option == name.as_bytes();
            }
        }
        if let Some(path) = option.strip_prefix(row.path.as_bytes())
            && !row.path.is_empty()
        {
            self.path.clear();
            path.iter().for_each(|&byte| self.path.push(byte));
        }
    }

    /// What becomes of byte-range locks on it.
    pub fn locks(&mut self) -> Locks {
        let rules = self.row.map(|row| row.rules).unwrap_or_default();
        let path = self.path.as_c_str().filter(|path| !path.is_empty());
        for (rule, seen) in rules.iter().zip(self.seen) {
            let holds = match rule.when {
                When::Has(_) => seen,
                When::Lacks(_) => !seen,
                When::Told(says_so) => path.is_some_and(says_so),
                When::Always => true,
            };
            if holds {
                return rule.locks;
            }
        }
        Locks::Shared
    }
}

impl Sought<'_> {
    fn rank(&self, device: Option<(u64, u64)>, point: Option<&[u8]>) -> Rank {
        let is_the_device = device.is_some() && device == self.device;
        (is_the_device, point.map_or(0, |point| self.covered(point)))
    }

    /// How much of the path is this mount point.
    fn covered(&self, point: &[u8]) -> usize {
        match self.path.strip_prefix(point) {
            Some(rest) if point == b"/" || rest.is_empty() || rest.starts_with(b"/") => point.len(),
            _ => 0,
        }
    }

    /// Whether a mount of this type can be the one that statfs spoke of.
    fn agrees(&self, row: Option<&Row>, is_the_device: bool) -> bool {
        match row {
            Some(row) if row.magics.contains(&self.magic) => true,
            // Some file systems let their server choose the number (9p). Nothing becomes local by that.
            Some(row) => {
                is_the_device && row.home == Home::Network && table::by_magic(self.magic).is_none()
            }
            None => table::by_magic(self.magic).is_none(),
        }
    }
}

/// The mount that the path is on. `None` if the lines do not tell, or break off.
pub fn find(mountinfo: impl Read, sought: &Sought<'_>) -> Option<Mount> {
    let mut lines = Lines {
        pieces: Pieces::new(mountinfo),
        stop: Stop::Line,
    };
    let (mut short, mut long) = (Field::<64>::new(), Field::<PATH>::new());
    let mut best: Option<Mount> = None;
    while lines.begin() {
        lines.skip(2);
        lines.field(&mut short);
        let device = short.bytes().and_then(device_number);
        lines.skip(1);
        lines.field(&mut long);
        let rank = sought.rank(device, long.bytes());
        while !lines.is_over() && short.bytes() != Some(b"-") {
            lines.field(&mut short);
        }
        lines.field(&mut short);
        lines.skip(1);
        if lines.is_over() {
            continue;
        }
        let row = short.bytes().and_then(table::by_type);
        let best_yet = best.as_ref().map_or((false, 1), |best| best.rank);
        if rank >= best_yet && sought.agrees(row, rank.0) {
            let mount = best.insert(Mount {
                row,
                name: Text::new(short.bytes().map_or("?", utf8)),
                point: long.as_c_str().map(|point| Text::new(PathEnd(point))),
                rank,
                seen: [false; RULES],
                path: Field::new(),
            });
            while !lines.is_over() {
                lines.option(&mut long);
                mount.take(&long);
            }
        }
    }
    // Of a line that breaks off nobody knows what it would have said.
    best.filter(|_| lines.stop == Stop::Line)
}

/// `8:1`.
fn device_number(field: &[u8]) -> Option<(u64, u64)> {
    let (major, minor) = utf8(field).split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Where a field ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Comma,
    Space,
    Line,
    /// In the middle of a line, or behind the last one.
    End,
}

struct Lines<R> {
    pieces: Pieces<R>,
    stop: Stop,
}

impl<R: Read> Lines<R> {
    /// Goes to the beginning of the next line; false if there is none.
    fn begin(&mut self) -> bool {
        while !self.is_over() {
            self.skip(1);
        }
        let there_is_one = self.stop == Stop::Line && self.pieces.peek().is_some();
        if there_is_one {
            self.stop = Stop::Space;
        }
        there_is_one
    }

    /// Whether the line has no more fields.
    fn is_over(&self) -> bool {
        matches!(self.stop, Stop::Line | Stop::End)
    }

    fn skip(&mut self, fields: u32) {
        for _ in 0..fields {
            self.read(|_| {}, false);
        }
    }

    fn field<const N: usize>(&mut self, field: &mut Field<N>) {
        field.clear();
        self.read(|byte| field.push_escaped(byte), false);
    }

    /// One of the options in a field.
    fn option<const N: usize>(&mut self, option: &mut Field<N>) {
        option.clear();
        self.read(|byte| option.push_escaped(byte), true);
    }

    fn read(&mut self, mut each: impl FnMut(u8), in_options: bool) {
        if self.is_over() {
            return;
        }
        self.stop = loop {
            match self.pieces.byte() {
                Some(b'\n') => break Stop::Line,
                Some(b' ') => break Stop::Space,
                Some(b',') if in_options => break Stop::Comma,
                Some(byte) => each(byte),
                None => break Stop::End,
            }
        };
    }
}

#[cfg(test)]
mod tests {
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

    /// The same on every machine.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % sides
        }
    }

    #[test]
    fn whatever_the_lines_say_nothing_panics_and_pieces_do_not_matter() {
        let mut dice = Dice(0x7571_2751_0bd0_0bd0);
        let magics = [EXT4, NFS, OVERLAY, UNKNOWN, 0x6573_5546, 0x0bd0_0bd0];
        let alphabet = b"\n\n  --,=\\0124:/\x00\xff amnfsolck";
        for _ in 0..20_000 {
            let text: Vec<u8> = if dice.roll(2) == 0 {
                let length = dice.roll(300);
                (0..length)
                    .map(|_| alphabet[dice.roll(alphabet.len())])
                    .collect()
            } else {
                let mut text = MANY.as_bytes().to_vec();
                for _ in 0..dice.roll(20) {
                    let at = dice.roll(text.len());
                    match dice.roll(3) {
                        0 => text[at] = dice.roll(256) as u8,
                        1 => text.insert(at, alphabet[dice.roll(alphabet.len())]),
                        _ => drop(text.remove(at)),
                    }
                }
                text
            };
            let sought = Sought {
                path: [&b"/data/a.db"[..], b"/", b"", b"a.db"][dice.roll(4)],
                device: [Some((0, 45)), Some((254, 0)), None][dice.roll(3)],
                magic: magics[dice.roll(magics.len())],
            };
            let mut whole = find(&text[..], &sought);
            let mut parts = find(Dribble::new(&text, 1 + dice.roll(30), false), &sought);
            assert_eq!(name(&whole), name(&parts));
            let locks = |mount: &mut Option<Mount>| mount.as_mut().map(Mount::locks);
            assert_eq!(locks(&mut whole), locks(&mut parts));
        }
    }

    #[test]
    fn any_mount_point_is_found_again() {
        let mut dice = Dice(42);
        for _ in 0..2_000 {
            let mut point = vec![b'/'];
            let length = 1 + dice.roll(60);
            point.extend((0..length).map(|_| match dice.roll(4) {
                0 => b" \t\n\\#,"[dice.roll(6)],
                1 => b'0' + dice.roll(8) as u8,
                _ => 1 + dice.roll(255) as u8,
            }));
            // As the kernel writes it (show_mountinfo: mangle).
            let mut line = b"1 0 0:5 / ".to_vec();
            for &byte in &point {
                match byte {
                    b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                        line.extend(format!("\\{byte:03o}").bytes())
                    }
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
}
