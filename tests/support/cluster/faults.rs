//! Which requests go wrong, and how.
//!
//! A plan is a list of faults. Each names the requests that it is about (kind, node, path), which of
//! them it strikes (from the n-th on, or by chance with a seed of its own; so many times, or for so
//! long) and what happens to them. A request that several faults would strike goes to the first.

use super::ops::Op;
use fuser::Errno;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What happens to one request. The default: it is done, and its answer is the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The answer.
    pub errno: Option<Errno>,
    /// It is done all the same: the answer is a lie.
    pub done: bool,
    /// The answer is held back for so long. Other requests are served meanwhile.
    pub late: Duration,
    /// Of a write only so many bytes are done.
    pub short: Option<usize>,
}

impl Verdict {
    /// Whether it is answered with an error and nothing is done.
    pub fn refuses(&self) -> bool {
        self.errno.is_some() && !self.done
    }
}

#[derive(Clone, Debug)]
enum When {
    From(u64),
    Chance(f64, fastrand::Rng),
}

/// One line of the plan.
///
/// As [`Fault::at`] makes it, it strikes each such request for ever, and does no harm.
#[derive(Clone, Debug)]
pub struct Fault {
    ops: Vec<Op>,
    suffix: String,
    node: Option<usize>,
    when: When,
    times: u64,
    until: Option<Instant>,
    verdict: Verdict,
}

impl Fault {
    pub fn at(ops: &[Op]) -> Fault {
        Fault {
            ops: ops.to_vec(),
            suffix: String::new(),
            node: None,
            when: When::From(1),
            times: u64::MAX,
            until: None,
            verdict: Verdict::default(),
        }
    }

    /// Only where the path ends so: `-journal`.
    pub fn of(self, suffix: &str) -> Fault {
        let suffix = suffix.to_owned();
        Fault { suffix, ..self }
    }

    /// Only requests of this node.
    pub fn on(self, node: usize) -> Fault {
        let node = Some(node);
        Fault { node, ..self }
    }

    /// From the `n`-th such request on, the first being 1.
    pub fn nth(self, n: u64) -> Fault {
        let when = When::From(n);
        Fault { when, ..self }
    }

    /// Each such request with this probability.
    pub fn chance(self, probability: f64, seed: u64) -> Fault {
        let when = When::Chance(probability, fastrand::Rng::with_seed(seed));
        Fault { when, ..self }
    }

    /// So many times in all.
    pub fn times(self, times: u64) -> Fault {
        Fault { times, ..self }
    }

    /// From now on for so long.
    pub fn lasting(self, time: Duration) -> Fault {
        let until = Some(Instant::now() + time);
        Fault { until, ..self }
    }

    /// Nothing is done, and this is answered.
    ///
    /// Not every errno comes through: of `ENOSYS` Linux concludes for good that this mount has no such
    /// operation.
    pub fn answer(mut self, errno: Errno) -> Fault {
        (self.verdict.errno, self.verdict.done) = (Some(errno), false);
        self
    }

    /// It is done, and this is answered all the same.
    pub fn lie(mut self, errno: Errno) -> Fault {
        (self.verdict.errno, self.verdict.done) = (Some(errno), true);
        self
    }

    /// The answer comes so much later. With `answer` or `lie`: that one.
    pub fn late(mut self, time: Duration) -> Fault {
        self.verdict.late = time;
        self
    }

    /// Of a write only the first so many bytes are written.
    pub fn short(mut self, bytes: usize) -> Fault {
        self.verdict.short = Some(bytes);
        self
    }

    fn about(&self, node: usize, op: Op) -> bool {
        self.ops.contains(&op)
            && self.node.is_none_or(|only| only == node)
            && self.until.is_none_or(|end| Instant::now() < end)
    }
}

/// One fault in the plan: see `Cluster::inject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(usize);

#[derive(Debug)]
struct Armed {
    fault: Fault,
    lifted: bool,
    seen: u64,
    fired: u64,
}

impl Armed {
    /// Whether it strikes this request, which is one that it is about.
    fn strikes(&mut self) -> bool {
        self.seen += 1;
        self.fired < self.fault.times
            && match &mut self.fault.when {
                When::From(n) => self.seen >= *n,
                When::Chance(probability, rng) => rng.f64() < *probability,
            }
    }
}

#[derive(Debug, Default)]
pub struct Plan(Vec<Armed>);

impl Plan {
    pub fn inject(&mut self, fault: Fault) -> Id {
        self.0.push(Armed {
            fault,
            lifted: false,
            seen: 0,
            fired: 0,
        });
        Id(self.0.len() - 1)
    }

    pub fn fired(&self, Id(at): Id) -> u64 {
        self.0[at].fired
    }

    pub fn lift(&mut self, Id(at): Id) {
        self.0[at].lifted = true;
    }

    pub fn lift_all(&mut self) {
        for armed in &mut self.0 {
            armed.lifted = true;
        }
    }

    /// What happens to this request, if anything. The path is asked for only when it matters.
    pub fn strike(
        &mut self,
        node: usize,
        op: Op,
        path: impl FnOnce() -> PathBuf,
    ) -> Option<Verdict> {
        let about = |armed: &&mut Armed| !armed.lifted && armed.fault.about(node, op);
        let mut faults = self.0.iter_mut().filter(about).peekable();
        faults.peek()?;
        let path = path();
        let mut verdict = None;
        for armed in faults.filter(|armed| ends_with(&path, &armed.fault.suffix)) {
            if armed.strikes() && verdict.is_none() {
                armed.fired += 1;
                verdict = Some(armed.fault.verdict);
            }
        }
        verdict
    }
}

fn ends_with(path: &Path, suffix: &str) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .ends_with(suffix.as_bytes())
}
