//! Recorded commands, decided on again.
//!
//! It owns what is remembered of each session on the way through the record, and how the decision then
//! is compared with the one now. It must not know where records come from or how results are shown.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use interceptor_core::audit::event::{Command, Connection, Event, Identity, Kind};
use interceptor_core::audit::redecide::{self, Lost, RecordedFacts};
use interceptor_core::command::Facts;
use interceptor_core::policy::{Decision, Input, Outcome, Protocol, Snapshot, View};

use super::analysis;

/// Sessions that are open in the record at one time. One beyond that is not decided on again.
const SESSIONS_MAX: usize = 100_000;
/// A session may go on while so many gateways start after its own: replaced ones keep theirs.
const STARTS_MAX: u64 = 8;
/// Different changes that are told apart; those beyond are counted together.
const CHANGES_MAX: usize = 10_000;
/// Characters of an example's text that are kept.
const EXAMPLE_CHARS_MAX: usize = 200;

/// What a decision is, as far as two of them are compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Said {
    /// `allow`, `hold`, `deny` or `terminate`.
    pub(super) outcome: String,
    /// The rule; empty for the target's default.
    pub(super) rule: String,
}

/// Commands that are decided in another way now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    pub(super) before: Said,
    pub(super) after: Said,
    /// The person, or the target's user where no identity is known.
    pub(super) person: String,
    pub(super) target: String,
}

/// How many they are, and the first of them.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    pub(super) count: u64,
    /// For how many of them the text on record is not certain to be the one that was sent.
    pub(super) approximate: u64,
    pub(super) example: Example,
}

/// A command on record.
#[derive(Debug, Clone)]
pub(super) struct Example {
    pub(super) time_unix_ns: u64,
    pub(super) session: Vec<u8>,
    pub(super) number: u64,
    pub(super) text: String,
}

/// Why a command was not decided on again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Skipped {
    /// The record says too little.
    Lost(Lost),
    /// The policy has no such target.
    Target,
    /// It was refused before a policy was asked.
    Unread,
}

impl Skipped {
    pub(super) fn words(self) -> String {
        match self {
            Self::Lost(lost) => lost.to_string(),
            Self::Target => "their targets are not in this policy".to_owned(),
            Self::Unread => {
                "the gateway refused them itself, before it asked the policy".to_owned()
            }
        }
    }
}

/// What came of a replay.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Commands in the time asked for.
    pub(super) commands: u64,
    pub(super) unchanged: u64,
    pub(super) changed: u64,
    /// Of both, those that are not certain.
    pub(super) approximate: u64,
    pub(super) skipped: BTreeMap<Skipped, u64>,
    pub(super) changes: BTreeMap<Change, Changed>,
    /// Changed commands beyond [`CHANGES_MAX`] different changes.
    pub(super) untold: u64,
}

/// What is remembered of a session while the record is read.
struct Session {
    /// How many gateways had started before it.
    start: u64,
    connection: Connection,
    identity: Option<Identity>,
    /// Made at its first command.
    view: Option<View>,
}

/// The way through a record.
pub(super) struct Replay {
    snapshot: Arc<Snapshot>,
    /// Nanoseconds since the Unix epoch: the first that counts, and the first that does not.
    window: std::ops::Range<u64>,
    sessions: HashMap<Vec<u8>, Session>,
    /// Gateways that started so far.
    starts: u64,
    pub(super) totals: Totals,
}

impl Replay {
    pub(super) fn new(snapshot: Arc<Snapshot>, window: std::ops::Range<u64>) -> Self {
        Self {
            snapshot,
            window,
            sessions: HashMap::new(),
            starts: 0,
            totals: Totals::default(),
        }
    }

    /// Takes the next event of the record.
    pub(super) fn take(&mut self, event: Event) {
        match event.kind {
            Some(Kind::Connection(connection)) => {
                self.open(event.session, connection);
            }
            Some(Kind::Identity(identity)) => {
                if let Some(session) = self.sessions.get_mut(&event.session) {
                    session.identity = Some(identity);
                    session.view = None;
                }
            }
            Some(Kind::Close(_)) => drop(self.sessions.remove(&event.session)),
            Some(Kind::GatewayStarted(_)) => self.starts += 1,
            Some(Kind::Command(command)) if self.window.contains(&event.time_unix_ns) => {
                self.totals.commands += 1;
                self.decide(&event.session, event.time_unix_ns, &command);
            }
            _ => {}
        }
    }

