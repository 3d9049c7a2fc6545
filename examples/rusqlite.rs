//! The second door: a Rust program that links SQLite through rusqlite.
//!
//! `cargo run --example rusqlite -- state.db`

use rusqlite::{Connection, OpenFlags};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: rusqlite DATABASE")?;

    turnstile::register(turnstile::Options::default())?;

    // By the VFS's name ...
    let db = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), "turnstile")?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS event(id INTEGER PRIMARY KEY, what TEXT)")?;
    db.execute("INSERT INTO event(what) VALUES('by name')", [])?;

    // ... or in the URI, with options.
    let db = Connection::open(format!("file:{path}?vfs=turnstile&fs=local"))?;
    db.execute("INSERT INTO event(what) VALUES('by URI')", [])?;

    let events: i64 = db.query_row("SELECT count(*) FROM event", [], |row| row.get(0))?;
    println!("{events} events");
    Ok(())
}
