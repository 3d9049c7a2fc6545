//! A cluster with a process on each node, and what is demanded of them after one fault.

use super::case::{Case, Times};
use super::work::states;
use super::worker::{Order, Worker};
use crate::cluster::{Cluster, Counts, Mount};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The node on which there is work and whose requests fail.
pub const WORKS: usize = 0;
const LOOKS: usize = 1;

const NAME: &str = "a.db";
/// How long a fault that lasts for ever may be borne with.
const BRIEFLY: &str = "&retry_ms=30";
/// A run of some hundred calls that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// So soon a fault that lasts for ever is an error: some dozens of calls may fail before all is closed.
const SOON: Duration = Duration::from_secs(5);

/// How a run can go wrong, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// The job ended with an error, though the fault was a passing one.
    Error,
    /// It ended neither well nor with an error, or long after a fault that lasts for ever.
    Ended,
    /// The other node cannot use the database afterwards.
    Stuck,
    /// A connection read what was never committed, or not any more.
    Read,
    /// An acknowledged commit is missing.
    Lost,
    /// Half a transaction.
    Half,
    /// `integrity_check`.
    Broken,
}

#[derive(Debug)]
pub struct Failure {
    pub flaw: Flaw,
    what: String,
}

impl Failure {
    fn of<T>(flaw: Flaw, what: impl fmt::Display) -> Result<T, Failure> {
        let what = what.to_string();
        Err(Failure { flaw, what })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.flaw, self.what)
    }
}

/// What a run was.
pub struct Run {
    /// How many requests failed.
    pub fired: u64,
    /// Until the work had ended.
    pub time: Duration,
    pub result: Result<(), Failure>,
}

/// How far the work went: which states the database may be in.
struct Work {
    commits: usize,
    /// Where it failed and why.
    error: Option<(String, String)>,
}

pub struct Lane {
    vfs: &'static str,
    seed: u64,
    states: Vec<u64>,
    // The processes end before the mounts do.
    workers: [Worker; 2],
    cluster: Cluster,
}

impl Lane {
    pub fn new(vfs: &'static str, seed: u64) -> Lane {
        Lane {
            vfs,
            seed,
            states: states(seed),
            workers: [Worker::new(), Worker::new()],
            cluster: Cluster::volatile(&[Mount::default(); 2]),
        }
    }

    /// What the work asks for when nothing fails.
    pub fn healthy(&mut self, journal: &'static str, sync: &'static str) -> Counts {
        self.cluster.reset_counts();
        let work = self.work(journal, sync, "").expect("nothing failed");
        assert!(work.error.is_none(), "{:?}", work.error);
        let counts = self.cluster.counts(WORKS);
        self.clear();
        counts
    }

    pub fn run(&mut self, case: &Case) -> Run {
        let fault = self.cluster.inject(case.fault());
        let parameters = match case.times {
            Times::Ever if self.vfs == "turnstile" => BRIEFLY,
            _ => "",
        };
        let start = Instant::now();
        let work = self.work(case.journal, case.sync, parameters);
        let time = start.elapsed();
        self.cluster.lift_all();
        if case.crash {
            self.cluster.crash();
        }
        let work = match work {
            Ok(_) if case.times == Times::Ever && time > SOON => {
                Failure::of(Flaw::Ended, format!("only after {time:?}"))
            }
            work => work,
        };
        let result = work.and_then(|work| self.judge(case, &work));
        let fired = self.cluster.fired(fault);
        let flaw = result.as_ref().err().map(|failure| failure.flaw);
        if matches!(flaw, Some(Flaw::Ended | Flaw::Stuck)) {
            self.workers = [Worker::new(), Worker::new()];
        }
        self.clear();
        Run {
            fired,
            time,
            result,
        }
    }

    fn path(&self, node: usize) -> PathBuf {
        self.cluster.path(node).join(NAME)
    }

