//! The workload: what one process does to a new database, and what the database may contain after it.

use rusqlite::Connection;
use std::hash::{DefaultHasher, Hash, Hasher};

/// One transaction, begun and ended by itself.
pub struct Transaction {
    pub sql: Vec<String>,
    /// False: it ends with a rollback.
    pub commits: bool,
}

/// How each connection is set up: with a very small cache.
pub const SETTINGS: &str = "
    PRAGMA page_size=1024; PRAGMA cache_size=6; PRAGMA cache_spill=6; PRAGMA temp_store=MEMORY";

const COPY: &str = "INSERT INTO b SELECT * FROM a WHERE id > (SELECT ifnull(max(id), 0) FROM b)";

/// The transactions, in their order. The seed decides how long the rows are.
///
/// After each commit both tables have the same rows: half a transaction can be seen.
pub fn transactions(seed: u64) -> Vec<Transaction> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rows = |from: u32, to: u32, lengths: std::ops::Range<u32>| {
        let row = |id| {
            let length = random.u32(lengths.clone());
            format!("({id}, 0, printf('%.*c', {length}, 'x'))")
        };
        let rows: Vec<String> = (from..to).map(row).collect();
        format!("INSERT INTO a VALUES {}", rows.join(", "))
    };
    let transaction = |sql: &[&str], commits| Transaction {
        sql: sql.iter().map(|sql| sql.to_string()).collect(),
        commits,
    };
    let create = |table| format!("CREATE TABLE {table}(id INTEGER PRIMARY KEY, v, pad)");
    vec![
        transaction(
            &[
                "BEGIN",
                &create("a"),
                &create("b"),
                &rows(1, 4, 20..200),
                COPY,
            ],
            true,
        ),
        // Longer than the cache: pages are written before the commit.
        transaction(&["BEGIN IMMEDIATE", &rows(4, 7, 700..900), COPY], true),
        // The same, and the database becomes as short as before.
        transaction(&["BEGIN EXCLUSIVE", &rows(7, 10, 700..900), COPY], false),
        // A reader that becomes a writer.
        transaction(
            &[
                "BEGIN",
                "SELECT count(*) FROM a",
                "UPDATE a SET v = v + 1 WHERE id < 4",
                "DELETE FROM a WHERE id > 5",
                "UPDATE b SET v = v + 1 WHERE id < 4",
                "DELETE FROM b WHERE id > 5",
            ],
            true,
        ),
    ]
}

/// What the database contains, in one number; 0 before the first commit.
pub fn digest(db: &Connection) -> rusqlite::Result<u64> {
    let tables: u32 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    if tables == 0 {
        return Ok(0);
    }
    let mut rows = db.prepare(
        "SELECT 'a', id, v, pad FROM a UNION ALL SELECT 'b', id, v, pad FROM b ORDER BY 1, 2",
    )?;
    let mut hasher = DefaultHasher::new();
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let row: (String, i64, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        row.hash(&mut hasher);
    }
    Ok(hasher.finish() | 1)
}

/// What the database contains after so many commits: `states[0]` is nothing.
pub fn states(seed: u64) -> Vec<u64> {
    let db = Connection::open_in_memory().expect("a database in memory");
    let mut states = vec![0];
    for transaction in transactions(seed) {
        for sql in &transaction.sql {
            run(&db, sql).expect("the workload is right");
        }
        let end = if transaction.commits {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        run(&db, end).expect("the workload is right");
        let state = digest(&db).expect("the workload is right");
        if transaction.commits {
            assert!(!states.contains(&state), "a commit that cannot be seen");
            states.push(state);
        }
    }
    states
}

/// Any statement, to its end.
pub fn run(db: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}
