//! How many commands came in a time, for limits on rates.
//!
//! It owns counting over all sessions of this process. It must not know what a rule says, or who may
//! do what.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use interceptor_core::policy::Rate;
use interceptor_core::session::Rates;

/// Rules and clients that are counted at the same time; those of which nothing was heard for two of
/// their times make room, and where there is still none, commands are refused.
pub(super) const COUNTED_MAX: usize = 65_536;

/// Counts of all sessions.
#[derive(Default)]
pub(super) struct CountedRates {
    windows: Mutex<HashMap<(String, String), Window>>,
}

/// Two times of a limit, one after the other. What came in the last `per` lies between both: the
/// share of the first that is still in it, and all of the second.
struct Window {
    began_ns: u64,
    per_ns: u64,
    before: u32,
    count: u32,
}

impl Window {
    fn new(now_ns: u64, per_ns: u64) -> Self {
        Self {
            began_ns: now_ns,
            per_ns,
            before: 0,
            count: 0,
        }
    }

    /// Goes on to the time that `now_ns` is in.
    fn advance(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.began_ns) / self.per_ns;
        if passed > 0 {
            self.before = if passed == 1 { self.count } else { 0 };
            self.count = 0;
            self.began_ns = self
                .began_ns
                .saturating_add(passed.saturating_mul(self.per_ns));
        }
    }

    fn admit(&mut self, most: u32, now_ns: u64) -> bool {
        self.advance(now_ns);
        let within = now_ns.saturating_sub(self.began_ns);
        let left = u128::from(self.per_ns.saturating_sub(within));
        // Rounded up: when in doubt, one too many.
        let before = (u128::from(self.before) * left).div_ceil(u128::from(self.per_ns));
        let admitted = before + u128::from(self.count) < u128::from(most);
        self.count += u32::from(admitted);
        admitted
    }

    fn is_over(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.began_ns) >= self.per_ns.saturating_mul(2)
    }
}

impl Rates for CountedRates {
    fn admit(&self, rule: &str, who: &str, rate: Rate, monotonic_ns: u64) -> bool {
        let per_ns = u64::try_from(rate.per.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        // Nothing in here can leave the map half changed.
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (rule.to_owned(), who.to_owned());
        if windows.len() >= COUNTED_MAX && !windows.contains_key(&key) {
            windows.retain(|_, window| !window.is_over(monotonic_ns));
            if windows.len() >= COUNTED_MAX {
                tracing::warn!(
                    limit = COUNTED_MAX,
                    "too many clients are counted for limits on rates: a command is refused"
                );
                return false;
            }
        }
        let window = windows
            .entry(key)
            .or_insert_with(|| Window::new(monotonic_ns, per_ns));
        if window.per_ns != per_ns {
            // The policy changed.
            *window = Window::new(monotonic_ns, per_ns);
        }
        window.admit(rate.count, monotonic_ns)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(count: u32, seconds: u64) -> Rate {
        Rate {
            count,
            per: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn no_time_as_long_as_the_limits_holds_more_than_it_says() {
        let rates = CountedRates::default();
        let mut went = Vec::new();
        // Four times a second for three minutes, with a pause in it.
        for at in (0..720_u64).map(|step| step * SECOND / 4) {
            let pause = (70 * SECOND..130 * SECOND).contains(&at);
            if !pause && rates.admit("a", "alice", rate(30, 60), at) {
                went.push(at);
            }
        }
        for first in &went {
            let within = went
                .iter()
                .filter(|at| (*first..first + 60 * SECOND).contains(at));
            let count = within.count();
            assert!(count <= 30, "{count} from {first}");
        }
        assert!(went.len() >= 60, "{}", went.len());
    }

    #[test]
    fn each_rule_and_each_client_counts_for_itself() {
        let rates = CountedRates::default();
        for (rule, who) in [("a", "alice"), ("a", "bob"), ("b", "alice")] {
            assert!(rates.admit(rule, who, rate(1, 60), 0));
            assert!(!rates.admit(rule, who, rate(1, 60), SECOND));
        }
    }

    #[test]
    fn who_is_not_heard_of_makes_room_and_without_room_nothing_goes() {
        let rates = CountedRates::default();
        for client in 0..COUNTED_MAX {
            assert!(rates.admit("a", &client.to_string(), rate(1, 60), 0));
        }
        assert!(!rates.admit("a", "one more", rate(1, 60), 119 * SECOND));
        assert!(rates.admit("a", "one more", rate(1, 60), 120 * SECOND));
    }
}
