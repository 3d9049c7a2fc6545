//! The process's side: commands on standard input, answers on standard output.

#![allow(dead_code)]

use super::Failure;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, OpenFlags, ffi};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};
use std::ptr;
use std::sync::Mutex;
use std::time::Duration;

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Connections by name; commands go to the one that was opened or named last.
#[derive(Default)]
struct Process {
    open: HashMap<String, Connection>,
    current: String,
    cursor: Option<*mut ffi::sqlite3_stmt>,
}

/// Returns at once in the test's own process.
///
/// | environment | |
/// |---|---|
/// | `TURNSTILE_WORKER_UID` | the user that it becomes |
/// | `TURNSTILE_WORKER_MMAP` | `SQLITE_CONFIG_MMAP_SIZE`, as if SQLite were compiled so |
pub fn serve(prepare: impl FnOnce()) {
    let variable = |name: &str| std::env::var(name).ok();
    if variable("TURNSTILE_WORKER").is_none() {
        return;
    }
    if let Some(uid) = variable("TURNSTILE_WORKER_UID") {
        let uid = uid.parse().expect("a user's number");
        // SAFETY: plain system call.
        assert_eq!(unsafe { libc::setuid(uid) }, 0);
    }
    if let Some(size) = variable("TURNSTILE_WORKER_MMAP") {
        let size: i64 = size.parse().expect("a size");
        // SAFETY: nothing has used SQLite yet.
        let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MMAP_SIZE, size, size) };
        assert_eq!(code, ffi::SQLITE_OK);
    }
    fn keep(code: c_int, line: &str) {
        LOG.lock().unwrap().push(format!("({code}) {line}"));
    }
    // SAFETY: nothing has used SQLite yet.
    unsafe { rusqlite::trace::config_log(Some(keep)).unwrap() };
    turnstile::register(turnstile::Options::default()).unwrap();
    prepare();
    let mut process = Process::default();
    for command in std::io::stdin().lines() {
        let command = command.expect("a command");
        let (verb, rest) = command.split_once(' ').unwrap_or((&command, ""));
        match process.run(verb, rest) {
            Ok(text) => say(&format!("ok {text}")),
            Err(Failure { code, text }) => say(&format!("error {code} {text}")),
        }
    }
    // What is still open is closed.
    drop(process);
    std::process::exit(0);
}

impl Process {
    fn run(&mut self, verb: &str, rest: &str) -> Result<String, Failure> {
        match verb {
            "open" => self.open(rest),
            "use" => {
                self.current = rest.to_owned();
                Ok(String::new())
            }
            "close" => match self.open.remove(&self.current).map(Connection::close) {
                Some(Err((_, error))) => Err(error.into()),
                _ => Ok(String::new()),
            },
            "sql" => rows(self.db()?, rest).map_err(Failure::from),
            "cursor" => self.cursor(rest),
            "fetch" => self.fetch(rest.parse().expect("a count")),
            "finish" => self.finish(),
            "map" => self.map(rest.parse().expect("a size")),
            "maps" => Ok(maps(std::process::id(), rest)),
            "log" => Ok(std::mem::take(&mut *LOG.lock().unwrap()).join("\n")),
            _ => panic!("{verb} {rest}"),
        }
    }

    fn db(&self) -> Result<&Connection, Failure> {
        self.open.get(&self.current).ok_or_else(|| Failure {
            code: -1,
            text: "nothing is open".to_owned(),
        })
    }

    /// In place of the one that has this name.
    fn open(&mut self, uri: &str) -> Result<String, Failure> {
        self.open.remove(&self.current);
        let db = Connection::open_with_flags(uri, OpenFlags::default())?;
        db.busy_timeout(Duration::from_secs(10))?;
        self.open.insert(self.current.clone(), db);
        Ok(String::new())
    }

    /// Prepares a query whose rows are fetched later.
    fn cursor(&mut self, sql: &str) -> Result<String, Failure> {
        let sql = CString::new(sql).expect("no NUL");
        let mut statement = ptr::null_mut();
        let db = self.db()?;
        // SAFETY: the statement is finalized before its connection is closed.
        let code = unsafe {
            ffi::sqlite3_prepare_v2(
                db.handle(),
                sql.as_ptr(),
                -1,
                &mut statement,
                ptr::null_mut(),
            )
        };
        self.check(code)?;
        self.cursor = Some(statement);
        Ok(String::new())
    }

    /// So many rows of it, or those that are left: the first column.
    fn fetch(&mut self, count: usize) -> Result<String, Failure> {
        let statement = self.cursor.expect("a cursor");
        let mut rows = Vec::new();
        while rows.len() < count {
            // SAFETY: the statement is alive, and the text is copied before the next step.
            match unsafe { ffi::sqlite3_step(statement) } {
                ffi::SQLITE_ROW => rows.push(unsafe {
                    let text = ffi::sqlite3_column_text(statement, 0);
                    CStr::from_ptr(text.cast()).to_string_lossy().into_owned()
                }),
                ffi::SQLITE_DONE => break,
                code => self.check(code)?,
            }
        }
        Ok(rows.join("\n"))
    }

    fn finish(&mut self) -> Result<String, Failure> {
        let statement = self.cursor.take().expect("a cursor");
        // SAFETY: it is not used again.
        let code = unsafe { ffi::sqlite3_finalize(statement) };
        self.check(code).map(|()| String::new())
    }

    fn check(&self, code: c_int) -> Result<(), Failure> {
        if code == ffi::SQLITE_OK {
            return Ok(());
        }
        let db = self.db()?;
        // SAFETY: the connection is open; the text is copied at once.
        let (code, text) = unsafe {
            let db = db.handle();
            let text = CStr::from_ptr(ffi::sqlite3_errmsg(db));
            (ffi::sqlite3_extended_errcode(db), text.to_string_lossy())
        };
        let text = text.into_owned();
        Err(Failure { code, text })
    }

    /// `SQLITE_FCNTL_MMAP_SIZE`: asks for so much, and answers what is in force afterwards.
    fn map(&self, size: i64) -> Result<String, Failure> {
        let db = self.db()?;
        let control = |mut size: i64| {
            let op = ffi::SQLITE_FCNTL_MMAP_SIZE;
            let argument = (&raw mut size).cast();
            // SAFETY: this file control takes a pointer to a 64-bit number.
            let code =
                unsafe { ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), op, argument) };
            self.check(code).map(|()| size)
        };
        control(size)?;
        control(-1).map(|size| size.to_string())
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure {
            code: error.sqlite_error().map_or(-1, |e| e.extended_code),
            text: error.to_string(),
        }
    }
}

/// Runs statements; the rows of all of them.
fn rows(db: &Connection, sql: &str) -> rusqlite::Result<String> {
    let mut lines = Vec::new();
    let mut batch = Batch::new(db, sql);
    while let Some(mut statement) = batch.next()? {
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let cells = (0..columns).map(|i| row.get_ref(i).map(text));
            lines.push(cells.collect::<rusqlite::Result<Vec<String>>>()?.join("|"));
        }
    }
    Ok(lines.join("\n"))
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// The files below `directory` that a process has mapped.
pub fn maps(process: u32, directory: &str) -> String {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let mapped = maps
        .lines()
        .filter_map(|line| line.find(directory).map(|at| &line[at..]));
    let mut mapped: Vec<&str> = mapped.collect();
    mapped.dedup();
    mapped.join("\n")
}

/// One line to the parent, in one write.
fn say(what: &str) {
    let line = format!("\n>{}\n", what.replace('\n', "\u{1e}"));
    // SAFETY: a buffer and its length.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}