    fn open(&mut self, id: Vec<u8>, connection: Connection) {
        if self.sessions.len() >= SESSIONS_MAX {
            // What was open when a gateway crashed has no end on record.
            let oldest = self.starts.saturating_sub(STARTS_MAX);
            self.sessions.retain(|_, session| session.start >= oldest);
        }
        if self.sessions.len() < SESSIONS_MAX {
            let session = Session {
                start: self.starts,
                connection,
                identity: None,
                view: None,
            };
            self.sessions.insert(id, session);
        }
    }

    fn decide(&mut self, id: &[u8], time_unix_ns: u64, command: &Command) {
        match self.again(id, time_unix_ns, command) {
            Ok((after, person, target, is_approximate)) => {
                let before = Said {
                    outcome: command.decision.clone(),
                    rule: command.rule.clone(),
                };
                self.totals.approximate += u64::from(is_approximate);
                if before == after {
                    self.totals.unchanged += 1;
                    return;
                }
                self.totals.changed += 1;
                let change = Change {
                    before,
                    after,
                    person,
                    target,
                };
                let example = || Example {
                    time_unix_ns,
                    session: id.to_owned(),
                    number: command.number,
                    text: command.text.chars().take(EXAMPLE_CHARS_MAX).collect(),
                };
                self.totals.count(change, is_approximate, example);
            }
            Err(skipped) => *self.totals.skipped.entry(skipped).or_default() += 1,
        }
    }

    /// The decision now, the person, the target, and whether it is not certain.
    fn again(
        &mut self,
        id: &[u8],
        time_unix_ns: u64,
        command: &Command,
    ) -> Result<(Said, String, String, bool), Skipped> {
        let session = self.sessions.get_mut(id);
        let session = session.ok_or(Skipped::Lost(Lost::Client))?;
        if is_unread(command) {
            return Err(Skipped::Unread);
        }
        let view = session.view(&self.snapshot)?;
        let (facts, mut is_approximate) = match redecide::facts(command).map_err(Skipped::Lost)? {
            RecordedFacts::Whole(facts) => (*facts, false),
            RecordedFacts::Absent => (analysed(view, command, time_unix_ns)?, true),
        };
        let input = Input {
            facts: &facts,
            text: &command.text,
            now_unix_ns: time_unix_ns,
        };
        is_approximate |= !redecide::is_exact(command) && analysis::rests_on_text(view, &input);
        let decision = view.decide(&input);
        let after = said(&decision, command);
        let person = match command.person.is_empty() {
            true => view.subject().user.clone(),
            false => command.person.clone(),
        };
        Ok((after, person, view.target().name.clone(), is_approximate))
    }
}

impl Session {
    fn view(&mut self, snapshot: &Arc<Snapshot>) -> Result<&View, Skipped> {
        if self.view.is_none() {
            let target = snapshot.target(&self.connection.target);
            let target = target.ok_or(Skipped::Target)?;
            // A role that is set at the start is judged before the login is on record.
            if target.protocol == Protocol::Postgres && self.identity.is_none() {
                return Err(Skipped::Lost(Lost::Client));
            }
            let subject = redecide::subject(&self.connection, self.identity.as_ref());
            let subject = subject.map_err(Skipped::Lost)?;
            self.view = View::new(Arc::clone(snapshot), &self.connection.target, subject);
        }
        self.view.as_ref().ok_or(Skipped::Target)
    }
}

impl Totals {
    fn count(&mut self, change: Change, is_approximate: bool, example: impl FnOnce() -> Example) {
        if self.changes.len() >= CHANGES_MAX && !self.changes.contains_key(&change) {
            self.untold += 1;
            return;
        }
        let changed = self.changes.entry(change).or_insert_with(|| Changed {
            count: 0,
            approximate: 0,
            example: example(),
        });
        changed.count += 1;
        changed.approximate += u64::from(is_approximate);
    }
}