    fn work(
        &mut self,
        journal: &'static str,
        sync: &'static str,
        parameters: &str,
    ) -> Result<Work, Failure> {
        let order = Order {
            verb: "work",
            vfs: self.vfs,
            parameters,
            journal,
            sync,
            seed: self.seed,
            path: &self.path(WORKS),
        };
        self.workers[WORKS].tell(&order);
        let end = Instant::now() + PATIENCE;
        let mut commits = 0;
        let mut misread = Ok(());
        loop {
            let said = match self.workers[WORKS].hear(end) {
                Ok(said) => said,
                Err(what) => return Failure::of(Flaw::Ended, format!("the worker {what}")),
            };
            let fields: Vec<&str> = said.split(['\t', ' ']).collect();
            match fields[..] {
                ["commit"] => commits += 1,
                ["saw", digest] if digest == self.states[commits].to_string() => {}
                ["saw", digest] => {
                    let what = format!("after commit {commits} {}", self.state(digest));
                    misread = Failure::of(Flaw::Read, what);
                }
                ["done"] => {
                    return misread.map(|()| Work {
                        commits,
                        error: None,
                    });
                }
                ["failed", step, ..] => {
                    let message = said.split('\t').nth(2).unwrap_or_default().to_owned();
                    let error = Some((step.to_owned(), message));
                    return misread.map(|()| Work { commits, error });
                }
                _ => panic!("{said}"),
            }
        }
    }

    fn state(&self, digest: &str) -> String {
        let known = |state: &u64| state.to_string() == digest;
        match self.states.iter().position(known) {
            Some(at) => format!("the state of commit {at}"),
            None => "no state that ever was".to_owned(),
        }
    }

    fn judge(&mut self, case: &Case, work: &Work) -> Result<(), Failure> {
        // The error first, if nothing worse happened.
        let after = self.look(case, work);
        let Some((step, message)) = &work.error else {
            return after;
        };
        let said = format!("{step} after commit {}: {message}", work.commits);
        match after {
            Err(Failure { flaw, what }) => Failure::of(flaw, format!("{what}; {said}")),
            Ok(()) if case.times == Times::Ever => Ok(()),
            Ok(()) => Failure::of(Flaw::Error, said),
        }
    }

    /// What the other node finds: stock SQLite as well as turnstile, either of them first.
    fn look(&mut self, case: &Case, work: &Work) -> Result<(), Failure> {
        let in_commit = work
            .error
            .as_ref()
            .is_some_and(|(step, _)| step == "commit");
        let undone = case.may_undo();
        let first = work.commits - usize::from(undone && work.commits > 0);
        let last = work.commits + usize::from(in_commit);
        let mut both = [self.vfs, "unix"];
        if case.n % 4 < 2 {
            both.reverse();
        }
        for (vfs, verb) in both.into_iter().zip(["look", "look and write"]) {
            let order = Order {
                verb,
                vfs,
                parameters: "",
                journal: case.journal,
                sync: case.sync,
                seed: self.seed,
                path: &self.path(LOOKS),
            };
            self.workers[LOOKS].tell(&order);
            let said = match self.workers[LOOKS].hear(Instant::now() + PATIENCE) {
                Ok(said) => said,
                Err(what) => return Failure::of(Flaw::Stuck, format!("{vfs} looks and {what}")),
            };
            let found = match said.split_once(' ') {
                Some(("found", digest)) => digest,
                Some(("broken", what)) => return Failure::of(Flaw::Broken, what),
                _ => return Failure::of(Flaw::Stuck, format!("{vfs} looks: {said}")),
            };
            let known = |state: &u64| state.to_string() == found;
            match self.states.iter().position(known) {
                Some(at) if (first..=last).contains(&at) => {}
                Some(at) if at < first => {
                    let what = format!("{vfs} finds {at} of {} commits", work.commits);
                    return Failure::of(Flaw::Lost, what);
                }
                at => {
                    let what = format!("{vfs} finds {at:?} after {} commits", work.commits);
                    return Failure::of(Flaw::Half, what);
                }
            }
        }
        Ok(())
    }

    /// A new directory, as far as anybody can see.
    fn clear(&self) {
        let files = std::fs::read_dir(self.cluster.backing()).expect("the backing directory");
        for file in files {
            let file = file.expect("an entry").path();
            std::fs::remove_file(file).expect("a file");
        }
        // What files that are no more have not synced.
        self.cluster.crash();
    }
}
