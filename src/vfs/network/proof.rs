//! Whether a file may still be read and changed: its health, and the proof that its lock is still ours. See
//! `durable::fence`.

use super::{Database, Health, Network, Role, paths};
use crate::durable::descriptor::status_at;
use crate::durable::episode::Episode;
use crate::durable::fence::Proof;
use crate::durable::transient::{Call, passes};
use crate::sqlite::abi::*;
use crate::text::PathEnd;
use nix::errno::Errno;

/// Why a call is not made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    TimeOver,
    LockLost,
}

impl Network {
    /// Why nothing is to be changed any more, if so.
    pub fn ails(&self) -> Option<Health> {
        let owner = self
            .owner()
            .map_or(Health::Sound, |owner| owner.health.get());
        let sound = |health: &Health| *health != Health::Sound;
        Some(self.health.get())
            .filter(sound)
            .or(Some(owner).filter(sound))
    }

    /// Whether nothing may be done, which is said, or cannot be known now. After a call that was given up the lock
    /// is in doubt, and proved before anything else: the rollback that follows would write over another's commit.
    pub fn stops(&self, call: Call) -> bool {
        if let Some(health) = self.ails_for(call) {
            self.refuse(call, health);
            return true;
        }
        let doubt = self
            .owner()
            .and_then(Network::database)
            .map(|d| &d.in_doubt);
        if !doubt.is_some_and(|doubt| doubt.get()) {
            return false;
        }
        let is_ours = match self.prove(call) {
            Proof::Ours => true,
            Proof::Lost(why) => {
                self.fence(call, why);
                false
            }
            Proof::Unknown(errno) => self.may_go_on(&mut self.episode(call, None), errno).is_ok(),
        };
        if is_ours {
            doubt.inspect(|doubt| doubt.set(false));
        }
        !is_ours
    }

    /// A reader whose lock was lost must not see a mix of two versions. A journal of which something was lost must not
    /// be played back.
    fn ails_for(&self, call: Call) -> Option<Health> {
        match (&self.role, self.ails()?) {
            (Role::Database(_), Health::Poisoned) if !call.changes() => None,
            (_, health) => Some(health),
        }
    }

    /// After an error that passes: waits, and proves that the lock is still ours. An error: nothing is tried again.
    pub fn may_go_on(&self, episode: &mut Episode<'_>, mut errno: Errno) -> Result<(), GivenUp> {
        loop {
            if !episode.goes_on(errno) {
                episode.failed("raise retry_ms, or see to the file system");
                self.is_exhausted.set(true);
                self.doubt();
                return Err(GivenUp::TimeOver);
            }
            match self.prove(episode.call()) {
                Proof::Ours => return Ok(()),
                Proof::Lost(why) => {
                    self.fence(episode.call(), why);
                    return Err(GivenUp::LockLost);
                }
                Proof::Unknown(why) => errno = why,
            }
        }
    }

    /// A call under a lock was given up.
    pub fn doubt(&self) {
        if self.policy.retry == 0 {
            return;
        }
        if let Some(owner) = self.owner()
            && let Some(database) = owner.database()
            && owner.lock_state() != SQLITE_LOCK_NONE
        {
            database.in_doubt.set(true);
        }
    }

    /// The lock was lost: nothing more of this transaction.
    pub fn fence(&self, call: Call, why: &'static str) {
        let owner = self.owner().unwrap_or(self);
        if owner.health.get() == Health::Sound {
            owner.health.set(Health::Fenced);
        }
        if let Some(descriptor) = owner.descriptor {
            descriptor.drop_pages();
        }
        owner.shim.log(
            SQLITE_IOERR,
            format_args!(
                "lost the lock of {} ({why}); {call} is not made again, the transaction ends",
                PathEnd(owner.path)
            ),
        );
    }

    /// Whether the lock is still ours; see `durable::fence`.
    pub fn prove(&self, call: Call) -> Proof {
        if crate::inject::no_fence() {
            return Proof::Ours;
        }
        match &self.role {
            Role::Database(database) => self.prove_database(database, call),
            Role::Journal(journal) => match self.owner() {
                Some(owner) => owner.prove(call),
                None if call.changes() && !journal.is_super => Proof::Lost("no lock is held"),
                None => Proof::Ours,
            },
        }
    }