/// Refusals of the gateway's own name no rule, and give reasons that no target's default has.
fn is_unread(command: &Command) -> bool {
    command.decision == "deny"
        && command.rule.is_empty()
        && (command.reason.starts_with("refused with code ")
            || redecide::OWN_REFUSALS.contains(&command.reason.as_str()))
}

/// What is compared of a decision. A command that goes may still have been refused by a rule that binds
/// it: one too many in a time, or a write under a rule that allows only reading. Such a rule speaks
/// now as it did then.
fn said(decision: &Decision, command: &Command) -> Said {
    let obligations = decision.obligations.as_deref();
    let binds = |name: &str| {
        obligations.is_some_and(|they| they.rules.iter().any(|rule| rule.name == name))
    };
    if !decision.outcome.refuses() && command.decision == "deny" && binds(&command.rule) {
        return Said {
            outcome: command.decision.clone(),
            rule: command.rule.clone(),
        };
    }
    let rule = decision.rule.as_ref();
    Said {
        outcome: Outcome::word(&decision.outcome).to_owned(),
        rule: rule.map(|rule| rule.name.clone()).unwrap_or_default(),
    }
}

/// The facts of a command whose record is too old to have them.
fn analysed(view: &View, command: &Command, time_unix_ns: u64) -> Result<Facts, Skipped> {
    let facts = analysis::facts(view, &command.text, time_unix_ns, command.estimated_rows);
    facts.map_err(|_| Skipped::Lost(Lost::Facts))
}

#[cfg(test)]
mod tests {
    use interceptor_core::mask::HashKey;
    use interceptor_core::policy::{self, Source};
    use sha2::{Digest as _, Sha256};

    use super::*;

