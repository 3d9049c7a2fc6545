//! The parts, each by itself.

use crate::cluster::faults::{Fault, Plan, Verdict};
use crate::cluster::locks::{Bytes, Kind, Lock, Locks, Owner};
use crate::cluster::unsynced::Unsynced;
use crate::cluster::{Errno, Op};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

const A: Owner = Owner { node: 0, id: 7 };
/// The same number on the other node is somebody else.
const B: Owner = Owner { node: 1, id: 7 };
const FILE: u64 = 42;

fn lock(owner: Owner, kind: Kind, first: u64, last: u64) -> Lock {
    Lock {
        owner,
        kind,
        bytes: Bytes { first, last },
        handle: 1,
        pid: 1,
    }
}

#[test]
fn write_locks_exclude_and_read_locks_share() {
    let mut locks = Locks::<()>::default();
    let first = lock(A, Kind::Read, 0, 9);
    locks.set(FILE, first).unwrap();
    locks.set(FILE, lock(B, Kind::Read, 5, 20)).unwrap();
    assert_eq!(locks.set(FILE, lock(B, Kind::Write, 9, 9)), Err(first));
    locks.set(FILE, lock(B, Kind::Write, 10, 20)).unwrap();
    assert!(locks.set(FILE, lock(A, Kind::Read, 20, 30)).is_err());
    locks.set(FILE, lock(A, Kind::Read, 21, u64::MAX)).unwrap();
    // Another file is another matter.
    locks.set(FILE + 1, lock(A, Kind::Write, 0, 99)).unwrap();
}

#[test]
fn an_owner_replaces_and_splits_its_own_locks() {
    let mut locks = Locks::<()>::default();
    locks.set(FILE, lock(A, Kind::Write, 0, 100)).unwrap();
    locks.set(FILE, lock(A, Kind::Read, 10, 20)).unwrap();
    locks.unlock(
        FILE,
        A,
        Bytes {
            first: 50,
            last: 59,
        },
    );
    let mut held: Vec<_> = locks
        .held(FILE)
        .iter()
        .map(|lock| (lock.bytes.first, lock.bytes.last, lock.kind))
        .collect();
    held.sort_by_key(|lock| lock.0);
    let (r, w) = (Kind::Read, Kind::Write);
    assert_eq!(held, [(0, 9, w), (10, 20, r), (21, 49, w), (60, 100, w)]);
    locks.set(FILE, lock(B, Kind::Write, 50, 59)).unwrap();
    locks.set(FILE, lock(B, Kind::Read, 20, 20)).unwrap();
    assert!(locks.conflict(FILE, &lock(B, Kind::Read, 60, 60)).is_some());
}

#[test]
fn who_waits_is_let_in_by_whatever_frees_the_bytes() {
    let mut locks = Locks::default();
    let all = |owner, kind| lock(owner, kind, 0, 9);
    locks.set(FILE, all(A, Kind::Write)).unwrap();
    assert!(locks.wait(FILE, all(B, Kind::Read), "b").is_empty());
    // A write lock that becomes a read lock,
    assert_eq!(locks.set(FILE, all(A, Kind::Read)), Ok(vec!["b"]));
    // an unlock,
    assert!(locks.wait(FILE, all(B, Kind::Write), "b").is_empty());
    let half = Bytes { first: 0, last: 4 };
    assert!(locks.unlock(FILE, A, half).is_empty());
    assert_eq!(locks.unlock(FILE, A, Bytes { first: 0, last: 9 }), ["b"]);
    // a close, an eviction.
    assert!(locks.wait(FILE, all(A, Kind::Write), "a").is_empty());
    assert_eq!(locks.drop_if(|_, lock| lock.owner.node == 1), ["a"]);
    assert_eq!(locks.held(FILE).len(), 1);
    assert_eq!(locks.wait(FILE, all(A, Kind::Read), "at once"), ["at once"]);
}

