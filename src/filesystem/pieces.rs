//! A file is read in pieces, into fixed places: no line of it is too long, and nothing allocates.

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::ffi::CStr;
use std::fs::File;
use std::io::{ErrorKind, Read};

/// `File::open` allocates if the path is long.
pub fn open(path: &CStr) -> nix::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    nix::fcntl::open(path, flags, Mode::empty()).map(File::from)
}

/// A source, byte by byte.
pub struct Pieces<R> {
    source: R,
    piece: [u8; 2048],
    next: usize,
    end: usize,
}

impl<R: Read> Pieces<R> {
    pub fn new(source: R) -> Pieces<R> {
        Pieces {
            source,
            piece: [0; 2048],
            next: 0,
            end: 0,
        }
    }

    /// `None` at the end, and where the source cannot be read.
    pub fn byte(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.next += usize::from(byte.is_some());
        byte
    }

    /// The byte that comes next.
    pub fn peek(&mut self) -> Option<u8> {
        if self.next == self.end {
            self.end = self.refill();
            self.next = 0;
        }
        self.piece[..self.end].get(self.next).copied()
    }

    fn refill(&mut self) -> usize {
        loop {
            match self.source.read(&mut self.piece) {
                Ok(length) => return length.min(self.piece.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return 0,
            }
        }
    }
}

/// The bytes of a field, up to `N`; of a longer one it is known that it was longer.
pub struct Field<const N: usize> {
    bytes: [u8; N],
    length: usize,
    /// What lies before this is text, even if it looks like the beginning of an escape.
    settled: usize,
}

impl<const N: usize> Field<N> {
    pub const fn new() -> Field<N> {
        Field {
            bytes: [0; N],
            length: 0,
            settled: 0,
        }
    }

    pub fn clear(&mut self) {
        self.length = 0;
        self.settled = 0;
    }

    pub fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    /// [`Field::push`] for the kernel's spelling, where `\040` is a space: the fourth byte of an escape
    /// makes one byte of the four.
    pub fn push_escaped(&mut self, byte: u8) {
        self.push(byte);
        let Some(start) = self.length.checked_sub(4) else {
            return;
        };
        if start >= self.settled
            && let Some(&[b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7']) =
                self.bytes.get(start..self.length)
        {
            self.length = start;
            self.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            self.settled = self.length;
        }
    }

    /// `None` if it was too long.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }

    /// `None` if it was too long, or cannot be a path.
    pub fn as_c_str(&mut self) -> Option<&CStr> {
        *self.bytes.get_mut(self.length)? = 0;
        CStr::from_bytes_with_nul(self.bytes.get(..=self.length)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
        let mut field = Field::<8>::new();
        text.iter().for_each(|&byte| field.push_escaped(byte));
        field.bytes().map(<[u8]>::to_vec)
    }

    #[test]
    fn an_escape_is_one_byte_and_is_not_read_twice() {
        assert_eq!(unescaped(br"a\040b").unwrap(), b"a b");
        assert_eq!(unescaped(br"\134040").unwrap(), br"\040");
        assert_eq!(unescaped(br"\134\134").unwrap(), br"\\");
        assert_eq!(unescaped(br"\377\011\012").unwrap(), b"\xff\t\n");
        // Not the kernel's spelling: it is left as it is.
        for odd in [&br"\04"[..], br"\4000", br"\048", br"\\"] {
            assert_eq!(unescaped(odd).unwrap(), odd);
        }
    }

    #[test]
    fn a_field_knows_that_it_was_too_long() {
        assert_eq!(unescaped(b"12345678").unwrap(), b"12345678");
        assert_eq!(unescaped(b"123456789"), None);
        assert_eq!(unescaped(br"123456789\040"), None);
        let mut field = Field::<4>::new();
        b"/ab".iter().for_each(|&byte| field.push(byte));
        assert_eq!(field.as_c_str(), Some(c"/ab"));
        field.push(b'c');
        assert_eq!(field.as_c_str(), None, "no room for the terminator");
        field.clear();
        field.push(0);
        assert_eq!(field.as_c_str(), None, "no path");
    }
}
