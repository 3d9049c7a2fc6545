//! The words that the waiters of one database share, and what they mean.
//!
//! Invariant: any bit pattern is allowed everywhere. What is read is checked before it is believed,
//! and no value leads outside of the words that exist.

/// How many can wait at the same time. Whoever finds the line full backs off at random instead.
pub const CAPACITY: u32 = 4096;

/// How many can knock at the same time: as many as fit into a cache line.
pub const DOORS: u32 = 8;

/// Words of 8 bytes before the places.
const HEADER: usize = 512;

/// Words in a sidecar.
pub const WORDS: usize = HEADER + CAPACITY as usize * 2;

/// What the first word holds in a sidecar of this layout: "turnstl" and the version.
pub const MAGIC: u64 = u64::from_le_bytes(*b"turnstl1");

/// One shared word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// [`MAGIC`]; anything else means that the sidecar is to be mended.
    Magic,
    /// Head and tail; see [`Line`].
    Line,
    /// Until when the present turn may serve its owner again, in nanoseconds; 0: no longer.
    TurnUntil,
    /// Until when a checkpoint asks writers to pause, in nanoseconds; 0: no longer.
    Pause,
    /// Who has gone to try, for whoever would release the lock without a word; 0: nobody.
    Wanted,
    /// Who watches, and when it last looked; see [`Watch`].
    Watch,
    /// When a guest last tried in vain, in nanoseconds; see `knock`.
    Guest,
    /// Whether readers wait for the end of a commit, and the futex that they sleep on.
    Gate,
    /// How many the last commit woke there; see `signal`.
    Herd,
    /// Whether a writer waits for the last reader to leave, and the futex that it sleeps on.
    Drain,
    /// One who is to be told before the head; see `knock`.
    Knock(u32),
    /// Counter: transactions that passed the line within a quantum or while they could not wait.
    Overtakes,
    /// Counter: waiters that were passed over because they did not answer.
    Lapses,
    /// Counter: turns that were handed to a waiter.
    Turns,
    /// Counter: writes that SQLite refused in the middle of a transaction, where nobody may wait.
    Upgrades,
    /// A ticket's place; see [`Place`].
    Place(u32),
    /// When a place's owner last ran, or was last told, in nanoseconds.
    Stamp(u32),
}

impl Word {
    /// Where it is. Words that are written by different parties lie in different cache lines.
    pub const fn index(self) -> usize {
        match self {
            Word::Magic => 0,
            Word::Line => 8,
            Word::TurnUntil => 16,
            Word::Pause => 17,
            Word::Wanted => 18,
            Word::Watch => 24,
            Word::Guest => 72,
            Word::Gate => 40,
            Word::Herd => 41,
            Word::Drain => 48,
            Word::Knock(at) => 32 + (at % DOORS) as usize,
            Word::Overtakes => 56,
            Word::Lapses => 57,
            Word::Upgrades => 58,
            Word::Turns => 64,
            Word::Place(ticket) => HEADER + (ticket % CAPACITY) as usize * 2,
            Word::Stamp(ticket) => HEADER + (ticket % CAPACITY) as usize * 2 + 1,
        }
    }
}

/// Head (the oldest ticket that is not served) and tail (the next ticket to be given out).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub head: u32,
    pub tail: u32,
}

impl Line {
    /// How many stand in the line; more than [`CAPACITY`] means garbage.
    pub fn len(self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    pub fn is_valid(self) -> bool {
        self.len() <= CAPACITY
    }

    /// Whether all have been served who stood in the line when `due` was the next ticket. (The number may come
    /// from a sidecar that has been replaced since: what this line cannot come to is not waited for.)
    pub fn has_come_to(self, due: u32) -> bool {
        !(1..=self.len()).contains(&due.wrapping_sub(self.head))
    }

    /// How many are before `ticket`; `None` if it is not in the line.
    pub fn position(self, ticket: u32) -> Option<u32> {
        let position = ticket.wrapping_sub(self.head);
        (position < self.len()).then_some(position)
    }
}

/// The word holds the head and the *length*: whether anybody waits is then the question whether its
/// lower half is zero, which every write asks.
impl From<u64> for Line {
    fn from(word: u64) -> Line {
        let head = (word >> 32) as u32;
        Line {
            head,
            tail: head.wrapping_add(word as u32),
        }
    }
}

impl From<Line> for u64 {
    fn from(line: Line) -> u64 {
        u64::from(line.head) << 32 | u64::from(line.len())
    }
}

/// See the table in the folder's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Awake = 1,
    Parked = 2,
    Told = 3,
    Called = 4,
    Gone = 5,
    Outside = 6,
    Entering = 7,
}

