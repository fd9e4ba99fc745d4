//! Remembering: which addresses a name has, which it had, and until when those count.
//!
//! It owns the rules by which addresses come and go. It asks nobody and waits for nothing: answers
//! and the time are handed in.
//!
//! ```text
//!  in an answer ──▶ counts ──▶ in no answer any more ──▶ counts until the last of: its TTL is over,
//!                      ▲                  │              no session uses it; and a grace longer
//!                      └── in an answer ──┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{ADDRESSES_HELD_MAX, ADDRESSES_MAX, Answer, LookupError, REFRESH_MAX, REFRESH_MIN};

/// Addresses that a message lists before it only counts.
const LISTED_MAX: usize = 8;

/// All names and their addresses.
#[derive(Debug, Clone)]
pub struct Names {
    names: BTreeMap<String, Name>,
    grace: Duration,
    /// Counts addresses as they come: whose an address was first is told by it.
    order: u64,
}

#[derive(Debug, Clone)]
struct Name {
    addresses: BTreeMap<IpAddr, Address>,
    due: Instant,
    is_asked: bool,
    /// In what state the last look-up left it, in words; `None` is well.
    trouble: Option<String>,
    failures: u32,
}

#[derive(Debug, Clone)]
struct Address {
    since: Instant,
    order: u64,
    ttl_over: Instant,
    /// Since when it is in no answer.
    left: Option<Instant>,
    /// When it was last seen in use after it left.
    used: Option<Instant>,
}

/// A name, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRow {
    /// The name.
    pub name: String,
    /// Its addresses that count.
    pub addresses: Vec<AddressRow>,
    /// Why the last look-up brought less than it should have.
    pub trouble: Option<String>,
}

/// An address of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRow {
    /// The address.
    pub address: IpAddr,
    /// Since when it counts.
    pub since: Instant,
    /// Less than that of another address that came later.
    pub order: u64,
    /// Whether the last answer has it.
    pub is_current: bool,
}

impl Names {
    /// None yet. An address stays `grace` longer than anything needs it.
    pub fn new(grace: Duration) -> Self {
        Self {
            names: BTreeMap::new(),
            grace,
            order: 0,
        }
    }

    /// Whether a name is known.
    pub fn knows(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Adds a name with its first answer.
    pub fn insert(&mut self, name: String, answer: Answer, now: Instant) -> Vec<String> {
        let empty = Name {
            addresses: BTreeMap::new(),
            due: now,
            is_asked: false,
            trouble: None,
            failures: 0,
        };
        self.names.insert(name.clone(), empty);
        self.apply(&name, Ok(answer), now)
    }

    /// Adds addresses that a known name had before this process: as if they had just left.
    pub fn remember(&mut self, text: &str, addresses: &BTreeSet<IpAddr>, now: Instant) {
        let Some(name) = self.names.get_mut(text) else {
            return;
        };
        for address in addresses {
            if name.addresses.len() >= ADDRESSES_HELD_MAX {
                return;
            }
            self.order = self.order.saturating_add(1);
            name.addresses.entry(*address).or_insert(Address {
                since: now,
                order: self.order,
                ttl_over: now,
                left: Some(now),
                used: None,
            });
        }
    }

    /// Begins the grace of addresses that have left anew.
    pub fn restart_grace(&mut self, now: Instant) {
        let addresses = self.names.values_mut();
        let addresses = addresses.flat_map(|name| name.addresses.values_mut());
        for state in addresses.filter(|state| state.left.is_some()) {
            state.used = Some(now);
        }
    }

    /// Forgets all names but these.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.names.retain(|name, _| wanted(name));
    }

    /// Takes the names whose answers are too old; they count as asked until [`Names::apply`].
    pub fn take_due(&mut self, now: Instant, count_max: usize) -> Vec<String> {
        let due = self.names.iter_mut();
        let due = due.filter(|(_, name)| !name.is_asked && name.due <= now);
        due.take(count_max)
            .map(|(text, name)| {
                name.is_asked = true;
                text.clone()
            })
            .collect()
    }

    /// Forgets who is being asked for: an answer was lost.
    pub fn ask_again(&mut self) {
        for name in self.names.values_mut() {
            name.is_asked = false;
        }
    }

