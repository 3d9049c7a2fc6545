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
//! Without the device number, a line that does not agree with what statfs said is not the path's, whatever
//! its mount point: so the file system below is not taken for the one that we do not see.

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
            // 9p shows the number of the server's file system. Nothing becomes local by a line that
            // says otherwise than statfs.
            Some(row) => is_the_device && row.home == Home::Network,
            None => is_the_device || table::by_magic(self.magic).is_none(),
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
mod tests;
