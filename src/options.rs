//! Options: URI > environment > what the program registered > default.
//!
//! Each option has one name in three spellings: `fs` is `?fs=...` in a URI, `TURNSTILE_FS` in the
//! environment and `"fs=..."` for [`Options::parse`]. All three are read by the one table below, so
//! they allow the same values. The environment and the URI are read whenever a database is opened.
//!
//! A value that is not allowed is an error that names the option, the value and what is allowed;
//! nothing falls back to a default. A *name* that we do not know may be somebody else's (URIs carry
//! SQLite's own parameters and those of other shims, and `TURNSTILE_` is not ours alone), so it is
//! an error only where it is plainly one of ours, misspelt.

use crate::sqlite::abi::SQLITE_ERROR;
use crate::text::{Beginning, utf8};
use crate::{Error, environment};
use std::ffi::CStr;
use std::fmt::{self, Write as _};

/// Where the file system's locks and caches are shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fs {
    /// Look at the file system and decide.
    #[default]
    Auto,
    /// One machine: memory can be shared.
    Local,
    /// Several machines, or unknown: nothing is mapped.
    Network,
}

/// The name of a VFS: at most 63 bytes, none of them NUL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VfsName([u8; VfsName::MAX + 1]);

impl VfsName {
    const MAX: usize = 63;

    /// `None` if `name` is empty, too long or holds a NUL byte.
    pub fn new(name: &str) -> Option<VfsName> {
        if name.is_empty() || name.len() > VfsName::MAX || name.contains('\0') {
            return None;
        }
        let mut bytes = [0; VfsName::MAX + 1];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(VfsName(bytes))
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

impl fmt::Display for VfsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(utf8(self.as_c_str().to_bytes()))
    }
}

impl fmt::Debug for VfsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_c_str())
    }
}

/// What can be set. `None` stands for a default that is stated where it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `default`: be the process's default VFS, for programs that name none.
    pub make_default: bool,
    /// `fs`: see [`Fs`].
    pub fs: Fs,
    /// `fair`: the queue; without it waiting is randomized backoff alone.
    pub fair: bool,
    /// `quantum_us`: how long one turn may serve the same connection again at most, in microseconds.
    pub quantum_us: u32,
    /// `backoff_us`: the first step of the randomized exponential backoff, in microseconds.
    pub backoff_us: Option<u32>,
    /// `backoff_cap_us`: its longest step, in microseconds.
    pub backoff_cap_us: Option<u32>,
    /// `retry_ms`: budget for one call's errors that pass, in milliseconds, on a file system that other machines can reach;
    /// 0 = off, as in stock SQLite. By default 30,000.
    pub retry_ms: Option<u32>,
    /// `resync_kb`: how much unsynced data is kept there for a safe retry of fsync, in KiB. By default 65,536.
    pub resync_kb: Option<u32>,
    /// `base`: the VFS underneath.
    pub base: VfsName,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            make_default: false,
            fs: Fs::Auto,
            fair: true,
            // Measured: the tables in `turn::quantum`.
            quantum_us: 10_000,
            backoff_us: None,
            backoff_cap_us: None,
            retry_ms: None,
            resync_kb: None,
            base: VfsName::new("unix").expect("a short name"),
        }
    }
}

/// One option: its name, the values it allows, and how one is taken in.
struct Spec {
    name: &'static CStr,
    allowed: &'static str,
    /// False if the value is not allowed.
    set: fn(&mut Options, &str) -> bool,
}

impl Spec {
    fn name(&self) -> &'static str {
        utf8(self.name.to_bytes())
    }
}

/// `default` comes first: it is the one that a URI cannot set.
const SPECS: [Spec; 9] = [
    Spec {
        name: c"default",
        allowed: "on or off",
        set: |o, v| put(&mut o.make_default, boolean(v)),
    },
    Spec {
        name: c"fs",
        allowed: "auto, local or network",
        set: |o, v| {
            let fs = match v {
                "auto" => Some(Fs::Auto),
                "local" => Some(Fs::Local),
                "network" => Some(Fs::Network),
                _ => None,
            };
            put(&mut o.fs, fs)
        },
    },
    Spec {
        name: c"fair",
        allowed: "on or off",
        set: |o, v| put(&mut o.fair, boolean(v)),
    },
    Spec {
        name: c"quantum_us",
        allowed: "0 to 1000000",
        set: |o, v| put(&mut o.quantum_us, number(v, 0, 1_000_000)),
    },
    Spec {
        name: c"backoff_us",
        allowed: "1 to 1000000",
        set: |o, v| put(&mut o.backoff_us, number(v, 1, 1_000_000).map(Some)),
    },
    Spec {
        name: c"backoff_cap_us",
        allowed: "1 to 10000000",
        set: |o, v| put(&mut o.backoff_cap_us, number(v, 1, 10_000_000).map(Some)),
    },
    Spec {
        name: c"retry_ms",
        allowed: "0 to 3600000",
        set: |o, v| put(&mut o.retry_ms, number(v, 0, 3_600_000).map(Some)),
    },
    Spec {
        name: c"resync_kb",
        allowed: "0 to 1048576",
        set: |o, v| put(&mut o.resync_kb, number(v, 0, 1_048_576).map(Some)),
    },
    Spec {
        name: c"base",
        allowed: "the name of a registered VFS, at most 63 bytes",
        set: |o, v| put(&mut o.base, VfsName::new(v)),
    },
];

