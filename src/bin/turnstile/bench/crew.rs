//! The writers of one round as their parent sees them.
//!
//! - They are started by `exec` of this very program, so each is a fresh process with nothing
//!   inherited but three descriptors.
//! - They share one pipe as standard input: the gate. All of them block in `read` until the
//!   parent closes its end. They share another one as standard output, for their reports. So the
//!   parent has the same few descriptors for a thousand writers as for one.
//! - They are in a process group of their own: Ctrl-C reaches the parent alone, and one `killpg`
//!   reaches all of them.
//! - Nobody survives a `Crew`: dropping it kills and reaps whoever is left. A parent that is
//!   killed itself takes them along (`PR_SET_PDEATHSIG`, see [`super::writer`]); that signal
//!   follows the *thread* that started them, so a crew is started by the main thread.

use std::io::{self, BufReader, PipeReader, PipeWriter, Write, pipe};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::messages::{Orders, Report};
use super::pipe as frames;
use crate::Failure;

/// A heap that is trimmed when a connection is closed and grown when the next one is opened costs up to a sixth of such
/// a write in memory (glibc's `systrim`). Whether it is depends on where a few bytes came to lie, for each VFS anew.
const MALLOC: [(&str, &str); 1] = [("MALLOC_TRIM_THRESHOLD_", "1000000000")];

/// All writers of a round.
pub struct Crew {
    children: Vec<Child>,
    gate: Option<PipeWriter>,
    reports: Receiver<(u32, Report)>,
}

impl Crew {
    /// Starts `writers` writers, telling `progress` how many there are by now; it answers whether
    /// to go on.
    pub fn start(
        writers: u32,
        orders: &Orders,
        mut progress: impl FnMut(u32) -> bool,
    ) -> Result<Self, Failure> {
        allow_processes(writers);
        let (gate, opener) = pipe()?;
        let (from_writers, to_parent) = pipe()?;
        let mut crew = Self {
            children: Vec::with_capacity(writers as usize),
            gate: Some(opener),
            reports: listen(from_writers)?,
        };
        let text = serde_json::to_string(orders)
            .map_err(|e| format!("{}: {e}; choose another --dir", orders.database.display()))?;
        for index in 0..writers {
            let leader = crew.children.first().map_or(0, |child| child.id() as i32);
            // Not `current_exe`: this is the running program even if its file was replaced.
            let started = Command::new("/proc/self/exe")
                .arg0("turnstile")
                .args(["bench-writer", &index.to_string(), &text])
                .envs(MALLOC)
                .process_group(leader)
                .stdin(Stdio::from(gate.try_clone()?))
                .stdout(Stdio::from(to_parent.try_clone()?))
                .spawn();
            match started {
                Ok(child) => crew.children.push(child),
                Err(error) => return Err(cannot_start(index, writers, &error)),
            }
            if !progress(index + 1) {
                break;
            }
        }
        Ok(crew)
    }

    /// Lets everybody go.
    pub fn open_gate(&mut self) {
        self.gate = None;
    }

    /// What the writers send. It ends when the last of them has.
    pub fn reports(&self) -> &Receiver<(u32, Report)> {
        &self.reports
    }

    /// The first writer that has ended already, and how.
    pub fn first_casualty(&mut self) -> Option<(usize, ExitStatus)> {
        let mut ended = self.children.iter_mut().enumerate();
        ended.find_map(|(index, child)| Some((index, child.try_wait().ok()??)))
    }

    /// Kills whoever is left.
    pub fn kill(&self) {
        if let Some(leader) = self.children.first() {
            // Safe from hitting a stranger: a group lives until its last member is reaped, and
            // `reap` takes the members out of `children`.
            let _ = killpg(Pid::from_raw(leader.id() as i32), Signal::SIGKILL);
        }
    }

    /// Waits until all have ended, and says how each did.
    pub fn reap(&mut self) -> Vec<io::Result<ExitStatus>> {
        self.gate = None;
        self.children
            .drain(..)
            .map(|mut child| child.wait())
            .collect()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.kill();
        self.reap();
    }
}

/// Whether a writer ended otherwise than by having written, in the words of a shell.
pub fn abnormal(status: &ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exited with code {code}")),
        (_, Some(number)) => {
            let name = Signal::try_from(number)
                .map_or_else(|_| format!("signal {number}"), |s| s.to_string());
            Some(format!("was killed by {name}"))
        }
        _ => Some(status.to_string()),
    }
}

/// Reads on a thread of its own: a full pipe would keep the writers from ending.
fn listen(pipe: PipeReader) -> io::Result<Receiver<(u32, Report)>> {
    let (sender, receiver) = channel();
    let read = move || {
        let mut pipe = BufReader::with_capacity(1 << 16, pipe);
        let end = frames::receive(&mut pipe, |writer, bytes| {
            let report = serde_json::from_slice(bytes)
                .unwrap_or_else(|e| Report::CannotStart(format!("its report cannot be read: {e}")));
            let _ = sender.send((writer, report));
        });
        if let Err(error) = end {
            let _ = writeln!(io::stderr(), "turnstile: the writers' pipe: {error}");
        }
    };
    thread::Builder::new()
        .name("reports".to_owned())
        .spawn(read)?;
    Ok(receiver)
}

/// Raises the soft limit on processes as far as the hard one lets it.
fn allow_processes(writers: u32) {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NPROC)
        && soft < hard
        && soft < u64::from(writers) + 1024
    {
        let _ = setrlimit(Resource::RLIMIT_NPROC, hard, hard);
    }
}

fn cannot_start(started: u32, writers: u32, error: &io::Error) -> Failure {
    let remedy = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => {
            let limit = getrlimit(Resource::RLIMIT_NPROC).map_or(0, |(soft, _)| soft);
            format!(
                "; this user may have {limit} processes (ulimit -u) and a container may have \
                 its own limit (pids.max): raise them or use fewer --writers"
            )
        }
        Some(Errno::ENOMEM) => "; use fewer --writers or a machine with more memory".to_owned(),
        _ => String::new(),
    };
    format!("only {started} of {writers} writers could be started: {error}{remedy}").into()
}