/// What a place's word holds: its owner, the low bits of its ticket, and its state. The state and
/// the ticket are in the lower half, which is what the futex compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// By which the machine tells whether the owner lives.
    pub member: u32,
    pub ticket: u32,
    pub state: State,
}

const TICKET_MASK: u32 = u32::MAX >> 3;

impl Place {
    /// The place that `word` describes, if it is one of `ticket`.
    pub fn of(word: u64, ticket: u32) -> Option<Place> {
        let low = word as u32;
        let state = match low & 7 {
            1 => State::Awake,
            2 => State::Parked,
            3 => State::Told,
            4 => State::Called,
            5 => State::Gone,
            6 => State::Outside,
            7 => State::Entering,
            _ => return None,
        };
        let member = (word >> 32) as u32;
        (low >> 3 == ticket & TICKET_MASK).then_some(Place {
            member,
            ticket,
            state,
        })
    }

    pub fn with(self, state: State) -> Place {
        Place { state, ..self }
    }
}

impl From<Place> for u64 {
    fn from(place: Place) -> u64 {
        let low = (place.ticket & TICKET_MASK) << 3 | place.state as u32;
        u64::from(place.member) << 32 | u64::from(low)
    }
}

/// The watcher's ticket, and when it last looked, in milliseconds (which wrap around).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    pub ticket: u32,
    pub seen_ms: u32,
}

impl From<u64> for Watch {
    fn from(word: u64) -> Watch {
        Watch {
            ticket: (word >> 32) as u32,
            seen_ms: word as u32,
        }
    }
}

impl From<Watch> for u64 {
    fn from(watch: Watch) -> u64 {
        u64::from(watch.ticket) << 32 | u64::from(watch.seen_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_an_index_of_its_own_inside() {
        use Word::*;
        let mut seen = std::collections::HashSet::new();
        let header = [
            Magic, Line, TurnUntil, Pause, Wanted, Watch, Guest, Gate, Herd, Drain, Overtakes,
            Lapses, Turns, Upgrades,
        ];
        let places = (0..CAPACITY).flat_map(|t| [Place(t), Stamp(t)]);
        let doors = (0..DOORS).map(Knock);
        for word in header.into_iter().chain(doors).chain(places) {
            assert!(
                word.index() < WORDS && seen.insert(word.index()),
                "{word:?}"
            );
        }
        assert_eq!(Place(CAPACITY + 7).index(), Place(7).index());
        assert!(Stamp(u32::MAX).index() < WORDS);
    }

    #[test]
    fn a_line_that_wraps_around_is_a_line() {
        let line = super::Line {
            head: u32::MAX - 1,
            tail: 3,
        };
        assert_eq!(line.len(), 5);
        assert_eq!(line.position(u32::MAX), Some(1));
        assert_eq!(line.position(2), Some(4));
        assert_eq!(line.position(3), None);
        assert_eq!(line.position(u32::MAX - 2), None);
        assert_eq!(super::Line::from(u64::from(line)), line);
    }

    #[test]
    fn a_line_comes_to_what_it_has_room_for() {
        let line = super::Line {
            head: u32::MAX - 1,
            tail: 3,
        };
        let waits = [u32::MAX, 0, 1, 2, 3].map(|due| line.has_come_to(due));
        assert_eq!(waits, [false; 5]);
        let comes = [u32::MAX - 1, u32::MAX - 7, 4, 1 << 30].map(|due| line.has_come_to(due));
        assert_eq!(comes, [true; 4]);
    }

    #[test]
    fn a_place_knows_its_ticket() {
        let place = super::Place {
            member: 9,
            ticket: 1 << 30 | 5,
            state: State::Told,
        };
        assert_eq!(super::Place::of(place.into(), place.ticket), Some(place));
        assert_eq!(
            super::Place::of(place.into(), place.ticket + CAPACITY),
            None
        );
        assert_eq!(super::Place::of(0, 0), None);
        assert_eq!(super::Place::of(u64::MAX << 3, u32::MAX), None);
    }
}
