//! One error type: an SQLite error code and a sentence that says what to do.

use crate::text::Text;
use std::ffi::c_int;
use std::fmt;

/// Why turnstile refused something. Its text names the option or file, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: c_int,
    text: Text,
}

impl Error {
    pub(crate) fn new(code: c_int, text: impl fmt::Display) -> Error {
        let text = Text::new(text);
        Error { code, text }
    }

    /// The SQLite result code that stands for it, for example 1, `SQLITE_ERROR`.
    pub fn code(&self) -> c_int {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.as_str())
    }
}

impl std::error::Error for Error {}
