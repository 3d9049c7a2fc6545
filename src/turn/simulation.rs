//! The line in a world of virtual time, in which a seed decides who runs next and what goes wrong.
//!
//! The actors run the real functions of the line; only the machine under them is not real. Each shared
//! access is a step before which anybody else may run, be killed, be stopped, or scribble.
//!
//! What must hold:
//! - everybody who lives is served, gives up or runs out of time, soon after the last trouble;
//! - tickets are served in their order, and a quantum bounds who may pass;
//! - without trouble nobody is passed over, and the lock never idles while somebody waits: so a missed
//!   wake is seen even where a poll or the watcher would make it good;
//! - a call ends when it was asked to, whatever is in the words;
//! - when all are done, a fresh waiter is served and leaves an empty line.
//!
//! `TURNSTILE_SIM_SEED=n` replays one schedule and prints its steps, `TURNSTILE_SIM_SCHEDULES=n` sets how many there are.

mod actor;
mod fault;
mod fuzz;
mod mend;
mod plan;
mod world;

use actor::Life;
use corosensei::Coroutine;
use corosensei::stack::DefaultStack;
use plan::Plan;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use world::{ACTORS, Cpu, MS, World};

/// More steps than any schedule needs.
const STEPS: u64 = 3_000_000;

type Actor = Coroutine<(), (), ()>;

/// The worlds of one thread, one after the other, with the stacks of those who live in them.
struct Stage {
    world: &'static World,
    stacks: Vec<DefaultStack>,
}

/// What schedules were like, for the eye of whoever changes them.
#[derive(Clone, Copy, Default)]
struct Sum {
    steps: u64,
    /// The longest that it took all to be done after the last trouble.
    longest: u64,
}

impl Stage {
    fn new() -> Stage {
        Stage {
            // Leaked: the coroutines want it to live for ever, and there is one for each thread.
            world: Box::leak(Box::new(World::new())),
            stacks: Vec::new(),
        }
    }

    fn actor(&mut self, me: usize, live: fn(Life)) -> Actor {
        let stack = self
            .stacks
            .pop()
            .unwrap_or_else(|| DefaultStack::new(64 << 10).unwrap());
        let world = self.world;
        Coroutine::with_stack(stack, move |yielder, ()| {
            world.actors[me].yielder.set(yielder);
            live(Life::new(Cpu { world, me }));
            world.actors[me].finished.set(true);
        })
    }

    /// One schedule.
    fn play(&mut self, seed: u64, change: impl FnOnce(&mut Plan)) -> Result<Sum, String> {
        let world = self.world;
        world.reset(seed);
        change(&mut world.plan.borrow_mut());
        fuzz::furnish(world, world.plan.borrow().found);
        let count = world.plan.borrow().actors;
        let mut actors: Vec<Actor> = (0..count).map(|me| self.actor(me, Life::live)).collect();
        let mut sum = Sum::default();
        let mut result = self.run(&mut actors, &mut sum);
        if result.is_ok() {
            // A new process with the number of the last.
            let me = ACTORS - 1;
            let mut plan = world.plan.borrow_mut();
            (plan.actors, plan.calm, plan.scribble) = (ACTORS, false, 0);
            plan.faults.clear();
            drop(plan);
            world.actors[me].finished.set(false);
            world.actors[me].wake_at.set(world.now.get());
            world.disturbed.set(world.now.get());
            actors.resize_with(me, || self.actor(me, |_| {}));
            actors.push(self.actor(me, Life::visit));
            result = self.run(&mut actors, &mut sum);
        }
        for mut actor in actors {
            // SAFETY: an actor has nothing on its stack that wants to be dropped.
            unsafe { actor.force_reset() };
            self.stacks.push(actor.into_stack());
        }
        result.map(|()| sum)
    }

    fn run(&self, actors: &mut [Actor], sum: &mut Sum) -> Result<(), String> {
        let world = self.world;
        let bound = bound(&world.plan.borrow());
        while let Some(at) = world.next() {
            let calm_for = world.now.get().saturating_sub(world.disturbed.get());
            sum.longest = sum.longest.max(calm_for);
            let endless = world.steps.get() > STEPS;
            if endless || calm_for > bound {
                let waits = &world.actors;
                let waits: Vec<_> = waits
                    .iter()
                    .map(|a| (a.finished.get(), a.killed.get(), a.ticket.get()))
                    .collect();
                let line =
                    crate::turn::layout::Line::from(world.get(crate::turn::layout::Word::Line));
                return Err(format!(
                    "no end (endless: {endless}): {line:?}, (finished, killed, ticket): {waits:?}"
                ));
            }
            actors[at].resume(());
            if let Some(failure) = world.failure.borrow_mut().take() {
                return Err(failure);
            }
        }
        sum.steps += world.steps.get();
        Ok(())
    }
}

/// How long it may take all to be done after the last trouble: their work, and for each a grace period
/// and the backstop.
fn bound(plan: &Plan) -> u64 {
    let habits = &plan.habits[..plan.actors.min(ACTORS)];
    let work: u64 = habits
        .iter()
        .map(|h| u64::from(h.transactions) * (2 * h.hold + h.think + 20 * MS))
        .sum();
    work + 4_000 * MS + plan.actors as u64 * 400 * MS
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays many schedules on all processors, or the one that the environment asks for.
fn explore(default: u64, change: fn(&mut Plan, u64)) {
    if let Some(seed) = number("TURNSTILE_SIM_SEED") {
        let mut stage = Stage::new();
        stage.world.trace.set(true);
        let played = stage.play(seed, |plan| {
            change(plan, seed);
            eprintln!("{plan:#?}");
        });
        played.unwrap_or_else(|what| panic!("{what}"));
        return;
    }
    let schedules = number("TURNSTILE_SIM_SCHEDULES").unwrap_or(default);
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let total = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let mut stage = Stage::new();
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= schedules {
                        return;
                    }
                    let played =
                        catch_unwind(AssertUnwindSafe(|| stage.play(seed, |p| change(p, seed))));
                    match played.unwrap_or_else(|_| Err("a panic".into())) {
                        Ok(sum) => {
                            let mut total = total.lock().unwrap();
                            total.steps += sum.steps;
                            total.longest = total.longest.max(sum.longest);
                        }
                        Err(what) => {
                            let mut failed = failed.lock().unwrap();
                            failed.push(format!("TURNSTILE_SIM_SEED={seed}: {what}"));
                            if failed.len() >= 12 {
                                next.store(schedules, Relaxed);
                            }
                            // What a panic left of the world is not to be used.
                            stage = Stage::new();
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let Sum { steps, longest } = total.into_inner().unwrap();
    eprintln!(
        "{schedules} schedules, {steps} steps, all done after at most {} ms",
        longest / MS
    );
}

#[test]
fn schedules() {
    explore(
        if cfg!(debug_assertions) {
            5_000
        } else {
            500_000
        },
        |_, _| {},
    );
}
