//! The line has sent us to try: we owe it a try, or that the next one is told instead.
//!
//! Two things that `walTryBeginRead` does on the way to a try are not what they look like.

/// Read marks of a WAL that can be moved: `WAL_NREADER` without the first. If even so there is none to make do
/// with, `walTryBeginRead` asks for each once more.
const MARKS: u8 = 4;

/// So often it begins anew before we believe that a transaction does not want its turn. (It does, unless it failed; and
/// then it holds up the line until it is passed over.)
const READS: u8 = 4;

/// What was done since.
#[derive(Default)]
pub struct Call {
    spared: u8,
    reads: u8,
}

impl Call {
    /// Whether a read mark may stay where it is. One that is told that they are all in use makes do with an older one,
    /// which costs at worst a part of one checkpoint, and spares two calls of `fcntl`: with a thousand waiters, 5% of a
    /// write.
    pub fn spares_mark(&mut self) -> bool {
        let spares = self.spared < MARKS;
        self.spared += u8::from(spares);
        spares
    }

    /// A read lock is given back. Whether it may be asked for once more at once, since somebody has committed meanwhile.
    pub fn reads_anew(&mut self) -> bool {
        let anew = self.reads < READS;
        self.reads += u8::from(anew);
        anew
    }
}
