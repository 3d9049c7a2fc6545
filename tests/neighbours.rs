//! Neighbours: writers that do not wait as the line would have it, because they use the stock VFS or have a way of
//! their own to wait. They get their share, and nobody is much the worse for them.
#![cfg(feature = "linked")]

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One crowd at a time: each is to have the machine for itself.
static ALONE: Mutex<()> = Mutex::new(());

/// What does not hold is measured again, since the machine has other work, too.
const TRIES: usize = 3;

/// Of so many runs each ratio is the median.
const ROUNDS: usize = 3;

/// How a writer waits. Numbers are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Waits {
    /// As most do: a busy timeout, longer than all that is to come.
    Well,
    /// A busy handler of its own that sleeps without SQLite.
    Handler1,
    Handler5,
    /// The same with `sqlite3_sleep`: that is, through the default VFS.
    Sleep1,
    /// No busy timeout, and a loop that sleeps 1 ms between two tries.
    Loop,
    /// The same, and it reads before each try.
    Looks,
    /// The same, and each try opens the database: SQLite tells us nothing that links one to the next.
    LoopAnew,
    /// A busy timeout of 20 ms, in a loop.
    Short,
}

const WAITS: [Waits; 8] = {
    use Waits::*;
    [
        Well, Handler1, Handler5, Sleep1, Loop, Looks, LoopAnew, Short,
    ]
};

fn nap<const MS: u64>(_count: i32) -> bool {
    std::thread::sleep(Duration::from_millis(MS));
    true
}

fn nap_in_sqlite(_count: i32) -> bool {
    // SAFETY: plain call.
    unsafe { ffi::sqlite3_sleep(1) };
    true
}

impl Waits {
    fn open(self, path: &Path, vfs: &str) -> Connection {
        let flags = OpenFlags::default();
        let mut db = Connection::open_with_flags_and_vfs(path, flags, vfs).unwrap();
        match self {
            Waits::Well => db.busy_timeout(Duration::from_secs(100)),
            Waits::Short => db.busy_timeout(Duration::from_millis(20)),
            Waits::Handler1 => db.busy_handler(Some(nap::<1>)),
            Waits::Handler5 => db.busy_handler(Some(nap::<5>)),
            Waits::Sleep1 => db.busy_handler(Some(nap_in_sqlite)),
            Waits::Loop | Waits::Looks | Waits::LoopAnew => db.busy_timeout(Duration::ZERO),
        }
        .unwrap();
        db
    }

    /// Writes one row, however long it takes.
    fn write(self, db: &mut Option<Connection>, open: impl Fn() -> Connection, who: u32) {
        loop {
            let db_now = db.get_or_insert_with(&open);
            if self == Waits::Looks {
                let _busy = db_now.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
            }
            let written = db_now
                .prepare_cached("INSERT INTO t VALUES(?, zeroblob(100))")
                .and_then(|mut insert| insert.execute([who]));
            match written {
                Ok(_) => return,
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
                Err(error) => panic!("{error}"),
            }
            match self {
                Waits::Short => {}
                Waits::Loop | Waits::Looks => drop(nap::<1>(0)),
                Waits::LoopAnew => {
                    *db = None;
                    nap::<1>(0);
                }
                _ => panic!("{self:?} was refused"),
            }
        }
    }
}

/// Writers that do the same.
#[derive(Clone, Copy, Debug)]
struct Group {
    many: usize,
    vfs: &'static str,
    waits: Waits,
}

/// What all writers have in common.
#[derive(Clone, Copy, Debug)]
struct Street {
    journal: &'static str,
    many: usize,
    /// Each write opens the database.
    opens: bool,
    /// Microseconds between two writes.
    thinks: u64,
    seconds: f64,
}

impl Street {
    fn group(&self, vfs: &'static str, waits: Waits) -> Group {
        let many = self.many;
        Group { many, vfs, waits }
    }

    /// All wait well, on one VFS.
    fn alone(&self, vfs: &'static str) -> Fare {
        run(*self, &[self.group(vfs, Waits::Well)]).remove(0)
    }

    /// The first half waits well on the VFS `turnstile`; what the second half is, is told.
    fn mix(&self, vfs: &'static str, waits: Waits) -> [Fare; 2] {
        let half = Street {
            many: self.many / 2,
            ..*self
        };
        let well = half.group("turnstile", Waits::Well);
        run(*self, &[well, half.group(vfs, waits)])
            .try_into()
            .unwrap()
    }
}

