//! What a connection that was refused leaves to the next one of its process: some open the database anew for each
//! try, and SQLite tells us nothing that links one connection to the next.

use parking_lot::Mutex;

/// A try at the write lock that was refused and given up with its connection.
#[derive(Clone, Copy)]
struct Claim {
    /// Which database, as a hash of its path.
    database: u64,
    /// See `Waiter::due`.
    due: u32,
}

/// The last few; more than that many databases or threads get their turns by luck.
static CLAIMS: Mutex<[Option<Claim>; 16]> = Mutex::new([None; 16]);

/// A child that is forked while another thread holds the lock does without.
pub fn leave(database: u64, due: u32) {
    if let Some(mut claims) = CLAIMS.try_lock() {
        claims.rotate_right(1);
        claims[0] = Some(Claim { database, due });
    }
}

/// Takes over what was left for `database` first.
pub fn take(database: u64) -> Option<u32> {
    let mut claims = CLAIMS.try_lock()?;
    let mut claims = claims.iter_mut().rev();
    let found = claims.find(|claim| claim.is_some_and(|claim| claim.database == database))?;
    found.take().map(|claim| claim.due)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_claim_is_taken_once() {
        let (here, elsewhere) = (u64::MAX, u64::MAX - 1);
        leave(here, 1);
        leave(elsewhere, 2);
        leave(here, 3);
        assert_eq!(
            [take(here), take(here), take(here)],
            [Some(1), Some(3), None]
        );
        assert_eq!(take(elsewhere), Some(2));
        for due in 0..20 {
            leave(here, due);
        }
        assert_eq!(take(here), Some(4));
        while take(here).is_some() {}
    }
}