    /// When the next name is to be asked for.
    pub fn next_due(&self) -> Option<Instant> {
        let names = self.names.values().filter(|name| !name.is_asked);
        names.map(|name| name.due).min()
    }

    /// Takes an answer in, and says in words what changed.
    pub fn apply(
        &mut self,
        text: &str,
        answer: Result<Answer, LookupError>,
        now: Instant,
    ) -> Vec<String> {
        let mut order = self.order;
        // It may have gone with its policy while it was asked for.
        let Some(name) = self.names.get_mut(text) else {
            return Vec::new();
        };
        name.is_asked = false;
        let mut said = Vec::new();
        let (wait, trouble) = match answer {
            Ok(answer) => {
                let came = name.take(&answer, now, &mut order);
                if !came.is_empty() {
                    said.push(format!("{text}: {}", came.join(", ")));
                }
                let trouble = trouble_of(&answer, name.addresses.len());
                if answer.missing.is_some() {
                    name.failures = name.failures.saturating_add(1);
                } else {
                    name.failures = 0;
                }
                (answer.ttl.clamp(REFRESH_MIN, REFRESH_MAX), trouble)
            }
            Err(error) => {
                name.failures = name.failures.saturating_add(1);
                (REFRESH_MAX, Some(format!("{error}; its addresses stay")))
            }
        };
        let wait = match name.failures {
            0 => wait,
            failures => wait.min(backoff(failures)),
        };
        name.due = now + wait;
        if name.trouble != trouble {
            said.push(match &trouble {
                Some(trouble) => format!("{text}: {trouble}"),
                None => format!("{text}: it can be resolved again"),
            });
            name.trouble = trouble;
        }
        self.order = order;
        said
    }

    /// Lets go what nothing needs any more, and says in words what went.
    pub fn expire(&mut self, in_use: &BTreeSet<IpAddr>, now: Instant) -> Vec<String> {
        let grace = self.grace;
        let mut said = Vec::new();
        for (text, name) in &mut self.names {
            let mut gone = Vec::new();
            name.addresses.retain(|address, state| {
                let Some(left) = state.left else {
                    return true;
                };
                if in_use.contains(address) {
                    state.used = Some(now);
                    return true;
                }
                let needed = left.max(state.ttl_over).max(state.used.unwrap_or(left));
                let stays = now < needed + grace;
                if !stays {
                    gone.push(format!("- {address}"));
                }
                stays
            });
            if !gone.is_empty() {
                said.push(format!("{text}: {}", gone.join(", ")));
            }
        }
        said
    }

    /// The addresses that wait for their end.
    pub fn left(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = self.names.values().flat_map(|name| &name.addresses);
        let left = addresses.filter(|(_, state)| state.left.is_some());
        left.map(|(address, _)| *address)
    }

    /// The addresses of a name that count.
    pub fn addresses(&self, name: &str) -> impl Iterator<Item = AddressRow> {
        self.names.get(name).into_iter().flat_map(Name::rows)
    }

    /// All of it, by name.
    pub fn rows(&self) -> Vec<NameRow> {
        let names = self.names.iter();
        names
            .map(|(text, name)| NameRow {
                name: text.clone(),
                addresses: name.rows().collect(),
                trouble: name.trouble.clone(),
            })
            .collect()
    }
}

impl Name {
    /// Brings the addresses up to date; in words, those that are new.
    fn take(&mut self, answer: &Answer, now: Instant, order: &mut u64) -> Vec<String> {
        let ttl_over = now + answer.ttl;
        let mut came = Vec::new();
        for address in &answer.addresses {
            if let Some(known) = self.addresses.get_mut(address) {
                known.ttl_over = ttl_over;
                known.left = None;
                known.used = None;
            } else if self.addresses.len() < ADDRESSES_HELD_MAX {
                *order = order.saturating_add(1);
                let address_state = Address {
                    since: now,
                    order: *order,
                    ttl_over,
                    left: None,
                    used: None,
                };
                self.addresses.insert(*address, address_state);
                came.push(format!("+ {address}"));
            }
        }
        // Whether a family that could not be asked for still has an address is not known.
        let missing = answer.missing.as_ref().map(|(family, _)| *family);
        let absent = self.addresses.iter_mut().filter(|(address, _)| {
            !answer.addresses.contains(address)
                && !missing.is_some_and(|family| family.has(address))
        });
        for (_, state) in absent {
            state.left.get_or_insert(now);
        }
        came
    }