/// This program again, as one of a crowd. It is not a test of its own.
#[test]
fn neighbour_process() {
    let Ok(job) = std::env::var("TURNSTILE_NEIGHBOUR") else {
        return;
    };
    let words: Vec<&str> = job.splitn(7, ' ').collect();
    let [who, vfs, waits, opens, thinks, seconds, path] = words[..] else {
        panic!("{job}");
    };
    let waits = WAITS[waits.parse::<usize>().unwrap()];
    let (who, opens) = (who.parse().unwrap(), opens == "true");
    let thinks = Duration::from_micros(thinks.parse().unwrap());
    turnstile::register(turnstile::Options {
        make_default: waits == Waits::Sleep1,
        ..turnstile::Options::default()
    })
    .unwrap();
    let open = || waits.open(Path::new(path), vfs);
    let mut db = (!opens).then(open);
    println!("\nready");
    let mut start = String::new();
    std::io::stdin().read_line(&mut start).unwrap();
    let start = UNIX_EPOCH + Duration::from_secs_f64(start.trim().parse().unwrap());
    std::thread::sleep(start.duration_since(SystemTime::now()).unwrap_or_default());
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds.parse().unwrap());
    let (mut within, mut after, mut longest) = (0_u32, 0_u32, Duration::ZERO);
    loop {
        let began = Instant::now();
        if began >= end {
            break;
        }
        waits.write(&mut db, open, who);
        if opens {
            db = None;
        }
        longest = longest.max(began.elapsed());
        match Instant::now() < end {
            true => within += 1,
            false => after += 1,
        }
        if !thinks.is_zero() {
            std::thread::sleep(thinks);
        }
    }
    drop(db);
    println!("\ndone {within} {after} {}", longest.as_secs_f64());
}

/// What became of one group.
#[derive(Clone, Debug)]
struct Fare {
    /// Writes of each in the time of the run.
    writes: Vec<u32>,
    /// Seconds.
    longest: f64,
}

impl Fare {
    fn total(&self) -> f64 {
        self.writes.iter().sum::<u32>() as f64
    }

    fn each(&self) -> f64 {
        self.total() / self.writes.len() as f64
    }
}

fn run(street: Street, groups: &[Group]) -> Vec<Fare> {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("a.db");
    let stock = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), "unix").unwrap();
    stock
        .pragma_update(None, "journal_mode", street.journal)
        .unwrap();
    stock.execute_batch("CREATE TABLE t(who, x)").unwrap();
    drop(stock);
    let members = groups
        .iter()
        .flat_map(|group| std::iter::repeat_n(group, group.many));
    let spawn = |(who, group): (usize, &Group)| {
        let Group { vfs, waits, .. } = group;
        let waits = WAITS.iter().position(|w| w == waits).unwrap();
        let Street {
            opens,
            thinks,
            seconds,
            ..
        } = street;
        let path = path.display();
        let job = format!("{who} {vfs} {waits} {opens} {thinks} {seconds} {path}");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "neighbour_process", "--nocapture"])
            .args(["--test-threads", "1"])
            .env("TURNSTILE_NEIGHBOUR", job)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        (child, output)
    };
    let mut children: Vec<(Child, BufReader<ChildStdout>)> =
        members.enumerate().map(spawn).collect();
    for (_, output) in &mut children {
        hear(output, "ready");
    }
    let start = SystemTime::now() + Duration::from_millis(20);
    let start = start.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for (child, _) in &mut children {
        writeln!(child.stdin.as_mut().unwrap(), "{start}").unwrap();
    }
    let mut acknowledged = Vec::new();
    let mut told = children.iter_mut().map(|(child, output)| {
        let done = hear(output, "done");
        let mut words = done.split_whitespace();
        let mut next = || words.next().unwrap().parse::<f64>().unwrap();
        let (within, after, longest) = (next() as u32, next() as u32, next());
        acknowledged.push(within + after);
        assert!(child.wait().unwrap().success());
        (within, longest)
    });
    let fares = groups
        .iter()
        .map(|group| {
            let (writes, longest): (Vec<u32>, Vec<f64>) = told.by_ref().take(group.many).unzip();
            let longest = longest.into_iter().fold(0.0, f64::max);
            Fare { writes, longest }
        })
        .collect();
    drop(told);
    let db = Connection::open(&path).unwrap();
    for (who, &acknowledged) in acknowledged.iter().enumerate() {
        let stored: u32 = db
            .query_row("SELECT count(*) FROM t WHERE who=?", [who as u32], |r| {
                r.get(0)
            })
            .unwrap();
        assert_eq!(stored, acknowledged, "writer {who} of {groups:?}");
    }
    let check: String = db
        .query_row("PRAGMA integrity_check", [], |r| r.get(0))
        .unwrap();
    assert_eq!(check, "ok", "{groups:?}");
    fares
}

fn hear(output: &mut BufReader<ChildStdout>, what: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "a writer fell");
        if let Some(rest) = line.strip_prefix(what) {
            return rest.trim().to_owned();
        }
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Half of the writers use the stock VFS. Nobody waits much longer than somebody does if all are on stock.
///
/// With a little time between two writes everybody gets on. Without it stock's own backoff starves writers
/// for seconds: whoever has the lock takes it again. Those in the line get on even then.
fn beside_stock(journal: &'static str) {
    const LONGER: f64 = 2.0;
    let _alone = ALONE.lock();
    for (many, thinks) in [(8, 0), (16, 300)] {
        let street = Street {
            journal,
            many,
            opens: false,
            thinks,
            seconds: 1.0,
        };
        let holds = (0..TRIES).any(|_| {
            let stock = street.alone("unix");
            let [ours, theirs] = street.mix("unix", Waits::Well);
            let least = |fare: &Fare| fare.writes.iter().copied().min().unwrap();
            let longest = ours.longest.max(theirs.longest);
            eprintln!(
                "{journal}, {many} writers that think {thinks} µs, all on stock: {} writes, at least {}, longest \
                 wait {:.3} s; in line: {}, {}, {:.3} s; beside them on stock: {}, {}, {:.3} s",
                stock.total(),
                least(&stock),
                stock.longest,
                ours.total(),
                least(&ours),
                ours.longest,
                theirs.total(),
                least(&theirs),
                theirs.longest
            );
            longest <= stock.longest * LONGER
                && least(&ours) > 0
                && (least(&theirs) > 0 || thinks == 0)
        });
        assert!(holds, "{journal}, {many} writers that think {thinks} µs");
    }
}