    fn prove_database(&self, database: &Database, call: Call) -> Proof {
        let level = self.lock_state();
        if level == SQLITE_LOCK_NONE && !call.changes() {
            return Proof::Ours;
        }
        let Some(descriptor) = self.descriptor.filter(|_| level != SQLITE_LOCK_NONE) else {
            return Proof::Lost("nothing proves that it is ours");
        };
        let again = descriptor.lock_again(level);
        if matches!(again, Err(Errno::EAGAIN | Errno::EACCES)) {
            return Proof::Lost("another process has it");
        }
        let proof = again.and_then(|()| {
            let status = self.fresh_status(descriptor)?;
            let is_at_its_path = match status_at(self.path) {
                Ok(there) => there.identity == status.identity,
                Err(Errno::ENOENT) => false,
                Err(errno) => return Err(errno),
            };
            if status.links == 0 || !is_at_its_path {
                return Ok(Proof::Lost("another file is at its path"));
            }
            if database
                .version
                .get()
                .is_some_and(|v| v != status.version())
            {
                return Ok(Proof::Lost("another process has written"));
            }
            paths::pass_caches(self)?;
            descriptor.drop_pages();
            let mut room = Default::default();
            if !self.belief.holds(self.belief.now(descriptor, &mut room)?) {
                return Ok(Proof::Lost("another process has written"));
            }
            if level >= SQLITE_LOCK_RESERVED {
                self.prove_journal(database, call)
            } else if self.belief.is_blank() {
                // Nothing is believed yet, and a hot journal may be what is looked for.
                Ok(Proof::Ours)
            } else if paths::of_journal(self.path, |path| paths::is_hot(self, path))? {
                Ok(Proof::Lost("there is a hot journal"))
            } else {
                Ok(Proof::Ours)
            }
        });
        match proof {
            Ok(proof) => proof,
            Err(errno) if passes(Call::Look, errno) || errno == Errno::ENOLCK => {
                Proof::Unknown(errno)
            }
            Err(_) => Proof::Lost("nothing proves that it is ours"),
        }
    }

    /// A writer's journal is as this transaction has left it.
    fn prove_journal(&self, database: &Database, call: Call) -> nix::Result<Proof> {
        // While we write there must be something that another writer would have changed: a time of ours, or a journal.
        let has_version = database.version.get().is_some();
        let Some(identity) = database.journal.get() else {
            return Ok(match has_version || !call.changes() {
                true => Proof::Ours,
                false => Proof::Lost("nothing proves that it is ours"),
            });
        };
        match paths::of_journal(self.path, |path| paths::fresh_status(self, path)) {
            Ok(there) if there.identity == identity => {}
            // It was to be deleted, and that may have been done; but not by whoever has rolled it back, since the time
            // of the database's last change is ours.
            Err(Errno::ENOENT) if call == Call::Delete => {
                let is_exact = database
                    .version
                    .get()
                    .is_some_and(|(time, _)| time.nanos != 0);
                return Ok(match is_exact {
                    true => Proof::Ours,
                    false => {
                        Proof::Lost("the journal is gone, and nothing tells who has deleted it")
                    }
                });
            }
            Ok(_) | Err(Errno::ENOENT) => return Ok(Proof::Lost("the journal is another's")),
            Err(errno) => return Err(errno),
        }
        // SAFETY: it is taken out when the journal is closed.
        let open = database
            .open_journal
            .get()
            .map(|open| unsafe { open.as_ref() });
        if let Some(Network {
            descriptor: Some(descriptor),
            belief,
            ..
        }) = open
        {
            self.fresh_status(*descriptor)?;
            descriptor.drop_pages();
            let mut room = Default::default();
            let header = belief.now(*descriptor, &mut room)?;
            if !belief.holds(header) {
                return Ok(Proof::Lost("the journal was overwritten"));
            }
            if has_version || belief.proves(header) || !call.changes() {
                return Ok(Proof::Ours);
            }
        } else if has_version || !call.changes() {
            return Ok(Proof::Ours);
        }
        Ok(Proof::Lost("nothing proves that it is ours"))
    }
}
