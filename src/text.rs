//! Text for messages, built without the heap.
//!
//! Rust ends the process when an allocation fails, and no `catch_unwind` stops that. So what runs in
//! somebody else's process allocates only where it can say no (`vfs/memory.rs`), and messages lie on
//! the stack.

use std::ffi::CStr;
use std::fmt::{self, Write as _};

/// A text of at most [`Text::MAX`] bytes; what is too much is left out at the end.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    length: usize,
    /// Terminated: the byte behind the text is 0.
    bytes: [u8; Text::MAX + 1],
}

impl Text {
    /// SQLite cuts a log line at 209 bytes (`renderLogMsg`), so more would never be seen.
    const MAX: usize = 247;

    pub fn new(text: impl fmt::Display) -> Text {
        let mut this = Text {
            length: 0,
            bytes: [0; Text::MAX + 1],
        };
        // An error says only that it was too long.
        let _ = write!(this, "{text}");
        this
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = Text::MAX - self.length;
        let most = room.min(text.len());
        let boundary = (0..=most).rev().find(|&at| text.is_char_boundary(at));
        let taken = boundary.unwrap_or(0);
        let end = self.length + taken;
        self.bytes[self.length..end].copy_from_slice(&text.as_bytes()[..taken]);
        self.length = end;
        if taken < text.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// `bytes` as text. Text that is not UTF-8 names nothing of ours and is no value that we allow, so which
/// text it is does not matter: it is shown as one replacement character.
pub fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("\u{fffd}")
}

/// A value for a message, cut behind 40 characters: it must not push out the rest.
pub struct Beginning<'a>(pub &'a str);

impl fmt::Display for Beginning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(40) {
            Some((end, _)) => write!(f, "{}...", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}

/// A path for a message: of a long one the last 80 bytes, which tell more than the first.
pub struct PathEnd<'a>(pub &'a CStr);

impl fmt::Display for PathEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.to_bytes();
        let start = bytes.len().saturating_sub(80);
        // Not in the middle of a character.
        let inside = |&&b: &&u8| b & 0xc0 == 0x80;
        let skip = bytes[start..].iter().take_while(inside).take(3).count();
        if start > 0 {
            f.write_str("...")?;
        }
        for chunk in bytes[start + skip..].utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_long_a_text_is_cut_between_characters() {
        let text = Text::new("é".repeat(200));
        assert_eq!(text.as_str(), "é".repeat(Text::MAX / 2));
        assert_eq!(text.as_c_str().to_bytes(), text.as_str().as_bytes());
    }

    #[test]
    fn a_long_path_shows_its_end() {
        let path = std::ffi::CString::new(format!("/{}/é\u{e9}.db", "d".repeat(200))).unwrap();
        let shown = Text::new(PathEnd(&path));
        assert!(shown.as_str().starts_with("...dd") && shown.as_str().ends_with("/éé.db"));
        let odd = Text::new(PathEnd(c"/a\xff.db"));
        assert_eq!(odd.as_str(), "/a\u{fffd}.db");
        assert_eq!(
            Text::new(Beginning(&"é".repeat(50)))
                .as_str()
                .chars()
                .count(),
            43
        );
    }
}
