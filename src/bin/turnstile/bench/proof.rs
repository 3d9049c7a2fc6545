//! The proof that goes with every number: what was acknowledged is there.
//!
//! A commit that SQLite reported as done must be a row, exactly once. A row whose commit was
//! reported as *failed* is not a loss; it is shown, because the application was told otherwise.

use std::collections::HashSet;

use rusqlite::{Connection, Result};
use serde::Serialize;

/// What one writer says it did.
pub enum Claim {
    /// It came through: attempts `0..attempts`, of which these failed.
    Exact { attempts: u64, failed: HashSet<u64> },
    /// It was killed or crashed: at least so many were acknowledged.
    AtLeast(u64),
}

/// What the database says about it.
#[derive(Clone, Serialize)]
pub struct Proof {
    pub acknowledged: u64,
    pub rows: u64,
    /// Acknowledged, and not there.
    pub lost: u64,
    /// There, and reported as failed (or under way when the writer was killed).
    pub unacknowledged_but_stored: u64,
    /// There twice, or never written by anybody.
    pub unexplained: u64,
    /// `ok`, or everything that `PRAGMA integrity_check` found.
    pub integrity_check: Vec<String>,
}

impl Proof {
    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.lost == 0 && self.unexplained == 0 && self.integrity_check == ["ok"]
    }
}

/// Compares every row with `claims`, which are in the order of the writers.
pub fn check(connection: &Connection, claims: &[Claim]) -> Result<Proof> {
    let mut stored: Vec<HashSet<u64>> = claims.iter().map(|_| HashSet::new()).collect();
    let (mut rows, mut unexplained) = (0, 0);
    let mut select = connection.prepare("SELECT writer, attempt FROM writes")?;
    let mut cursor = select.query(())?;
    while let Some(row) = cursor.next()? {
        rows += 1;
        // Rows of a damaged database may hold anything.
        let (Ok(writer), Ok(attempt)) = (row.get::<_, u32>(0), row.get::<_, i64>(1)) else {
            unexplained += 1;
            continue;
        };
        let (writer, attempt) = (writer as usize, attempt as u64);
        let possible = match claims.get(writer) {
            Some(Claim::Exact { attempts, .. }) => attempt < *attempts,
            Some(Claim::AtLeast(_)) => true,
            None => false,
        };
        if !possible || !stored[writer].insert(attempt) {
            unexplained += 1;
        }
    }

    let (mut acknowledged, mut lost, mut extra) = (0, 0, 0);
    for (claim, stored) in claims.iter().zip(&stored) {
        let there = stored.len() as u64;
        let (sure, found) = match claim {
            Claim::Exact { attempts, failed } => {
                let found = stored.difference(failed).count() as u64;
                (attempts - failed.len() as u64, found)
            }
            Claim::AtLeast(sure) => (*sure, there.min(*sure)),
        };
        acknowledged += sure;
        lost += sure - found;
        extra += there - found;
    }

    let integrity_check = connection
        .prepare("PRAGMA integrity_check")?
        .query_map((), |row| row.get(0))?
        .collect::<Result<_>>()?;
    Ok(Proof {
        acknowledged,
        rows,
        lost,
        unacknowledged_but_stored: extra,
        unexplained,
        integrity_check,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::database;

    /// Writer 0 wrote 0 1 2 3, of which 2 failed; writer 1 was killed after at least 2.
    fn written() -> Result<(Connection, Vec<Claim>)> {
        let connection = database::in_memory("unix")?;
        for (writer, attempt) in [(0, 0), (0, 1), (0, 3), (1, 0), (1, 1)] {
            database::insert(&connection, writer, attempt)?;
        }
        let exact = Claim::Exact {
            attempts: 4,
            failed: HashSet::from([2]),
        };
        Ok((connection, vec![exact, Claim::AtLeast(2)]))
    }

    #[test]
    fn a_whole_database_holds() -> Result<()> {
        let (connection, claims) = written()?;
        let proof = check(&connection, &claims)?;
        assert!(proof.holds());
        assert_eq!((proof.acknowledged, proof.rows, proof.lost), (5, 5, 0));
        assert_eq!(proof.unacknowledged_but_stored, 0);
        Ok(())
    }

    #[test]
    fn a_deleted_row_is_a_lost_commit() -> Result<()> {
        for lost in ["writer = 0 AND attempt = 1", "writer = 1 AND attempt = 0"] {
            let (connection, claims) = written()?;
            connection.execute(&format!("DELETE FROM writes WHERE {lost}"), ())?;
            let proof = check(&connection, &claims)?;
            assert_eq!(
                (proof.acknowledged, proof.rows, proof.lost),
                (5, 4, 1),
                "{lost}"
            );
            assert!(!proof.holds());
        }
        Ok(())
    }

    /// The count alone would not see it: one lost, one made up.
    #[test]
    fn a_forged_row_does_not_make_up_for_a_lost_one() -> Result<()> {
        for forged in ["(0, 99)", "(7, 0)", "(0, 0)", "('x', 0)"] {
            let (connection, claims) = written()?;
            connection.execute("DELETE FROM writes WHERE writer = 0 AND attempt = 1", ())?;
            connection.execute(&format!("INSERT INTO writes VALUES {forged}"), ())?;
            let proof = check(&connection, &claims)?;
            assert_eq!(
                (proof.rows, proof.lost, proof.unexplained),
                (5, 1, 1),
                "{forged}"
            );
            assert!(!proof.holds());
        }
        Ok(())
    }

    #[test]
    fn a_failed_commit_that_is_there_is_shown_and_no_loss() -> Result<()> {
        let (connection, claims) = written()?;
        database::insert(&connection, 0, 2)?;
        let proof = check(&connection, &claims)?;
        assert_eq!(
            (proof.rows, proof.lost, proof.unacknowledged_but_stored),
            (6, 0, 1)
        );
        assert!(proof.holds());
        Ok(())
    }

    #[test]
    fn a_failed_integrity_check_is_a_failed_proof() {
        let proof = Proof {
            acknowledged: 1,
            rows: 1,
            lost: 0,
            unacknowledged_but_stored: 0,
            unexplained: 0,
            integrity_check: vec!["row 1 missing from index i".to_owned()],
        };
        assert!(!proof.holds());
    }
}
