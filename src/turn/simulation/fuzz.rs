//! Words that anybody may have written, before and while the line is used: in virtual time, and in a real
//! file that is also truncated.

use super::explore;
use super::plan::{Found, Manner, Plan};
use super::world::{MS, Random, World};
use crate::turn::layout::{CAPACITY, Line, Place, State, Word};
use crate::turn::line;
use crate::turn::machine::Machine;
use crate::turn::mapped;
use crate::turn::sidecar::{self, Trouble};
use crate::turn::sigbus::LENGTH;
use std::cell::Cell;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Fills the words before anybody comes.
pub fn furnish(world: &World, found: Found) {
    let random = &world.random;
    let now = world.now.get();
    match found {
        Found::Nothing => {}
        Found::Garbage => {
            use Word::{Drain, Gate, Knock, Magic, Pause, Stamp, TurnUntil, Watch};
            for word in [Word::Line, TurnUntil, Pause, Watch, Gate, Drain, Knock(1)] {
                world.set(word, random.next());
            }
            if random.one_in(2) {
                world.set(Magic, random.next());
            } else {
                let word = random.next() & !0xffff_ffff;
                let len = random.below(u64::from(CAPACITY) + 2);
                world.set(Word::Line, word | len);
            }
            for place in 0..CAPACITY {
                world.set(Word::Place(place), random.next());
                let stamp = [random.next(), now - random.below(500 * MS)];
                world.set(Stamp(place), stamp[random.below(2) as usize]);
            }
        }
        Found::Crowd => {
            let head = Line::from(world.get(Word::Line)).head;
            let len = 3_000 + random.below(u64::from(CAPACITY) - 3_000) as u32;
            let tail = head.wrapping_add(len);
            world.set(Word::Line, Line { head, tail }.into());
            let states = [State::Called, State::Parked];
            for position in 0..len {
                let ticket = head.wrapping_add(position);
                let state = states[random.below(2) as usize];
                let place = Place {
                    member: 1_000,
                    ticket,
                    state,
                };
                world.set(Word::Place(ticket), place.into());
                world.set(Word::Stamp(ticket), now - 400 * MS);
            }
        }
    }
}

/// No panic, no endless loop, no call that is late, and all is well once the scribbling ends.
#[test]
fn garbage_costs_no_more_than_fairness() {
    fn scribble(plan: &mut Plan, seed: u64) {
        plan.calm = false;
        plan.garbage = true;
        plan.may_lapse = true;
        plan.faults.clear();
        plan.manner = Manner::Any;
        plan.scribble = [3, 30, 300, 3_000][seed as usize % 4];
        plan.found = match seed % 64 {
            0 => Found::Crowd,
            _ if seed.is_multiple_of(3) => Found::Garbage,
            _ => Found::Nothing,
        };
        for habit in &mut plan.habits {
            habit.stranger = false;
            habit.timeout = habit.timeout.or(Some(40 * MS));
        }
    }
    explore(if cfg!(debug_assertions) { 300 } else { 20_000 }, scribble);
}

struct Folder {
    folder: tempfile::TempDir,
    random: Random,
}

impl Folder {
    fn new() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("db")).unwrap();
        let random = Random(Cell::new(mapped::now()));
        Folder { folder, random }
    }

    fn attach(path: &Path) -> Result<Option<mapped::Mapped>, Trouble> {
        let text = |name| CString::new(path.join(name).as_os_str().as_bytes()).unwrap();
        sidecar::attach(&text("db-turnstile"), &text("db"), true)
    }
}

fn take_and_leave(m: &mapped::Mapped) {
    if let Ok(mut ticket) = line::take(m, m.member()) {
        let until = m.now() + 2 * MS;
        line::wait(m, &mut ticket, until, true);
        line::give_up(m, ticket);
    }
    line::tell_head(m);
}

#[test]
fn a_file_of_any_bytes_is_mended() {
    let Folder { folder, random } = Folder::new();
    for round in 0..200 {
        let length = match round % 4 {
            0 => random.below(4096),
            1 => LENGTH as u64 - 1 - random.below(9),
            _ => random.below(2 * LENGTH as u64),
        };
        let mut bytes: Vec<u8> = (0..length / 8 + 1)
            .flat_map(|_| random.next().to_ne_bytes())
            .collect();
        bytes.truncate(length as usize);
        if round % 3 == 0 && length > 8 {
            // A line that may be one.
            bytes[..8].copy_from_slice(&crate::turn::layout::MAGIC.to_ne_bytes());
        }
        std::fs::write(folder.path().join("db-turnstile"), bytes).unwrap();
        let m = Folder::attach(folder.path()).unwrap().unwrap();
        assert!(line::line(&m).is_some());
        let started = Instant::now();
        take_and_leave(&m);
        assert!(started.elapsed() < Duration::from_secs(2));
    }
    let sidecar = folder.path().join("db-turnstile");
    std::fs::remove_file(&sidecar).unwrap();
    std::fs::create_dir(&sidecar).unwrap();
    assert!(Folder::attach(folder.path()).is_err());
}

#[test]
fn a_file_that_is_scribbled_on_and_truncated_harms_nobody() {
    let Folder { folder, random } = Folder::new();
    let path = folder.path();
    drop(Folder::attach(path).unwrap());
    let end = Instant::now() + Duration::from_secs(1);
    let rounds = std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    let mut rounds = 0;
                    while Instant::now() < end {
                        // Somebody may have truncated it since it was allocated, or be mending it.
                        let Ok(Some(m)) = Folder::attach(path) else {
                            continue;
                        };
                        while line::line(&m).is_some() && Instant::now() < end {
                            take_and_leave(&m);
                            rounds += 1;
                        }
                    }
                    rounds
                })
            })
            .collect();
        let file = OpenOptions::new()
            .write(true)
            .open(path.join("db-turnstile"));
        let file = file.unwrap();
        while Instant::now() < end {
            let at = match random.below(3) {
                // The header, and the places that are used first.
                0 => random.below(64),
                1 => 512 + random.below(64),
                _ => random.below(LENGTH as u64 / 8),
            };
            match random.below(40) {
                0 => file.set_len(random.below(LENGTH as u64)).unwrap(),
                1 => file.set_len(LENGTH as u64).unwrap(),
                _ => file
                    .write_all_at(&random.next().to_ne_bytes(), at * 8)
                    .unwrap(),
            }
            std::thread::sleep(Duration::from_micros(random.below(300)));
        }
        let rounds = waiters.into_iter().map(|w| w.join().unwrap());
        rounds.sum::<u32>()
    });
    assert!(rounds > 20, "{rounds} rounds");
    let started = Instant::now();
    let m = Folder::attach(path).unwrap().unwrap();
    take_and_leave(&m);
    assert!(started.elapsed() < Duration::from_secs(2));
}
