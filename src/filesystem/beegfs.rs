//! BeeGFS tells only in its client's configuration whether nodes share their locks.

use super::pieces::{Field, Pieces, open};
use std::ffi::CStr;
use std::io::Read;

/// Whether the client that was mounted with this configuration takes its locks at the servers.
/// By default it does not (client_module's Config.c).
pub fn shares_locks(configuration: &CStr) -> bool {
    open(configuration).is_ok_and(says_so)
}

/// Lines `key = value`; the last one of a key holds. The words for yes are StringTk_strToBool's.
fn says_so(configuration: impl Read) -> bool {
    let mut pieces = Pieces::new(configuration);
    let mut shared = false;
    let (mut key, mut value) = (Field::<32>::new(), Field::<8>::new());
    loop {
        key.clear();
        value.clear();
        let mut in_value = false;
        let last = loop {
            match pieces.byte() {
                byte @ (None | Some(b'\n')) => break byte,
                Some(b'=') if !in_value => in_value = true,
                Some(b' ' | b'\t' | b'\r') => {}
                Some(byte) if in_value => value.push(byte.to_ascii_lowercase()),
                Some(byte) => key.push(byte),
            }
        };
        if in_value && key.bytes() == Some(b"tuneUseGlobalFileLocks") {
            let yes: [&[u8]; 6] = [b"", b"1", b"y", b"on", b"yes", b"true"];
            shared = value.bytes().is_some_and(|value| yes.contains(&value));
        }
        if last.is_none() {
            return shared;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_shared_only_where_the_configuration_says_so() {
        for (text, shared) in [
            ("", false),
            ("tuneUseGlobalFileLocks = true\n", true),
            ("logLevel=3\r\ntuneUseGlobalFileLocks\t=  Yes\r\n", true),
            ("tuneUseGlobalFileLocks=1", true),
            ("tuneUseGlobalFileLocks = false\n", false),
            ("# tuneUseGlobalFileLocks = true\n", false),
            ("tuneUseGlobalAppendLocks = true\n", false),
            (
                "tuneUseGlobalFileLocks = true\ntuneUseGlobalFileLocks = false\n",
                false,
            ),
            ("tuneUseGlobalFileLocks\n", false),
        ] {
            assert_eq!(says_so(text.as_bytes()), shared, "{text:?}");
        }
        assert!(!shares_locks(c"/nonexistent/beegfs-client.conf"));
    }
}