    fn rows(&self) -> impl Iterator<Item = AddressRow> {
        self.addresses.iter().map(|(address, state)| AddressRow {
            address: *address,
            since: state.since,
            order: state.order,
            is_current: state.left.is_none(),
        })
    }
}

/// 1 s after the first failure, then twice as long each time.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (REFRESH_MIN * 2_u32.pow(doublings)).min(REFRESH_MAX)
}

/// What about an answer is not as it should be.
fn trouble_of(answer: &Answer, held: usize) -> Option<String> {
    let mut parts = Vec::new();
    if !answer.refused.is_empty() {
        let refused = list(&answer.refused);
        parts.push(format!(
            "the answer's {refused} is refused: no server has such an address for others"
        ));
    }
    if answer.surplus > 0 {
        let surplus = answer.surplus;
        parts.push(format!(
            "{surplus} addresses beyond the {ADDRESSES_MAX} that a name may have are no targets"
        ));
    }
    if held >= ADDRESSES_HELD_MAX {
        parts.push(format!(
            "it had {ADDRESSES_HELD_MAX} addresses within a short time; more are no targets until some have gone"
        ));
    }
    if let Some((family, error)) = &answer.missing {
        parts.push(format!("its {family:?} addresses are not known: {error}"));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Some of them, and how many more.
pub(super) fn list<T: Display>(items: &BTreeSet<T>) -> String {
    let shown: Vec<String> = items.iter().take(LISTED_MAX).map(T::to_string).collect();
    let more = items.len().saturating_sub(LISTED_MAX);
    let end = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    shown.join(", ") + &end
}

#[cfg(test)]
mod tests {
    use super::super::lookup::Family;
    use super::*;

    const DB: &str = "orders-db.internal";
    const GRACE: Duration = Duration::from_secs(60);

    fn answer(addresses: &[&str], ttl_seconds: u64) -> Answer {
        Answer {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            refused: BTreeSet::new(),
            surplus: 0,
            ttl: Duration::from_secs(ttl_seconds),
            missing: None,
        }
    }

    fn shown(names: &Names) -> Vec<String> {
        let rows = names.addresses(DB);
        rows.map(|row| row.address.to_string()).collect()
    }

    fn known(now: Instant) -> Names {
        let mut names = Names::new(GRACE);
        let said = names.insert(DB.to_owned(), answer(&["10.0.0.1"], 5), now);
        assert_eq!(said, ["orders-db.internal: + 10.0.0.1"]);
        names
    }

    #[test]
    fn it_is_asked_for_when_the_ttl_is_over_within_bounds() {
        let start = Instant::now();
        for (ttl, wait) in [(0, 1), (5, 5), (60, 60), (86_400, 60)] {
            let mut names = Names::new(GRACE);
            names.insert(DB.to_owned(), answer(&["10.0.0.1"], ttl), start);
            assert_eq!(names.next_due(), Some(start + Duration::from_secs(wait)));
            let just_before = start + Duration::from_secs(wait) - Duration::from_millis(1);
            assert!(names.take_due(just_before, 9).is_empty());
            assert_eq!(names.take_due(start + Duration::from_secs(wait), 9), [DB]);
            // Asked once.
            assert_eq!(names.next_due(), None);
        }
    }

    #[test]
    fn an_address_outlives_its_answer_by_ttl_use_and_grace() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let none = BTreeSet::new();
        let one: BTreeSet<IpAddr> = ["10.0.0.1".parse().unwrap()].into();
        let mut names = Names::new(GRACE);
        names.insert(DB.to_owned(), answer(&["10.0.0.1"], 300), start);
        let said = names.apply(DB, Ok(answer(&["10.0.0.2"], 5)), at(60));
        assert_eq!(said, ["orders-db.internal: + 10.0.0.2"]);
        // Its TTL ran until 300, so the grace is over at 360.
        assert!(names.expire(&none, at(359)).is_empty());
        assert_eq!(shown(&names), ["10.0.0.1", "10.0.0.2"]);
        // In use it stays, and a grace longer.
        assert!(names.expire(&one, at(1000)).is_empty());
        assert!(names.expire(&none, at(1059)).is_empty());
        let said = names.expire(&none, at(1060));
        assert_eq!(said, ["orders-db.internal: - 10.0.0.1"]);
        assert_eq!(shown(&names), ["10.0.0.2"]);
        assert!(names.left().next().is_none());
    }

    #[test]
    fn an_address_that_comes_back_is_the_same() {
        let start = Instant::now();
        let mut names = known(start);
        names.apply(DB, Ok(answer(&["10.0.0.2"], 5)), start);
        assert!(names.left().next().is_some());
        let said = names.apply(DB, Ok(answer(&["10.0.0.1", "10.0.0.2"], 5)), start);
        assert!(said.is_empty(), "{said:?}");
        assert!(names.left().next().is_none());
        let orders: Vec<u64> = names.addresses(DB).map(|row| row.order).collect();
        assert_eq!(orders, [1, 2]);
    }

    #[test]
    fn what_a_name_had_before_stays_for_a_grace() {
        let start = Instant::now();
        let mut names = known(start);
        let before = ["10.0.0.1", "10.0.0.9"].map(|text| text.parse().unwrap());
        names.remember(DB, &before.into(), start);
        names.remember("other.internal", &before.into(), start);
        assert_eq!(shown(&names), ["10.0.0.1", "10.0.0.9"]);
        assert!(!names.knows("other.internal"));
        let later = start + GRACE / 2;
        names.restart_grace(later);
        assert!(names.expire(&BTreeSet::new(), start + GRACE).is_empty());
        let said = names.expire(&BTreeSet::new(), later + GRACE);
        assert_eq!(said, ["orders-db.internal: - 10.0.0.9"]);
    }

    #[test]
    fn failures_change_nothing_and_are_said_once() {
        let start = Instant::now();
        let mut names = known(start);
        let mut now = start;
        let mut waits = Vec::new();
        for turn in 0..9 {
            let said = names.apply(DB, Err(LookupError::TimedOut), now);
            assert_eq!(said.len(), usize::from(turn == 0), "{said:?}");
            let due = names.next_due().unwrap();
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(names.apply(DB, Err(LookupError::NoSuchName), now).len(), 1);
        assert!(names.expire(&BTreeSet::new(), now + 9 * GRACE).is_empty());
        assert_eq!(shown(&names), ["10.0.0.1"]);
        let said = names.apply(DB, Ok(answer(&["10.0.0.1"], 5)), now);
        assert_eq!(said, ["orders-db.internal: it can be resolved again"]);
    }

    #[test]
    fn a_family_that_cannot_be_asked_for_keeps_its_addresses() {
        let start = Instant::now();
        let mut names = Names::new(GRACE);
        names.insert(DB.to_owned(), answer(&["10.0.0.1", "fd00::1"], 5), start);
        let half = Answer {
            missing: Some((Family::V6, LookupError::TimedOut)),
            ..answer(&["10.0.0.2"], 5)
        };
        assert_eq!(names.apply(DB, Ok(half), start).len(), 2);
        names.expire(&BTreeSet::new(), start + 9 * GRACE);
        assert_eq!(shown(&names), ["10.0.0.2", "fd00::1"]);
    }

    #[test]
    fn refused_addresses_are_said_once_and_never_count() {
        let start = Instant::now();
        let mut names = known(start);
        let hostile = Answer {
            refused: ["127.0.0.1".parse().unwrap()].into(),
            ..answer(&["10.0.0.1"], 5)
        };
        let said = names.apply(DB, Ok(hostile.clone()), start);
        assert!(said.concat().contains("127.0.0.1 is refused"), "{said:?}");
        assert!(names.apply(DB, Ok(hostile), start).is_empty());
        assert_eq!(shown(&names), ["10.0.0.1"]);
    }

    #[test]
    fn a_name_holds_a_limited_number() {
        let start = Instant::now();
        let mut names = known(start);
        for round in 0..9 {
            let many: Vec<String> = (0..ADDRESSES_MAX)
                .map(|n| format!("10.1.{round}.{n}"))
                .collect();
            let many: Vec<&str> = many.iter().map(String::as_str).collect();
            names.apply(DB, Ok(answer(&many, 1)), start);
        }
        assert_eq!(names.addresses(DB).count(), ADDRESSES_HELD_MAX);
    }
}
