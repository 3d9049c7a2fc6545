//! `sidecar::mend`, as it is done in the world.

use super::world::Cpu;
use crate::turn::layout::{CAPACITY, Line, MAGIC, Word};
use crate::turn::line;
use crate::turn::machine::Machine;

/// Once its lock is held.
pub fn mend(m: &Cpu) {
    if line::line(m).is_some() {
        return;
    }
    m.store(Word::Magic, 0);
    let line = Line::from(m.load(Word::Line));
    let next = line.tail.wrapping_add(CAPACITY);
    let (head, tail) = (next, next);
    m.store(Word::Line, Line { head, tail }.into());
    use Word::{Drain, Gate, Knock, Pause, TurnUntil, Watch};
    for word in [TurnUntil, Pause, Watch, Gate, Drain, Knock(0), Knock(1)] {
        m.store(word, 0);
    }
    for place in 0..CAPACITY {
        // Most are nobody's: those are not worth a step.
        if m.world.get(Word::Place(place)) != 0 {
            m.store(Word::Place(place), 0);
        }
        m.world.set(Word::Stamp(place), 0);
        if m.world
            .actors
            .iter()
            .any(|a| a.parked_on.get() == Some(Word::Place(place).index()))
        {
            m.wake(Word::Place(place), 1);
        }
    }
    m.store(Word::Magic, MAGIC);
}
