//! The process's side: commands on standard input, answers on standard output.

use super::{connect, insert, now, open, sleep_ms, write};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// Transactions that follow each other as closely as can be.
fn burst(db: &Connection, who: u32, count: u32) -> rusqlite::Result<()> {
    let mut insert = db.prepare(&format!("INSERT INTO t VALUES({who}, 0, 0)"))?;
    (0..count).try_for_each(|_| insert.execute([]).map(drop))
}

/// The process's side. Returns at once in the test's own process.
pub fn serve() {
    let variable = |name: &str| std::env::var(format!("TURNSTILE_WRITER_{name}")).ok();
    let Some(who) = variable("WHO").map(|who| who.parse().unwrap()) else {
        return;
    };
    if let Some(uid) = variable("UID") {
        // SAFETY: plain system calls.
        let dropped = unsafe { libc::setuid(uid.parse().unwrap()) };
        assert_eq!(dropped, 0);
    }
    turnstile::register(turnstile::Options::default()).unwrap();
    turnstile::inject::arm_kill(variable("KILL").as_deref());
    let path = PathBuf::from(variable("DB").unwrap());
    let timeout = variable("TIMEOUT").unwrap().parse().unwrap();
    let mut db = Some(connect(&path, timeout));
    let mut n = 0;
    say("ready");
    for command in std::io::stdin().lines() {
        let command = command.unwrap();
        let (verb, rest) = command.split_once(' ').unwrap_or((&command, ""));
        let kept = db.as_ref();
        let result = match verb {
            "hold" => kept
                .unwrap()
                .execute_batch(&format!("BEGIN {rest}"))
                .and_then(|()| insert(kept.unwrap(), who, n)),
            "commit" => kept.unwrap().execute_batch("COMMIT"),
            "write" => write(kept.unwrap(), who, n),
            // On a connection of its own.
            "once" => write(&connect(&path, timeout), who, n),
            // The same, but not at once.
            "later" => {
                let db = open(&path, timeout);
                sleep_ms(10);
                write(&db, who, n)
            }
            // On a new one, which stays open.
            "reopen" => {
                let db = db.insert(open(&path, timeout));
                write(db, who, n)
            }
            "twice" => {
                let db = open(&path, timeout);
                write(&db, who, n).or_else(|_| write(&db, who, n))
            }
            "look" => connect(&path, timeout)
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .map(|_: u32| ()),
            "run" => kept.unwrap().execute_batch(rest),
            "burst" => burst(kept.unwrap(), who, rest.parse().unwrap()),
            // The same, on a connection of its own for each.
            "anew" => (0..rest.parse().unwrap())
                .try_for_each(|_| insert(&connect(&path, timeout), who, n)),
            "thread" => {
                start_thread(rest.parse().unwrap(), &path, timeout, who);
                Ok(())
            }
            "slay" => {
                slay(rest.parse().unwrap());
                Ok(())
            }
            "fork" => {
                start_fork(&path, timeout, who);
                Ok(())
            }
            "reap" => {
                let mut status = 0;
                // SAFETY: our children; the status is a number.
                let pid = unsafe { libc::wait(&mut status) };
                assert!(pid > 0 && status == 0, "a child ended with {status:#x}");
                Ok(())
            }
            "close" => {
                db = None;
                Ok(())
            }
            _ => panic!("{command}"),
        };
        match result {
            Ok(()) if ["commit", "write", "once", "later", "reopen"].contains(&verb) => {
                n += 1;
                say("done");
            }
            Ok(()) if ["burst", "anew"].contains(&verb) => say(&format!("stored {rest}")),
            Ok(()) => say("fine"),
            Err(error) => say(&format!("error {error}").replace('\n', " ")),
        }
    }
    drop(db);
    std::process::exit(0);
}

static THREADS: [AtomicI32; 8] = [const { AtomicI32::new(0) }; 8];

/// A thread that writes once, on a connection that stays open.
fn start_thread(at: usize, db: &Path, timeout: u64, who: u32) {
    let db = db.to_owned();
    std::thread::spawn(move || {
        // SAFETY: plain system call.
        THREADS[at].store(unsafe { libc::gettid() }, SeqCst);
        let db = Box::leak(Box::new(connect(&db, timeout)));
        match write(db, who, 0) {
            Ok(()) => say("done"),
            Err(error) => say(&format!("error {error}")),
        }
    });
}

/// Ends a thread where it is, and the thread alone: nothing is unwound, nothing is closed.
fn slay(at: usize) {
    extern "C" fn die(_: i32) {
        // SAFETY: plain system call that does not come back.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    // SAFETY: a handler that touches nothing, for a thread of ours.
    unsafe {
        libc::signal(libc::SIGUSR1, die as *const () as usize);
        let tid = THREADS[at].load(SeqCst);
        assert_eq!(
            libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR1),
            0
        );
    }
}

/// A child of this process, whatever threads it has, that writes on a connection of its own.
fn start_fork(db: &Path, timeout: u64, who: u32) {
    // SAFETY: none of our threads holds a lock that the child needs: they wait.
    if unsafe { libc::fork() } == 0 {
        let done = write(&connect(db, timeout), who, 0).is_ok();
        say(if done { "done" } else { "error" });
        // SAFETY: ends the child, without its parent's destructors.
        unsafe { libc::_exit(i32::from(!done)) };
    }
}

/// One line to the parent, in one write.
pub fn say(what: &str) {
    let line = format!("\n>{} {what}\n", now());
    // SAFETY: a buffer and its length.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}
