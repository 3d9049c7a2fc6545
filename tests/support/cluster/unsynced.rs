//! Data that is written and not yet synced.
//!
//! Linux keeps it in the page cache: everybody sees it, a sync brings it to the disk, and a *failed*
//! sync marks it clean all the same, so that the next one succeeds and the data is gone. Here it lies
//! beside the backing file until it is synced, and can be lost at will. Names are not held back: what
//! is created, renamed or deleted is so at once, as a server of NFS must have it.

use super::inodes::Inode;
use parking_lot::Mutex;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

const PAGE: u64 = 4096;

/// One file's unsynced data.
#[derive(Debug)]
pub struct Unsynced {
    pub size: u64,
    pub modified: SystemTime,
    /// So much of the backing file still counts: it was never cut shorter.
    kept: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
}

impl Unsynced {
    pub fn new(backing: &File) -> io::Result<Unsynced> {
        let size = backing.metadata()?.len();
        Ok(Unsynced {
            size,
            modified: SystemTime::now(),
            kept: size,
            pages: BTreeMap::new(),
        })
    }

    pub fn read(&self, backing: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let end = self.size.min(offset + size as u64);
        if end <= offset {
            return Ok(Vec::new());
        }
        let mut data = vec![0; (end - offset) as usize];
        let kept = self.kept.min(end).saturating_sub(offset) as usize;
        read_at(backing, &mut data[..kept], offset)?;
        for (&number, page) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = number * PAGE;
            let (from, to) = (start.max(offset), (start + PAGE).min(end));
            data[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
        Ok(data)
    }

    pub fn write(&mut self, backing: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        for number in offset / PAGE..end.div_ceil(PAGE) {
            let start = number * PAGE;
            let (from, to) = (start.max(offset), (start + PAGE).min(end));
            if !self.pages.contains_key(&number) {
                let old = self.read(backing, start, PAGE as usize)?;
                let mut page = Box::new([0; PAGE as usize]);
                page[..old.len()].copy_from_slice(&old);
                self.pages.insert(number, page);
            }
            let page = self.pages.get_mut(&number).expect("it is there now");
            page[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
        }
        self.size = self.size.max(end);
        self.modified = SystemTime::now();
        Ok(())
    }

    pub fn truncate(&mut self, size: u64) {
        self.pages.retain(|number, _| number * PAGE < size);
        if let Some(page) = self.pages.get_mut(&(size / PAGE)) {
            page[(size % PAGE) as usize..].fill(0);
        }
        self.kept = self.kept.min(size);
        self.size = size;
        self.modified = SystemTime::now();
    }

    /// Brings it into the backing file.
    pub fn apply(&self, backing: &File) -> io::Result<()> {
        backing.set_len(self.kept)?;
        for (number, page) in &self.pages {
            let start = number * PAGE;
            let length = PAGE.min(self.size - start) as usize;
            backing.write_all_at(&page[..length], start)?;
        }
        backing.set_len(self.size)?;
        backing.set_modified(self.modified)
    }
}

/// Reads until `data` is full or the file ends.
fn read_at(file: &File, mut data: &mut [u8], mut offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while !data.is_empty() {
        match file.read_at(data, offset)? {
            0 => break,
            n => {
                data = &mut data[n..];
                offset += n as u64;
                done += n;
            }
        }
    }
    Ok(done)
}

/// The inode is kept so that its number does not become another file's.
type Held = HashMap<u64, (Arc<Inode>, Unsynced)>;

/// What the files contain: either the backing files, or those and what is not yet synced.
#[derive(Debug)]
pub enum Store {
    WriteThrough,
    Volatile(Mutex<Held>),
}

impl Store {
    pub fn read(&self, ino: u64, file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        if let Store::Volatile(held) = self
            && let Some((_, unsynced)) = held.lock().get(&ino)
        {
            return unsynced.read(file, offset, size);
        }
        let mut data = vec![0; size];
        let length = read_at(file, &mut data, offset)?;
        data.truncate(length);
        Ok(data)
    }

    pub fn write(
        &self,
        inode: &Arc<Inode>,
        file: &File,
        offset: u64,
        data: &[u8],
    ) -> io::Result<()> {
        match self {
            Store::WriteThrough => {
                file.write_all_at(data, offset)?;
                stamp(file)
            }
            Store::Volatile(held) => {
                unsynced(&mut held.lock(), inode, file)?.write(file, offset, data)
            }
        }
    }

    pub fn truncate(&self, inode: &Arc<Inode>, file: &File, size: u64) -> io::Result<()> {
        match self {
            Store::WriteThrough => {
                file.set_len(size)?;
                stamp(file)
            }
            Store::Volatile(held) => {
                unsynced(&mut held.lock(), inode, file)?.truncate(size);
                Ok(())
            }
        }
    }

    /// Nothing is ever synced to the real disk: it is our process that may end, not the machine.
    pub fn sync(&self, ino: u64, file: &File) -> io::Result<()> {
        let Store::Volatile(held) = self else {
            return Ok(());
        };
        let mut held = held.lock();
        if let Some((_, unsynced)) = held.get(&ino) {
            unsynced.apply(file)?;
            held.remove(&ino);
        }
        Ok(())
    }

    /// Drops what is not synced of one file.
    pub fn lose(&self, ino: u64) {
        if let Store::Volatile(held) = self {
            held.lock().remove(&ino);
        }
    }

    /// Drops what is not synced of all files.
    pub fn lose_all(&self) {
        if let Store::Volatile(held) = self {
            held.lock().clear();
        }
    }

    /// Size and time of modification, where they differ from the backing file's.
    pub fn attributes(&self, ino: u64) -> Option<(u64, SystemTime)> {
        let Store::Volatile(held) = self else {
            return None;
        };
        let held = held.lock();
        let (_, unsynced) = held.get(&ino)?;
        Some((unsynced.size, unsynced.modified))
    }
}

/// No two changes are to look like one. The kernel's own stamps come from a clock that ticks every few
/// milliseconds, and by them a node decides whether its pages are still good.
fn stamp(file: &File) -> io::Result<()> {
    file.set_modified(SystemTime::now())
}

fn unsynced<'a>(
    held: &'a mut Held,
    inode: &Arc<Inode>,
    file: &File,
) -> io::Result<&'a mut Unsynced> {
    let (_, unsynced) = match held.entry(inode.number) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert((inode.clone(), Unsynced::new(file)?)),
    };
    Ok(unsynced)
}
