//! What a schedule is about: who takes part, how they behave, what goes wrong.

use super::fault::Fault;
use super::world::{ACTORS, MS, Random};

/// Who runs next.
#[derive(Clone, Copy, Debug, Default)]
pub enum Manner {
    #[default]
    Any,
    /// The same again, but for one of so many times.
    Sticky(u64),
    Priorities(u64),
}

/// What the words hold at the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Found {
    #[default]
    Nothing,
    Garbage,
    /// A long line of waiters that live and do not answer.
    Crowd,
}

/// How one actor behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habit {
    /// The stock VFS: takes the lock when it is free, and tells nobody.
    pub stranger: bool,
    /// Its handler never comes to `xSleep`.
    pub own_handler: bool,
    /// After one of so many transactions it checkpoints the WAL; 0: never.
    pub checkpoints: u64,
    /// It opens the database for each transaction.
    pub reopens: bool,
    /// It is expected to write when it opens the database, and waits outside of a line of so many.
    pub crowd: Option<u32>,
    /// Of so many times it does something else then; 0: never.
    pub strays: u64,
    /// Of so many turns one leads to nothing, and is asked for again; 0: none.
    pub stale: u64,
    /// It sometimes reads before it tries to write again.
    pub only_looks: bool,
    pub transactions: u32,
    /// It waits no longer than this.
    pub timeout: Option<u64>,
    /// Of so many tries that failed, one is the last; 0: it never gives up.
    pub gives_up: u64,
    /// It sometimes leaves without giving up its place.
    pub deserts: bool,
    /// Virtual time of a transaction, and between two.
    pub hold: u64,
    pub think: u64,
}

#[derive(Debug, Default)]
pub struct Plan {
    pub start: u64,
    pub first_ticket: u32,
    pub actors: usize,
    pub habits: [Habit; ACTORS],
    pub manner: Manner,
    pub step_ns: u64,
    /// A wake-up takes up to this long.
    pub latency: u64,
    pub quantum: u64,
    /// At which step what goes wrong.
    pub faults: Vec<(u64, Fault)>,
    /// Besides, of so many steps one writes garbage; 0: none.
    pub scribble: u64,
    /// What is in the words before anybody comes.
    pub found: Found,
    pub garbage: bool,
    /// Nothing goes wrong, and nobody is rude.
    pub calm: bool,
    /// Somebody who lives may be passed over.
    pub may_lapse: bool,
}

impl Plan {
    pub fn of(random: &Random) -> Plan {
        let pick = |from: &[u64]| from[random.below(from.len() as u64) as usize];
        let ms_wrap = (1 << 32) * MS;
        let mut plan = Plan {
            start: pick(&[1_000 * MS, ms_wrap - 2 * MS, 50 * ms_wrap - 30 * MS]),
            first_ticket: pick(&[0, u64::from(u32::MAX - 2), 4094, 1 << 29]) as u32,
            actors: 2 + random.below(pick(&[2, 5])) as usize,
            manner: match random.below(3) {
                0 => Manner::Any,
                1 => Manner::Sticky(pick(&[4, 32])),
                _ => Manner::Priorities(pick(&[16, 128])),
            },
            step_ns: pick(&[20, 200, 1_000]),
            latency: pick(&[1, 50_000]),
            quantum: pick(&[0, 0, 100_000, 2 * MS]),
            ..Plan::default()
        };
        let hold = pick(&[1, 3_000, 100_000, 5 * MS]);
        let think = pick(&[1, 10_000, MS]);
        let timeout = pick(&[0, 0, MS, 30 * MS]);
        let gives_up = pick(&[0, 0, 3]);
        let guests = random.one_in(3);
        let outside = random.one_in(2);
        for habit in &mut plan.habits[..plan.actors] {
            habit.transactions = 1 + random.below(4) as u32;
            habit.hold = hold;
            habit.think = if random.one_in(2) { 1 } else { think };
            habit.timeout = (timeout != 0 && random.one_in(2)).then(|| random.below(timeout));
            habit.gives_up = if random.one_in(2) { gives_up } else { 0 };
            habit.own_handler = guests && random.one_in(3);
            habit.only_looks = random.one_in(2);
            habit.reopens = random.one_in(2);
            let crowd = 1 + random.below(3) as u32;
            let expected = outside && habit.reopens && !habit.own_handler && random.one_in(2);
            habit.crowd = expected.then_some(crowd);
            habit.strays = pick(&[0, 0, 4]);
            habit.stale = pick(&[0, 0, 3]);
            habit.checkpoints = pick(&[0, 0, 3]);
        }
        plan.calm = random.one_in(3);
        if !plan.calm {
            plan.disturb(random);
        }
        plan
    }

    fn disturb(&mut self, random: &Random) {
        // Which kinds of trouble this schedule has.
        let kinds = random.next();
        let has = |kind: u32| kinds >> (2 * kind) & 3 == 0;
        let zombie = has(9);
        let menu = [
            (has(0), Fault::Kill { zombie }),
            (has(1), Fault::Stop),
            (has(2), Fault::Spurious),
            (has(3), Fault::Lost),
            (has(4), Fault::Garbage),
        ];
        for (_, fault) in menu.into_iter().filter(|(has, _)| *has) {
            for _ in 0..1 + random.below(3) {
                self.faults.push((random.below(600), fault));
            }
        }
        self.faults.sort_by_key(|(step, _)| *step);
        self.garbage = has(4);
        for habit in &mut self.habits[..self.actors] {
            habit.stranger = has(5) && random.one_in(3);
            habit.deserts = has(7) && random.one_in(3);
        }
        self.may_lapse = has(1) || has(3) || has(4) || has(7);
    }
}
