//! One pipe that carries the reports of all writers.
//!
//! A thousand writers with a pipe each would be a thousand descriptors in the parent. POSIX makes
//! a write of at most `PIPE_BUF` bytes to a pipe atomic, so they can share one: each report is
//! cut into frames of that size, and a frame says whose it is and whether it is the last.

use std::collections::HashMap;
use std::io::{self, Read, Write};

/// `PIPE_BUF` on Linux.
const FRAME: usize = 4096;
const HEADER: usize = 8;
const LAST: u32 = 1 << 31;

/// Sends `bytes` as `writer`'s. `pipe` must not buffer.
pub fn send(pipe: &mut impl Write, writer: u32, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    loop {
        let (part, more) = rest.split_at(rest.len().min(FRAME - HEADER));
        let last = if more.is_empty() { LAST } else { 0 };
        let mut frame = Vec::with_capacity(FRAME);
        frame.extend_from_slice(&writer.to_ne_bytes());
        frame.extend_from_slice(&(part.len() as u32 | last).to_ne_bytes());
        frame.extend_from_slice(part);
        pipe.write_all(&frame)?;
        rest = more;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Reads to the end of `pipe` and gives each complete message to `deliver`. What a writer had not
/// finished sending when it was killed is dropped.
pub fn receive(pipe: &mut impl Read, mut deliver: impl FnMut(u32, &[u8])) -> io::Result<()> {
    let mut parts: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut header = [0; HEADER];
    loop {
        match pipe.read_exact(&mut header) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let [a, b, c, d, e, f, g, h] = header;
        let writer = u32::from_ne_bytes([a, b, c, d]);
        let length = u32::from_ne_bytes([e, f, g, h]);
        let message = parts.entry(writer).or_default();
        pipe.take(u64::from(length & !LAST)).read_to_end(message)?;
        if length & LAST != 0 {
            deliver(writer, message);
            parts.remove(&writer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of two writers, interleaved as a pipe interleaves them; one is killed on the way.
    #[test]
    fn messages_come_out_whole() {
        let long: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
        let (mut one, mut two, mut cut) = (Vec::new(), Vec::new(), Vec::new());
        send(&mut one, 1, &long).expect("a Vec takes it");
        send(&mut two, 2, b"short").expect("a Vec takes it");
        send(&mut cut, 3, &long).expect("a Vec takes it");
        let mut stream = one[..FRAME].to_vec();
        stream.extend(&two);
        stream.extend(&cut[..2 * FRAME]);
        stream.extend(&one[FRAME..]);

        let mut got = Vec::new();
        receive(&mut stream.as_slice(), |writer, bytes| {
            got.push((writer, bytes.to_vec()))
        })
        .expect("a well-formed stream");
        assert_eq!(got, [(2, b"short".to_vec()), (1, long)]);
    }
}