/// The options that a URI can set.
const URI_SPECS: &[Spec] = SPECS.split_at(1).1;

fn put<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

/// The words of `sqlite3_uri_boolean`, but nothing else: SQLite takes any other word for the default.
fn boolean(value: &str) -> Option<bool> {
    match value {
        "on" | "yes" | "true" | "1" => Some(true),
        "off" | "no" | "false" | "0" => Some(false),
        _ => None,
    }
}

fn number(value: &str, least: u32, most: u32) -> Option<u32> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let number: u32 = value.parse().ok().filter(|_| digits)?;
    (least..=most).contains(&number).then_some(number)
}

/// Where a value was found; it decides how the option is spelt in a message.
#[derive(Clone, Copy)]
enum Source {
    Uri,
    Environment,
    Program,
}

/// An option as it is spelt where it was found.
struct Spelling<'a>(&'a Spec, Source);

impl fmt::Display for Spelling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.name();
        match self.1 {
            Source::Uri => write!(f, "URI parameter {name}"),
            Source::Program => write!(f, "option {name}"),
            Source::Environment => {
                f.write_str("environment variable TURNSTILE_")?;
                name.chars()
                    .try_for_each(|c| f.write_char(c.to_ascii_uppercase()))
            }
        }
    }
}

impl Options {
    /// Options from `name=value` pairs joined by `&`, with a URI's names and values, for example
    /// `"fs=network&retry_ms=60000"`.
    ///
    /// # Errors
    /// `SQLITE_ERROR` for a name that is not an option, or a value that is not allowed.
    pub fn parse(pairs: &str) -> Result<Options, Error> {
        let mut options = Options::default();
        for pair in pairs.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match SPECS.iter().find(|spec| spec.name() == name) {
                Some(spec) => options.set(spec, value, Source::Program)?,
                None => return Err(unknown("option ", name)),
            }
        }
        Ok(options)
    }

    /// These options, overridden by what the environment says now.
    pub(crate) fn with_environment(mut self) -> Result<Options, Error> {
        environment::each_variable(|name, value| {
            let spec = SPECS
                .iter()
                .find(|spec| name.eq_ignore_ascii_case(spec.name()));
            match spec {
                Some(spec) if !name.bytes().any(|b| b.is_ascii_lowercase()) => {
                    self.set(spec, value, Source::Environment)
                }
                None if !misspelt(name) => Ok(()),
                _ => Err(unknown("environment variable TURNSTILE_", name)),
            }
        })?;
        Ok(self)
    }

    /// Takes in one parameter of a URI. One that is not ours is passed over.
    pub(crate) fn set_from_uri(&mut self, key: &str, value: &str) -> Result<(), Error> {
        match URI_SPECS
            .iter()
            .find(|spec| spec.name.to_bytes() == key.as_bytes())
        {
            Some(spec) => self.set(spec, value, Source::Uri),
            None if !misspelt(key) => Ok(()),
            None => Err(unknown("URI parameter ", key)),
        }
    }

    fn set(&mut self, spec: &Spec, value: &str, source: Source) -> Result<(), Error> {
        if (spec.set)(self, value) {
            return Ok(());
        }
        let (spelling, value, allowed) = (Spelling(spec, source), Beginning(value), spec.allowed);
        let text = format_args!("{spelling} has the value \"{value}\"; use {allowed}");
        Err(Error::new(SQLITE_ERROR, text))
    }
}

/// The names that a URI can set, for an SQLite that cannot list a URI's keys.
pub(crate) fn uri_names() -> impl Iterator<Item = &'static CStr> {
    URI_SPECS.iter().map(|spec| spec.name)
}