    const POLICY: &str = "
kind: Target
name: orders
spec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}
---
kind: Rule
name: no-drop
spec: {match: {statements: [DROP]}, then: deny}
---
kind: Rule
name: no-secrets
spec: {match: {users: [app], text: 'secret'}, then: deny}
---
kind: Rule
name: seldom
spec: {match: {statements: [NOTIFY]}, then: {limit: {rate: 1/h}}}
";

    fn replay() -> Replay {
        let source = Source {
            file: "p.yaml",
            text: POLICY,
        };
        let snapshot = policy::load(&[source], &HashKey::new([0; 32]));
        let snapshot = snapshot.unwrap_or_else(|errors| panic!("{errors}"));
        Replay::new(Arc::new(snapshot), 10..20)
    }

    fn event(time_unix_ns: u64, session: u8, kind: Kind) -> Event {
        Event {
            time_unix_ns,
            session: vec![session; 16],
            kind: Some(kind),
        }
    }

    fn log_in(replay: &mut Replay, session: u8, target: &str, user: &str) {
        let connection = Connection {
            client: "10.1.1.1:5000".into(),
            target: target.into(),
            ..Connection::default()
        };
        replay.take(event(1, session, Kind::Connection(connection)));
        let identity = Identity {
            user: user.into(),
            database: "shop".into(),
            authenticated: true,
            ..Identity::default()
        };
        replay.take(event(1, session, Kind::Identity(identity)));
    }

    /// A command whose digest is that of its text, as that of a simple query is.
    fn command(text: &str, kind: &str, decision: &str, rule: &str) -> Command {
        let mut hash = Sha256::new();
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
        Command {
            facts: 1,
            number: 1,
            text: text.into(),
            digest: hash.finalize().to_vec(),
            kinds: vec![kind.into()],
            decision: decision.into(),
            rule: rule.into(),
            ..Command::default()
        }
    }

    fn send(replay: &mut Replay, session: u8, command: Command) {
        replay.take(event(15, session, Kind::Command(command)));
    }

    #[test]
    fn only_what_is_decided_in_another_way_is_a_change() {
        let mut replay = replay();
        log_in(&mut replay, 1, "orders", "app");
        send(&mut replay, 1, command("SELECT 1", "SELECT", "allow", ""));
        send(
            &mut replay,
            1,
            command("DROP TABLE a", "DROP TABLE", "allow", ""),
        );
        send(
            &mut replay,
            1,
            command("DROP TABLE b", "DROP TABLE", "allow", ""),
        );
        send(
            &mut replay,
            1,
            command("DROP TABLE c", "DROP TABLE", "deny", "no-drop"),
        );
        // Refused as one too many of the hour, by a rule that binds what it lets go.
        send(
            &mut replay,
            1,
            command("NOTIFY a", "NOTIFY", "deny", "seldom"),
        );
        // Not of the time that was asked for.
        replay.take(event(
            20,
            1,
            Kind::Command(command("DROP TABLE d", "DROP TABLE", "allow", "")),
        ));
        let totals = replay.totals;
        assert_eq!(
            (totals.commands, totals.unchanged, totals.changed),
            (5, 3, 2)
        );
        assert_eq!(totals.approximate, 0);
        let changes: Vec<_> = totals.changes.iter().collect();
        let [(change, changed)] = changes.as_slice() else {
            panic!("{changes:?}")
        };
        assert_eq!(change.before.outcome, "allow");
        assert_eq!(
            (&*change.after.outcome, &*change.after.rule),
            ("deny", "no-drop")
        );
        assert_eq!((&*change.person, &*change.target), ("app", "orders"));
        assert_eq!((changed.count, &*changed.example.text), (2, "DROP TABLE a"));
    }

    #[test]
    fn what_the_record_does_not_tell_is_said() {
        let mut replay = replay();
        log_in(&mut replay, 1, "orders", "app");
        log_in(&mut replay, 2, "elsewhere", "app");
        send(&mut replay, 2, command("SELECT 1", "SELECT", "allow", ""));
        send(&mut replay, 3, command("SELECT 1", "SELECT", "allow", ""));
        send(&mut replay, 1, command("SELECT 1", "TELEPORT", "allow", ""));
        let mut unread = command("(9 bytes that were not understood)", "OTHER", "deny", "");
        unread.reason = "refused with code 42601".into();
        send(&mut replay, 1, unread);
        replay.take(event(2, 1, Kind::Close(Default::default())));
        send(&mut replay, 1, command("SELECT 1", "SELECT", "allow", ""));
        let skipped: Vec<(Skipped, u64)> = replay.totals.skipped.into_iter().collect();
        assert_eq!(
            skipped,
            [
                (Skipped::Lost(Lost::Newer), 1),
                (Skipped::Lost(Lost::Client), 2),
                (Skipped::Target, 1),
                (Skipped::Unread, 1)
            ]
        );
    }

    #[test]
    fn what_rests_on_a_text_that_is_not_certain_is_approximate() {
        let mut replay = replay();
        log_in(&mut replay, 1, "orders", "app");
        log_in(&mut replay, 2, "orders", "other");
        let mut masked = command("SELECT '****'", "SELECT", "deny", "no-secrets");
        masked.digest = vec![1; 32];
        // The rule that looks at texts cannot concern this user.
        let mut indifferent = masked.clone();
        indifferent.decision = "allow".into();
        indifferent.rule = String::new();
        send(&mut replay, 2, indifferent);
        assert_eq!(replay.totals.approximate, 0);
        send(&mut replay, 1, masked);
        assert_eq!(replay.totals.approximate, 1);
        let changes: Vec<u64> = replay
            .totals
            .changes
            .values()
            .map(|it| it.approximate)
            .collect();
        assert_eq!(changes, [1]);
        send(
            &mut replay,
            1,
            command("SELECT 'secret'", "SELECT", "deny", "no-secrets"),
        );
        assert_eq!(replay.totals.approximate, 1);
        assert_eq!(replay.totals.unchanged, 2);
    }

    #[test]
    fn an_older_record_is_analysed_again() {
        let mut replay = replay();
        log_in(&mut replay, 1, "orders", "app");
        let mut older = command("DROP TABLE a", "DROP TABLE", "allow", "");
        older.facts = 0;
        send(&mut replay, 1, older.clone());
        older.text = "(9 bytes that may hold a credential)".into();
        send(&mut replay, 1, older);
        let totals = replay.totals;
        assert_eq!((totals.changed, totals.approximate), (1, 1));
        assert_eq!(totals.skipped.get(&Skipped::Lost(Lost::Facts)), Some(&1));
    }
}
