//! The SQLite that is linked into this program.

use super::Sqlite;

unsafe extern "C" {
    // c/linked.c. In C, so that no Rust object file names a sqlite3_* symbol: the extension is
    // linked from those object files too.
    safe fn turnstile_linked_sqlite() -> &'static Sqlite;
}

/// The functions of the SQLite that is linked into this program.
pub fn sqlite() -> &'static Sqlite {
    turnstile_linked_sqlite()
}