/// Whether `name` is plainly meant to be one of our options: it differs in case or in `-` for `_`,
/// leaves off the unit, or is one or two slips of the pen away from a name long enough for that to
/// mean something (`quantum_ms`, `retryms`; but not `case` for `base`).
fn misspelt(name: &str) -> bool {
    const LONGEST: usize = 16;
    // Lower case, with `_`. On the stack: nearly every URI comes by here with its `vfs=`.
    let mut normal = [0; LONGEST];
    let Some(normal) = normal.get_mut(..name.len()) else {
        return false;
    };
    for (to, from) in normal.iter_mut().zip(name.bytes()) {
        *to = if from == b'-' {
            b'_'
        } else {
            from.to_ascii_lowercase()
        };
    }
    SPECS.iter().any(|spec| {
        let known = spec.name.to_bytes();
        let units: [&[u8]; 3] = [b"_us", b"_ms", b"_kb"];
        let stem = units.iter().find_map(|unit| known.strip_suffix(*unit));
        *normal == *known && name.as_bytes() != known
            || stem == Some(&*normal)
            || stem.is_some() && slips(normal, known) <= 2
    })
}

/// The edit distance, or 3 where it is more: by trying what the shorter edits allow.
fn slips(a: &[u8], b: &[u8]) -> usize {
    fn within(a: &[u8], b: &[u8], slips: usize) -> bool {
        match (a, b) {
            ([x, a @ ..], [y, b @ ..]) if x == y => within(a, b, slips),
            ([], []) => true,
            _ if slips == 0 => false,
            ([], [_, b @ ..]) => within(a, b, slips - 1),
            ([_, a @ ..], []) => within(a, b, slips - 1),
            ([x, y, c @ ..], [z, w, d @ ..]) if x == w && y == z && within(c, d, slips - 1) => true,
            ([_, c @ ..], [_, d @ ..]) => {
                within(c, d, slips - 1) || within(c, b, slips - 1) || within(a, d, slips - 1)
            }
        }
    }
    let fewest = a.len().abs_diff(b.len());
    (fewest..3).find(|&n| within(a, b, n)).unwrap_or(3)
}

fn unknown(kind: &str, name: &str) -> Error {
    struct Names;
    impl fmt::Display for Names {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut names = SPECS.iter().map(Spec::name);
            f.write_str(names.next().unwrap_or_default())?;
            names.try_for_each(|name| write!(f, ", {name}"))
        }
    }
    let name = Beginning(name);
    let text = format_args!("{kind}{name} is unknown; the options are {Names}");
    Error::new(SQLITE_ERROR, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_value_that_changes_it() {
        let all = "default=on&fs=network&fair=off&quantum_us=0&backoff_us=1&backoff_cap_us=2\
                   &retry_ms=3&resync_kb=4&base=unix-excl";
        let options = Options::parse(all).unwrap();
        let expected = Options {
            make_default: true,
            fs: Fs::Network,
            fair: false,
            quantum_us: 0,
            backoff_us: Some(1),
            backoff_cap_us: Some(2),
            retry_ms: Some(3),
            resync_kb: Some(4),
            base: VfsName::new("unix-excl").unwrap(),
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn a_bad_value_names_option_value_and_what_is_allowed() {
        let bad = [
            (
                "fs=nfs",
                "option fs has the value \"nfs\"; use auto, local or network",
            ),
            (
                "fair=maybe",
                "option fair has the value \"maybe\"; use on or off",
            ),
            (
                "quantum_us=+5",
                "option quantum_us has the value \"+5\"; use 0 to 1000000",
            ),
            (
                "quantum_us=",
                "option quantum_us has the value \"\"; use 0 to 1000000",
            ),
            (
                "backoff_us=0",
                "option backoff_us has the value \"0\"; use 1 to 1000000",
            ),
            (
                "retry_ms=3600001",
                "option retry_ms has the value \"3600001\"; use 0 to 3600000",
            ),
            (
                "resync_kb=99999999999",
                "option resync_kb has the value \"99999999999\"; use 0 to 1048576",
            ),
        ];
        for (pairs, text) in bad {
            assert_eq!(Options::parse(pairs).unwrap_err().to_string(), text);
        }
        let long = Options::parse(&format!("fs={}", "é".repeat(500))).unwrap_err();
        assert!(long.to_string().len() < 200, "{long}");
    }

    #[test]
    fn an_unknown_name_is_an_error_only_where_it_is_meant_for_us() {
        assert!(Options::parse("colour=red").is_err());
        for ours in [
            "quantum",
            "quantum_ms",
            "FS",
            "retry-ms",
            "Backoff",
            "resynckb",
            "Fair",
        ] {
            let error = Options::default().set_from_uri(ours, "1").unwrap_err();
            assert!(
                error.to_string().contains(&format!("{ours} is unknown")),
                "{error}"
            );
        }
        for theirs in [
            "vfs",
            "mode",
            "cache",
            "psow",
            "nolock",
            "immutable",
            "modeof",
            "default",
            "case",
            "date",
            "pair",
            "f",
            "timeout",
            "check_same_thread",
            "key",
        ] {
            assert_eq!(
                Options::default().set_from_uri(theirs, "1"),
                Ok(()),
                "{theirs}"
            );
        }
    }
}
