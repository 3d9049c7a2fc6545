//! Randomized exponential backoff, for where no queue can serve.

use crate::turn::mapped::random;

/// Steps that double from `first` to `cap`, each at random between half of it and all of it.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Nanoseconds.
    pub first: u64,
    /// Nanoseconds.
    pub cap: u64,
}

impl Backoff {
    /// The sleep before try number `attempt`, in nanoseconds.
    pub fn step(self, attempt: u32) -> u64 {
        let full = self
            .first
            .saturating_mul(1 << attempt.min(30))
            .min(self.cap)
            .max(2);
        full / 2 + u64::from(random()) % (full / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_up_to_the_cap_and_are_never_in_step() {
        let backoff = Backoff {
            first: 1_000,
            cap: 64_000,
        };
        for attempt in 0..80 {
            let full = (1_000_u64 << attempt.min(6)).min(64_000);
            let steps: Vec<u64> = (0..50).map(|_| backoff.step(attempt)).collect();
            assert!(
                steps.iter().all(|s| (full / 2..=full).contains(s)),
                "{steps:?}"
            );
            assert!(steps.iter().any(|s| s != &steps[0]));
        }
        assert!(Backoff { first: 0, cap: 0 }.step(9) <= 2);
    }
}
