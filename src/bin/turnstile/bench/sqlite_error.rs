//! SQLite's names for its extended result codes, as its manual and its users spell them.

use rusqlite::ffi;

/// `SQLITE_BUSY_SNAPSHOT` for 517; a code that is not in the table is named by its number.
pub fn name(code: i32) -> String {
    match NAMES.iter().find(|&&(known, _)| known == code) {
        Some((_, name)) => format!("SQLITE_{name}"),
        None => match NAMES.iter().find(|&&(known, _)| known == code & 0xff) {
            Some((_, primary)) => format!("SQLITE_{primary} ({code})"),
            None => format!("error {code}"),
        },
    }
}

/// Whether this is what contention is expected to look like, rather than something that went wrong.
pub fn is_contention(code: i32) -> bool {
    matches!(code & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED)
}

const NAMES: &[(i32, &str)] = &[
    (ffi::SQLITE_ERROR, "ERROR"),
    (ffi::SQLITE_INTERNAL, "INTERNAL"),
    (ffi::SQLITE_PERM, "PERM"),
    (ffi::SQLITE_ABORT, "ABORT"),
    (ffi::SQLITE_BUSY, "BUSY"),
    (ffi::SQLITE_BUSY_RECOVERY, "BUSY_RECOVERY"),
    (ffi::SQLITE_BUSY_SNAPSHOT, "BUSY_SNAPSHOT"),
    (ffi::SQLITE_BUSY_TIMEOUT, "BUSY_TIMEOUT"),
    (ffi::SQLITE_LOCKED, "LOCKED"),
    (ffi::SQLITE_NOMEM, "NOMEM"),
    (ffi::SQLITE_READONLY, "READONLY"),
    (ffi::SQLITE_READONLY_RECOVERY, "READONLY_RECOVERY"),
    (ffi::SQLITE_READONLY_CANTLOCK, "READONLY_CANTLOCK"),
    (ffi::SQLITE_READONLY_ROLLBACK, "READONLY_ROLLBACK"),
    (ffi::SQLITE_READONLY_DBMOVED, "READONLY_DBMOVED"),
    (ffi::SQLITE_READONLY_CANTINIT, "READONLY_CANTINIT"),
    (ffi::SQLITE_READONLY_DIRECTORY, "READONLY_DIRECTORY"),
    (ffi::SQLITE_INTERRUPT, "INTERRUPT"),
    (ffi::SQLITE_IOERR, "IOERR"),
    (ffi::SQLITE_IOERR_READ, "IOERR_READ"),
    (ffi::SQLITE_IOERR_SHORT_READ, "IOERR_SHORT_READ"),
    (ffi::SQLITE_IOERR_WRITE, "IOERR_WRITE"),
    (ffi::SQLITE_IOERR_FSYNC, "IOERR_FSYNC"),
    (ffi::SQLITE_IOERR_DIR_FSYNC, "IOERR_DIR_FSYNC"),
    (ffi::SQLITE_IOERR_TRUNCATE, "IOERR_TRUNCATE"),
    (ffi::SQLITE_IOERR_FSTAT, "IOERR_FSTAT"),
    (ffi::SQLITE_IOERR_UNLOCK, "IOERR_UNLOCK"),
    (ffi::SQLITE_IOERR_RDLOCK, "IOERR_RDLOCK"),
    (ffi::SQLITE_IOERR_DELETE, "IOERR_DELETE"),
    (ffi::SQLITE_IOERR_DELETE_NOENT, "IOERR_DELETE_NOENT"),
    (ffi::SQLITE_IOERR_NOMEM, "IOERR_NOMEM"),
    (ffi::SQLITE_IOERR_ACCESS, "IOERR_ACCESS"),
    (
        ffi::SQLITE_IOERR_CHECKRESERVEDLOCK,
        "IOERR_CHECKRESERVEDLOCK",
    ),
    (ffi::SQLITE_IOERR_LOCK, "IOERR_LOCK"),
    (ffi::SQLITE_IOERR_CLOSE, "IOERR_CLOSE"),
    (ffi::SQLITE_IOERR_SHMOPEN, "IOERR_SHMOPEN"),
    (ffi::SQLITE_IOERR_SHMSIZE, "IOERR_SHMSIZE"),
    (ffi::SQLITE_IOERR_SHMLOCK, "IOERR_SHMLOCK"),
    (ffi::SQLITE_IOERR_SHMMAP, "IOERR_SHMMAP"),
    (ffi::SQLITE_IOERR_MMAP, "IOERR_MMAP"),
    (ffi::SQLITE_IOERR_CORRUPTFS, "IOERR_CORRUPTFS"),
    (ffi::SQLITE_IOERR_IN_PAGE, "IOERR_IN_PAGE"),
    (ffi::SQLITE_CORRUPT, "CORRUPT"),
    (ffi::SQLITE_CORRUPT_INDEX, "CORRUPT_INDEX"),
    (ffi::SQLITE_FULL, "FULL"),
    (ffi::SQLITE_CANTOPEN, "CANTOPEN"),
    (ffi::SQLITE_CANTOPEN_ISDIR, "CANTOPEN_ISDIR"),
    (ffi::SQLITE_PROTOCOL, "PROTOCOL"),
    (ffi::SQLITE_SCHEMA, "SCHEMA"),
    (ffi::SQLITE_CONSTRAINT, "CONSTRAINT"),
    (ffi::SQLITE_MISUSE, "MISUSE"),
    (ffi::SQLITE_NOLFS, "NOLFS"),
    (ffi::SQLITE_AUTH, "AUTH"),
    (ffi::SQLITE_NOTADB, "NOTADB"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_known_and_unknown() {
        assert_eq!(name(5), "SQLITE_BUSY");
        assert_eq!(name(517), "SQLITE_BUSY_SNAPSHOT");
        assert_eq!(name(10 | (200 << 8)), "SQLITE_IOERR (51210)");
        assert_eq!(name(99), "error 99");
        assert!(is_contention(517) && !is_contention(10));
    }
}
