//! A machine with virtual time: words, a clock, sleepers and SQLite's lock.
//!
//! Each access of an actor is a step, before which anybody else may run. The scheduler is in
//! [`World::next`]. What goes wrong is a [`Fault`]; when it does is in the [`Plan`], which the seed decides.

use super::fault::Fault;
use super::plan::{Manner, Plan};
use crate::turn::layout::{Line, WORDS, Word};
use crate::turn::machine::Machine;
use corosensei::Yielder;
use std::cell::{Cell, RefCell};

/// More than any plan has.
pub const ACTORS: usize = 8;

pub const MS: u64 = 1_000_000;
pub const NEVER: u64 = u64::MAX / 4;

/// splitmix64, by Sebastiano Vigna.
pub struct Random(pub Cell<u64>);

impl Random {
    pub fn next(&self) -> u64 {
        let next = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(next);
        let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What the world knows of an actor.
pub struct Actor {
    pub yielder: Cell<*const Yielder<(), ()>>,
    /// It may run from then on, if it is not stopped.
    pub wake_at: Cell<u64>,
    pub parked_on: Cell<Option<usize>>,
    /// Its sleep was ended by a signal.
    pub signalled: Cell<bool>,
    pub stopped_until: Cell<u64>,
    pub finished: Cell<bool>,
    pub killed: Cell<bool>,
    /// Until when signal 0 finds it.
    pub alive_until: Cell<u64>,
    /// Its ticket while it stands in the line, and whether it was passed over.
    pub ticket: Cell<Option<u32>>,
    pub lapsed: Cell<bool>,
    /// It gave its place up once: who saw that may pass it even if it is back.
    pub returned: Cell<bool>,
    /// It is on its way to the lock.
    pub entering: Cell<bool>,
    ran_at: Cell<u64>,
    priority: Cell<u64>,
}

pub struct World {
    words: Vec<Cell<u64>>,
    pub now: Cell<u64>,
    pub random: Random,
    pub actors: Vec<Actor>,
    pub plan: RefCell<Plan>,
    /// Who has SQLite's lock, and until when if it died with it.
    pub owner: Cell<Option<usize>>,
    pub owner_gone: Cell<u64>,
    /// Who has the byte lock of a mender.
    pub mender: Cell<Option<usize>>,
    pub steps: Cell<u64>,
    next_fault: Cell<usize>,
    last: Cell<usize>,
    /// So many wakes to come reach nobody.
    pub swallow: Cell<u32>,
    /// When something went wrong last.
    pub disturbed: Cell<u64>,
    pub failure: RefCell<Option<String>>,
    /// Whether to print each step.
    pub trace: Cell<bool>,
}

impl World {
    pub fn new() -> World {
        let actor = || Actor {
            yielder: Cell::new(std::ptr::null()),
            wake_at: Cell::new(0),
            parked_on: Cell::new(None),
            signalled: Cell::new(false),
            stopped_until: Cell::new(0),
            finished: Cell::new(false),
            killed: Cell::new(false),
            alive_until: Cell::new(NEVER),
            ticket: Cell::new(None),
            lapsed: Cell::new(false),
            returned: Cell::new(false),
            entering: Cell::new(false),
            ran_at: Cell::new(0),
            priority: Cell::new(0),
        };
        World {
            words: vec![Cell::new(0); WORDS],
            now: Cell::new(0),
            random: Random(Cell::new(0)),
            actors: (0..ACTORS).map(|_| actor()).collect(),
            plan: RefCell::new(Plan::default()),
            owner: Cell::new(None),
            owner_gone: Cell::new(NEVER),
            mender: Cell::new(None),
            steps: Cell::new(0),
            next_fault: Cell::new(0),
            last: Cell::new(0),
            swallow: Cell::new(0),
            disturbed: Cell::new(0),
            failure: RefCell::new(None),
            trace: Cell::new(false),
        }
    }

    /// Everything as at the beginning of the schedule `seed`.
    pub fn reset(&self, seed: u64) {
        self.random.0.set(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        self.random.next();
        let plan = Plan::of(&self.random);
        self.now.set(plan.start);
        self.disturbed.set(plan.start);
        for word in &self.words {
            word.set(0);
        }
        let (head, tail) = (plan.first_ticket, plan.first_ticket);
        self.set(Word::Magic, crate::turn::layout::MAGIC);
        self.set(Word::Line, Line { head, tail }.into());
        for (at, actor) in self.actors.iter().enumerate() {
            actor.wake_at.set(plan.start);
            actor.ran_at.set(plan.start);
            actor.parked_on.set(None);
            actor.stopped_until.set(0);
            actor.finished.set(at >= plan.actors);
            actor.killed.set(false);
            actor.alive_until.set(NEVER);
            actor.ticket.set(None);
            actor.lapsed.set(false);
            actor.returned.set(false);
            actor.entering.set(false);
            actor.priority.set(self.random.next());
        }
        self.owner.set(None);
        self.owner_gone.set(NEVER);
        self.mender.set(None);
        self.steps.set(0);
        self.next_fault.set(0);
        self.swallow.set(0);
        self.last.set(0);
        *self.failure.borrow_mut() = None;
        *self.plan.borrow_mut() = plan;
    }

    pub fn get(&self, word: Word) -> u64 {
        self.words[word.index()].get()
    }

    pub fn set(&self, word: Word, value: u64) {
        self.words[word.index()].set(value);
    }

    pub fn fail(&self, what: String) {
        self.failure.borrow_mut().get_or_insert(what);
    }

    pub fn say(&self, who: usize, what: impl FnOnce() -> String) {
        if self.trace.get() {
            let (step, now) = (self.steps.get(), self.now.get());
            eprintln!("{step} {now} {who}: {}", what());
        }
    }

    pub fn disturb(&self, until: u64) {
        self.disturbed.set(self.disturbed.get().max(until));
    }

    fn can_run(&self, at: usize) -> bool {
        let actor = &self.actors[at];
        !actor.finished.get()
            && !actor.killed.get()
            && actor.wake_at.get().max(actor.stopped_until.get()) <= self.now.get()
    }

    /// Who runs next, after the clock and what goes wrong; `None`: nobody is left.
    pub fn next(&self) -> Option<usize> {
        let plan = self.plan.borrow();
        self.steps.set(self.steps.get() + 1);
        self.now
            .set(self.now.get() + self.random.below(plan.step_ns));
        while let Some(&(step, fault)) = plan.faults.get(self.next_fault.get()) {
            if step > self.steps.get() {
                break;
            }
            self.next_fault.set(self.next_fault.get() + 1);
            fault.befall(self, plan.actors);
        }
        let scribbles = plan.scribble != 0 && self.steps.get() < 20_000;
        if scribbles && self.random.one_in(plan.scribble) {
            Fault::Garbage.befall(self, plan.actors);
        }
        loop {
            if self.now.get() >= self.owner_gone.get() {
                self.owner.set(None);
                self.owner_gone.set(NEVER);
            }
            if let Some(at) = self.choose(&plan) {
                self.last.set(at);
                self.actors[at].ran_at.set(self.now.get());
                return Some(at);
            }
            let sleepers = self
                .actors
                .iter()
                .filter(|a| !a.finished.get() && !a.killed.get());
            let next = sleepers
                .map(|a| a.wake_at.get().max(a.stopped_until.get()))
                .min()?;
            self.look_for_missed_wake(&plan, next);
            self.now.set(next.min(self.owner_gone.get()));
        }
    }

    fn choose(&self, plan: &Plan) -> Option<usize> {
        let mut able = [0; ACTORS];
        let mut count = 0;
        for at in (0..plan.actors).filter(|&at| self.can_run(at)) {
            able[count] = at;
            count += 1;
        }
        let able = &able[..count];
        let any = *able.get(self.random.below(count as u64) as usize)?;
        Some(match plan.manner {
            Manner::Any => any,
            Manner::Sticky(n) if able.contains(&self.last.get()) && !self.random.one_in(n) => {
                self.last.get()
            }
            Manner::Sticky(_) => any,
            // As PCT does: the first by priority runs, and rarely a priority changes.
            Manner::Priorities(n) => {
                if self.random.one_in(n) {
                    self.actors[any].priority.set(self.random.next());
                }
                *able
                    .iter()
                    .max_by_key(|&&at| self.actors[at].priority.get())?
            }
        })
    }

    /// All sleep, the lock is free, nobody has a turn, and somebody waits for it: that is a wake that
    /// was missed, even if a poll or the watcher makes it good.
    fn look_for_missed_wake(&self, plan: &Plan, next: u64) {
        // A watcher gives one whom it called a millisecond, and may be called itself meanwhile.
        let naps = Some(Word::Magic.index());
        let naps = self.actors.iter().any(|a| a.parked_on.get() == naps);
        if !plan.calm || naps || self.owner.get().is_some() {
            return;
        }
        let waits =
            |a: &Actor| a.ticket.get().is_some() && !a.lapsed.get() && a.parked_on.get().is_some();
        let busy = |a: &Actor| !a.finished.get() && !waits(a);
        let first = self.actors.iter().find(|a| waits(a));
        // Who thinks between two transactions is not busy with the line; who wakes up is.
        let paused = self.get(Word::TurnUntil).max(self.get(Word::Pause));
        let from = self.now.get().max(paused);
        let wakes_up = |a: &Actor| {
            busy(a) && (a.entering.get() || a.wake_at.get() <= self.now.get() + plan.latency)
        };
        if first.is_some() && next > from + MS / 10 && !self.actors.iter().any(wakes_up) {
            let idle = next - from;
            self.fail(format!(
                "a missed wake: the lock idles for {idle} ns while some wait"
            ));
        }
    }

    /// `line` moved from `old` to `new` by the doing of `by`: whoever else was passed over has lapsed.
    fn moved(&self, old: Line, new: Line, by: usize) {
        for (at, actor) in self.actors.iter().enumerate() {
            let Some(ticket) = actor.ticket.get() else {
                continue;
            };
            if at == by || old.position(ticket).is_none() || new.position(ticket).is_some() {
                continue;
            }
            actor.lapsed.set(true);
            // One that has to wait so long for a processor looks stopped.
            let ready = actor.ran_at.get().max(actor.wake_at.get());
            let starved = self.now.get().saturating_sub(ready) > MS * 9 / 10;
            if !actor.killed.get()
                && !starved
                && !actor.returned.get()
                && !self.plan.borrow().may_lapse
            {
                self.fail(format!("ticket {ticket} of {at} was passed over by {by}"));
            }
        }
    }
}

/// An actor's view of the world.
#[derive(Clone, Copy)]
pub struct Cpu {
    pub world: &'static World,
    pub me: usize,
}

impl Cpu {
    pub fn actor(&self) -> &'static Actor {
        &self.world.actors[self.me]
    }

    /// Anybody may run before we go on.
    pub fn step(&self) {
        // SAFETY: set when this actor's coroutine began, in which we are.
        unsafe { (*self.actor().yielder.get()).suspend(()) };
    }

    pub fn sleep(&self, ns: u64) {
        self.actor().wake_at.set(self.world.now.get() + ns);
        self.step();
    }

    /// SQLite's lock.
    pub fn try_lock(&self) -> bool {
        self.step();
        let free = self.world.owner.get().is_none();
        if free {
            self.world.owner.set(Some(self.me));
        }
        self.world.say(self.me, || format!("gets the lock: {free}"));
        free
    }

    pub fn unlock(&self) {
        self.step();
        self.world.owner.set(None);
        self.world.say(self.me, || "frees the lock".into());
    }
}

impl Machine for Cpu {
    fn load(&self, word: Word) -> u64 {
        self.step();
        let value = self.world.get(word);
        self.world.say(self.me, || format!("{word:?} is {value:x}"));
        value
    }

    fn store(&self, word: Word, value: u64) {
        self.step();
        self.world.set(word, value);
        self.world.say(self.me, || format!("{word:?} = {value:x}"));
    }

    fn replace(&self, word: Word, old: u64, new: u64) -> bool {
        self.step();
        let same = self.world.get(word) == old;
        self.world
            .say(self.me, || format!("{word:?} {old:x} -> {new:x}: {same}"));
        if same {
            self.world.set(word, new);
            if word == Word::Line {
                self.world.moved(old.into(), new.into(), self.me);
            }
        }
        same
    }

    fn add(&self, word: Word, value: u64) -> u64 {
        self.step();
        let sum = self.world.get(word).wrapping_add(value);
        self.world.set(word, sum);
        sum
    }

    fn now(&self) -> u64 {
        self.world.now.get()
    }

    fn park(&self, word: Word, expected: u64, until: u64) -> bool {
        self.step();
        self.actor().signalled.set(false);
        if self.world.get(word) as u32 == expected as u32 {
            self.world
                .say(self.me, || format!("sleeps on {word:?} until {until}"));
            self.actor().parked_on.set(Some(word.index()));
            self.actor().wake_at.set(until);
            self.step();
            self.actor().parked_on.set(None);
        }
        self.actor().signalled.get()
    }

    fn wake(&self, word: Word, most: u32) -> u32 {
        self.step();
        let world = self.world;
        let mut woken = 0;
        for actor in &world.actors {
            if woken == most || actor.parked_on.get() != Some(word.index()) {
                continue;
            }
            woken += 1;
            if world.swallow.get() > 0 {
                world.swallow.set(world.swallow.get() - 1);
                world.disturb(world.now.get());
                continue;
            }
            actor.parked_on.set(None);
            let latency = world.random.below(world.plan.borrow().latency);
            actor.wake_at.set(world.now.get() + latency);
        }
        world.say(self.me, || format!("wakes {woken} on {word:?}"));
        woken
    }

    fn is_alive(&self, member: u32) -> bool {
        self.step();
        let actor = self.world.actors.get(member.wrapping_sub(1) as usize);
        actor.is_none_or(|actor| self.world.now.get() < actor.alive_until.get())
    }

    fn random(&self) -> u32 {
        self.world.random.next() as u32
    }
}