#[test]
fn stock_beside_a_line_on_a_wal() {
    beside_stock("wal");
}

#[test]
fn stock_beside_a_line_on_a_journal() {
    beside_stock("delete");
}

/// All wait well, and open the database for each write, but not at once: to keep the lock for one that is away would cost
/// more than to hand it over.
#[test]
fn writers_that_think_do_not_keep_the_lock_of_a_journal() {
    let _alone = ALONE.lock();
    let street = Street {
        journal: "delete",
        many: 16,
        opens: true,
        thinks: 300,
        seconds: 0.5,
    };
    let holds = (0..TRIES).any(|_| {
        let [stock, ours] = ["unix", "turnstile"].map(|vfs| street.alone(vfs).total());
        eprintln!("{street:?}: {stock} writes on stock, {ours} in line");
        ours >= 2.0 * stock
    });
    assert!(holds);
}

/// What the guests get of a fair share, and what the well-behaved get beside them of what they would get
/// among themselves.
fn shares(street: &Street, well: &Fare, mix: &[Fare; 2]) -> (f64, f64) {
    let fair = (mix[0].total() + mix[1].total()) / street.many as f64;
    (mix[1].each() / fair, mix[0].each() / well.each())
}

/// Says whether the promise is kept: guests get a third of their fair share, and nobody is slowed by more than 10%.
fn is_kept(street: &Street, guest: Waits, shares: &[(f64, f64)]) -> bool {
    let share = median(shares.iter().map(|s| s.0).collect());
    let well = median(shares.iter().map(|s| s.1).collect());
    eprintln!(
        "{} of {}, opens: {}, thinks {} µs: {guest:?}: {share:.2} of a fair share; the others {well:.2} of \
         what they get alone",
        street.journal, street.many, street.opens, street.thinks
    );
    share >= 1.0 / 3.0 && well >= 0.9
}

/// One half of the writers are guests with a way of their own to wait.
fn receive(street: Street, guests: &[Waits]) {
    let _alone = ALONE.lock();
    let mut broken = guests.to_vec();
    for _ in 0..TRIES {
        let mut measured = vec![Vec::new(); broken.len()];
        for _ in 0..ROUNDS {
            let well = street.alone("turnstile");
            for (guest, measured) in broken.iter().zip(&mut measured) {
                measured.push(shares(&street, &well, &street.mix("turnstile", *guest)));
            }
        }
        let mut measured = measured.iter();
        broken.retain(|&guest| !is_kept(&street, guest, measured.next().unwrap()));
        if broken.is_empty() {
            return;
        }
    }
    panic!("{street:?}: {broken:?}");
}

const GUESTS: Street = Street {
    journal: "wal",
    many: 8,
    opens: false,
    thinks: 0,
    seconds: 0.5,
};

#[test]
fn guests_on_a_wal() {
    use Waits::*;
    receive(GUESTS, &[Handler1, Handler5, Loop, Looks, Short]);
}

#[test]
fn guests_on_a_journal() {
    use Waits::*;
    let street = Street {
        journal: "delete",
        thinks: 300,
        ..GUESTS
    };
    receive(street, &[Handler1, Handler5, Loop, Looks, Sleep1]);
}

#[test]
fn guests_that_open_a_wal_for_each_write() {
    use Waits::*;
    let street = Street {
        many: 32,
        opens: true,
        thinks: 300,
        ..GUESTS
    };
    receive(street, &[Handler1, Handler5, Loop]);
}

#[test]
fn guests_that_open_a_journal_for_each_write() {
    use Waits::*;
    let street = Street {
        journal: "delete",
        many: 32,
        opens: true,
        ..GUESTS
    };
    receive(street, &[Handler1, Handler5, Loop, Sleep1]);
}

/// Few, since it is the opening that costs most here.
#[test]
fn guests_that_open_for_each_try() {
    for journal in ["wal", "delete"] {
        let street = Street {
            journal,
            opens: true,
            ..GUESTS
        };
        receive(street, &[Waits::LoopAnew]);
    }
}

/// Each writes so seldom that whoever sleeps 5 ms after a refusal is only let in if it is there when its turn comes.
#[test]
fn guests_that_think_and_open_a_journal_for_each_write() {
    use Waits::*;
    let street = Street {
        journal: "delete",
        many: 16,
        opens: true,
        thinks: 300,
        ..GUESTS
    };
    receive(street, &[Handler1, Handler5, Loop, LoopAnew]);
}