/// Many random writes and truncations give what they give a plain array of bytes: before a sync, and
/// after it in the backing file.
#[test]
fn unsynced_data_reads_as_written() {
    let seed = 1;
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..50 {
        let mut backing = tempfile::tempfile().unwrap();
        let mut expected = vec![1; random.usize(..20_000)];
        backing.write_all(&expected).unwrap();
        let mut unsynced = Unsynced::new(&backing).unwrap();
        for step in 0..40 {
            let at = random.usize(..20_000);
            if random.u8(..4) == 0 {
                expected.resize(at, 0);
                unsynced.truncate(at as u64);
            } else {
                let data = vec![random.u8(..); random.usize(..9_000)];
                expected.resize(expected.len().max(at + data.len()), 0);
                expected[at..at + data.len()].copy_from_slice(&data);
                unsynced.write(&backing, at as u64, &data).unwrap();
            }
            let what = format!("seed {seed}, round {round}, step {step}");
            let all = unsynced.read(&backing, 0, 40_000).unwrap();
            assert!(all == expected, "{what}");
            let part = unsynced.read(&backing, at as u64, 5_000).unwrap();
            let end = expected.len().min(at + 5_000).max(at);
            assert!(part == expected[at.min(expected.len())..end.min(expected.len())]);
        }
        unsynced.apply(&backing).unwrap();
        let mut synced = vec![0; expected.len() + 1];
        let length = backing.read_at(&mut synced, 0).unwrap();
        assert!(synced[..length] == expected, "seed {seed}, round {round}");
    }
}

fn strikes(plan: &mut Plan, node: usize, op: Op, path: &str) -> bool {
    plan.strike(node, op, || path.into()).is_some()
}

#[test]
fn a_fault_strikes_what_it_is_about_and_as_often_as_it_is_told() {
    let mut plan = Plan::default();
    let fault = Fault::at(&[Op::Unlink, Op::Rename])
        .of("-journal")
        .on(1)
        .nth(3)
        .times(2)
        .lie(Errno::EIO);
    let id = plan.inject(fault);
    assert!(!strikes(&mut plan, 0, Op::Unlink, "/a-journal"));
    assert!(!strikes(&mut plan, 1, Op::Write, "/a-journal"));
    assert!(!strikes(&mut plan, 1, Op::Unlink, "/a"));
    let struck: Vec<bool> = (0..6)
        .map(|_| strikes(&mut plan, 1, Op::Unlink, "/a-journal"))
        .collect();
    assert_eq!(struck, [false, false, true, true, false, false]);
    assert_eq!(plan.fired(id), 2);
}

#[test]
fn of_two_faults_the_first_one_strikes() {
    let mut plan = Plan::default();
    let first = plan.inject(Fault::at(&[Op::Read]).answer(Errno::EIO));
    let second = plan.inject(Fault::at(&[Op::Read]).late(Duration::from_secs(1)));
    let refused = Verdict {
        errno: Some(Errno::EIO),
        ..Verdict::default()
    };
    let read = |plan: &mut Plan| plan.strike(0, Op::Read, || "/a".into());
    assert_eq!(read(&mut plan), Some(refused));
    plan.lift(first);
    assert_eq!(read(&mut plan).map(|v| v.late.as_secs()), Some(1));
    assert_eq!((plan.fired(first), plan.fired(second)), (1, 1));
    plan.lift_all();
    assert_eq!(read(&mut plan), None);
}

#[test]
fn chance_is_replayed_by_its_seed() {
    let play = |seed| {
        let mut plan = Plan::default();
        plan.inject(Fault::at(&[Op::Write]).chance(0.03, seed));
        let strikes = (0..10_000).filter(|_| strikes(&mut plan, 0, Op::Write, "/a"));
        strikes.collect::<Vec<i32>>()
    };
    assert_eq!(play(1), play(1));
    assert_ne!(play(1), play(2));
    assert!((200..400).contains(&play(1).len()), "{}", play(1).len());
}

#[test]
fn a_lasting_fault_ends() {
    let mut plan = Plan::default();
    plan.inject(Fault::at(&[Op::Read]).lasting(Duration::from_millis(50)));
    assert!(strikes(&mut plan, 0, Op::Read, "/a"));
    std::thread::sleep(Duration::from_millis(60));
    assert!(!strikes(&mut plan, 0, Op::Read, "/a"));
}
