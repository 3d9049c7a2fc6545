//! What goes wrong: somebody is killed or stopped, a wake comes for nothing or is lost, a word is
//! overwritten.

use super::world::{Actor, MS, NEVER, World};
use crate::turn::layout::{CAPACITY, Line, Word};

/// Something that goes wrong at a step.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// SIGKILL. A zombie's number is still found by signal 0.
    Kill {
        zombie: bool,
    },
    /// SIGSTOP, and SIGCONT later; or a machine with too much to do.
    Stop,
    Spurious,
    /// The next wake reaches a sleeper that does not notice.
    Lost,
    /// Any value in a word that matters.
    Garbage,
}

impl Fault {
    /// It strikes `world`, or any one of its first so many `actors`.
    pub fn befall(self, world: &World, actors: usize) {
        let victim = world.random.below(actors as u64) as usize;
        world.say(victim, || format!("{self:?}"));
        match self {
            Fault::Kill { zombie } => kill(world, victim, zombie),
            Fault::Stop => stop(world, &world.actors[victim]),
            Fault::Spurious => rouse(world, &world.actors[victim]),
            Fault::Lost => world.swallow.set(world.swallow.get() + 1),
            Fault::Garbage => scribble(world),
        }
    }
}

fn kill(world: &World, victim: usize, zombie: bool) {
    let (actor, random) = (&world.actors[victim], &world.random);
    if actor.finished.get() || actor.killed.replace(true) {
        return;
    }
    // Its locks are freed first. It may have taken one last wake.
    let exit = world.now.get() + random.below(MS);
    let gone = exit + random.below(5 * MS);
    actor.alive_until.set(if zombie { NEVER } else { gone });
    if random.one_in(2) {
        actor.parked_on.set(None);
    }
    if world.owner.get() == Some(victim) {
        world.owner_gone.set(exit);
    }
    if world.mender.get() == Some(victim) {
        world.mender.set(None);
    }
    world.disturb(gone);
}

fn stop(world: &World, actor: &Actor) {
    let longest = [MS, 50 * MS, 2_000 * MS][world.random.below(3) as usize];
    let until = world.now.get() + world.random.below(longest);
    actor.stopped_until.set(until);
    // A signal ends a futex's sleep.
    rouse(world, actor);
    world.disturb(until);
}

fn rouse(world: &World, actor: &Actor) {
    if actor.parked_on.take().is_some() {
        actor.wake_at.set(world.now.get());
        actor.signalled.set(true);
    }
}

fn scribble(world: &World) {
    let (now, random) = (world.now.get(), &world.random);
    world.disturb(now);
    let line = Line::from(world.get(Word::Line));
    let near = line.head.wrapping_add(random.below(6) as u32);
    let words = [
        Word::Magic,
        Word::Line,
        Word::Line,
        Word::TurnUntil,
        Word::Pause,
        Word::Watch,
        Word::Gate,
        Word::Herd,
        Word::Drain,
        Word::Knock(near % 2),
        Word::Guest,
        Word::Turns,
        Word::Place(near),
        Word::Stamp(near),
        Word::Place(near),
        Word::Place(random.next() as u32),
    ];
    let word = words[random.below(words.len() as u64) as usize];
    let old = world.get(word);
    let garbage = match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => old ^ 1 << random.below(64),
        3 => old.wrapping_add(random.below(9)).wrapping_sub(4),
        4 => old.wrapping_add(random.below(9) << 32),
        5 => now + random.below(1_000 * MS),
        // A line that is full, of nobody.
        6 if word == Word::Line => old & !0xffff_ffff | u64::from(CAPACITY),
        _ => random.next(),
    };
    world.set(word, garbage);
}
