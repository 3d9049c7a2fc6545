//! A table all of whose rows change together: whoever sees two versions has seen half a transaction.
#![allow(dead_code)]

use crate::worker::{Failure, Worker};
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

/// Three rows to a page, so that the table has some hundred pages.
pub const ROWS: usize = 300;

/// Makes the table, all of version 0, and an empty table of markers.
pub fn create() -> String {
    format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER, pad TEXT);
         CREATE TABLE marker(name TEXT);
         WITH RECURSIVE i(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM i WHERE n<{ROWS})
         INSERT INTO t SELECT n, 0, hex(zeroblob(600)) FROM i"
    )
}

/// One transaction that makes all rows of this version and leaves a marker.
pub fn rewrite(version: i64, marker: &str) -> String {
    format!("BEGIN IMMEDIATE; {}; COMMIT", change(version, marker))
}

/// The same, without its bounds.
pub fn change(version: i64, marker: &str) -> String {
    format!("UPDATE t SET v={version}, pad=upper(pad); INSERT INTO marker VALUES('{marker}')")
}

/// Which versions there are, and how many rows: `0|300`.
pub const VERSIONS: &str = "SELECT group_concat(DISTINCT v), count(*) FROM t";

/// How [`VERSIONS`] answers when all rows are of one version.
pub fn all(version: i64) -> String {
    format!("{version}|{ROWS}")
}

/// What is in a database, or what SQLite says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub integrity: String,
    pub versions: String,
    pub markers: Vec<String>,
}

impl State {
    /// Reads it with stock SQLite, which rolls back what it finds half done. Nobody may use it meanwhile, and
    /// it is not on a mount of this process.
    pub fn of(db: &Path) -> State {
        let read = || -> rusqlite::Result<State> {
            let db = Connection::open(db)?;
            db.busy_timeout(Duration::from_secs(10))?;
            let text = |sql| db.query_row(sql, [], |row| row.get::<_, Option<String>>(0));
            let join = "SELECT group_concat(name) FROM (SELECT name FROM marker ORDER BY name)";
            let versions = "SELECT group_concat(DISTINCT v)||'|'||count(*) FROM t";
            Ok(State {
                versions: text(versions)?.unwrap_or_default(),
                markers: text(join)?
                    .map(|names| names.split(',').map(str::to_owned).collect())
                    .unwrap_or_default(),
                integrity: text("PRAGMA integrity_check(1)")?.unwrap_or_default(),
            })
        };
        read().unwrap_or_else(|error| State {
            integrity: error.to_string(),
            versions: String::new(),
            markers: Vec::new(),
        })
    }

    /// The same, as a worker sees it through its own VFS.
    pub fn seen_by(worker: &mut Worker) -> State {
        let mut read = || -> Result<State, Failure> {
            let markers = worker.sql("SELECT name FROM marker ORDER BY name")?;
            Ok(State {
                versions: worker.sql(VERSIONS)?,
                markers: markers.lines().map(str::to_owned).collect(),
                integrity: worker.sql("PRAGMA integrity_check(1)")?,
            })
        };
        read().unwrap_or_else(|error| State {
            integrity: error.to_string(),
            versions: String::new(),
            markers: Vec::new(),
        })
    }

    pub fn has(&self, marker: &str) -> bool {
        self.markers.iter().any(|name| name == marker)
    }

    /// Nothing is broken, and no transaction is there by half.
    pub fn is_whole(&self) -> bool {
        let one = self.versions.split_once('|').map(|(versions, _)| versions);
        self.integrity == "ok" && one.is_some_and(|versions| !versions.contains(','))
    }
}
