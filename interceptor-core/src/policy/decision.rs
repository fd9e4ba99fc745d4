//! What a decision is: a value that later stages act on and never compute again.
//!
//! It owns outcomes, holds, obligations and their words. It must not know how rules are written or
//! matched.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::expression::Expression;
use crate::mask::Masks;

/// What is to happen to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It goes upstream.
    Allow,
    /// It waits for people.
    Hold(Arc<HoldPlan>),
    /// It is refused.
    Deny,
    /// It is refused, and its session ends.
    Terminate,
}

impl Outcome {
    /// Allow, hold, deny, terminate: the stricter has the greater number. Holds are equal here; where
    /// several match, [`HoldPlan::and`] joins what they ask for.
    pub const fn strictness(&self) -> u8 {
        match self {
            Self::Allow => 0,
            Self::Hold(_) => 1,
            Self::Deny => 2,
            Self::Terminate => 3,
        }
    }

    /// The word in policy files, on record and in metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Hold(_) => "hold",
            Self::Deny => "deny",
            Self::Terminate => "terminate",
        }
    }

    /// The command does not go, whatever anybody says.
    pub const fn refuses(&self) -> bool {
        matches!(self, Self::Deny | Self::Terminate)
    }
}

/// Who has to approve within which time, and what comes after that.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldPlan {
    /// All of them have to be met; empty: one person with access to the administration socket.
    pub requirements: Vec<Requirement>,
    /// How long it waits for them.
    pub timeout: Duration,
    /// What happens after that.
    pub on_timeout: OnTimeout,
    /// Who sent the command may approve it.
    pub requester_may_approve: bool,
}

impl HoldPlan {
    /// One approval by anybody with access to the socket; refused after `timeout`.
    pub const fn by_anybody(timeout: Duration) -> Self {
        Self {
            requirements: Vec::new(),
            timeout,
            on_timeout: OnTimeout::Deny,
            requester_may_approve: true,
        }
    }

    /// What both ask for: every requirement of either, the shorter time, and the stricter end. Ends
    /// that are not the same are a refusal.
    pub fn and(&self, other: &Self) -> Self {
        let mut requirements = self.requirements.clone();
        for theirs in &other.requirements {
            let same = |ours: &&mut Requirement| ours.group.name == theirs.group.name;
            match requirements.iter_mut().find(same) {
                Some(ours) => ours.quorum = ours.quorum.max(theirs.quorum),
                None => requirements.push(theirs.clone()),
            }
        }
        Self {
            requirements,
            timeout: self.timeout.min(other.timeout),
            on_timeout: match self.on_timeout == other.on_timeout {
                true => self.on_timeout.clone(),
                false => OnTimeout::Deny,
            },
            requester_may_approve: self.requester_may_approve && other.requester_may_approve,
        }
    }

    /// What it asks for, as in `2 of dba`, a line for each requirement.
    pub fn required(&self) -> Vec<String> {
        let words = |one: &Requirement| format!("{} of {}", one.quorum, one.group.name);
        self.requirements.iter().map(words).collect()
    }
}

/// So many different members of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    /// The group.
    pub group: Arc<ApproverGroup>,
    /// How many of its members, at least 1.
    pub quorum: u32,
}

/// What happens to a held command that nobody answered in time.
#[derive(Debug, Clone, PartialEq)]
pub enum OnTimeout {
    /// It is refused.
    Deny,
    /// Others are asked.
    Escalate(Arc<HoldPlan>),
    /// It goes if this holds then ([`super::View::automatic`]), and is refused otherwise.
    Automatic(Arc<Expression>),
}

/// People who may approve, with those of the groups in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApproverGroup {
    /// Its name.
    pub name: Arc<str>,
    /// Users of the gateway host, by name.
    pub users: Vec<String>,
    /// Users of the gateway host, by number.
    pub uids: Vec<u32>,
}

impl ApproverGroup {
    /// Whether somebody is a member.
    pub fn admits(&self, approver: &Approver<'_>) -> bool {
        let named = |user: &str| self.users.iter().any(|member| member == user);
        self.uids.contains(&approver.uid) || approver.user.is_some_and(named)
    }
}

/// Somebody at the administration socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approver<'a> {
    /// Their user id, as the kernel says.
    pub uid: u32,
    /// The name that the host has for it.
    pub user: Option<&'a str>,
}

/// An outcome with the words that explain it.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// What is to happen.
    pub outcome: Outcome,
    /// Why, in one line.
    pub reason: Arc<str>,
}

/// A document of the policy: which rule spoke, which grant lifted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleReference {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// The line its document starts on, from 1.
    pub line: u32,
}

/// A rule that would have stopped the command did not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lift {
    /// `Grant` or `Bypass`.
    pub kind: &'static str,
    /// Which one.
    pub by: Arc<RuleReference>,
    /// The rule that it lifted; `default` for the target's.
    pub rule: Arc<str>,
}

/// What a command that goes is bound to. The rules behind it all matched.
#[derive(Debug, Clone, Default)]
pub struct Obligations {
    /// The rules that ask for anything here.
    pub rules: Vec<Arc<RuleReference>>,
    /// What it may use up.
    pub limits: Limits,
    /// It must not write, nor may anything that it calls.
    pub read_only: bool,
    /// The masks in force for it, where they are not the target's own alone.
    pub masks: Option<Arc<Masks>>,
    /// Who should know: rules with the groups that they name.
    pub notify: Vec<(Arc<RuleReference>, Vec<Arc<str>>)>,
}

impl Obligations {
    /// Binds to what others ask for as well. Their masks are not joined here: which of them meet on a
    /// target is the target's to know.
    pub(super) fn join(&mut self, other: &Self) {
        self.rules.extend(other.rules.iter().cloned());
        self.limits.join(&other.limits);
        self.read_only |= other.read_only;
        self.notify.extend(other.notify.iter().cloned());
    }
}

/// What one command, or its session, may use up: of each limit the lowest that a rule sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Rows sent to the client.
    pub rows: Option<Limit<u64>>,
    /// Bytes sent to the client.
    pub bytes: Option<Limit<u64>>,
    /// How long it may run.
    pub duration: Option<Limit<Duration>>,
    /// Commands in a time; each rule counts for itself.
    pub rates: Vec<Limit<Rate>>,
}

impl Limits {
    /// No limit at all.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_none()
            && self.bytes.is_none()
            && self.duration.is_none()
            && self.rates.is_empty()
    }

    fn join(&mut self, other: &Self) {
        lower(&mut self.rows, other.rows.as_ref());
        lower(&mut self.bytes, other.bytes.as_ref());
        lower(&mut self.duration, other.duration.as_ref());
        self.rates.extend(other.rates.iter().cloned());
    }
}

/// Of equal limits the first stays.
fn lower<T: Clone + PartialOrd>(limit: &mut Option<Limit<T>>, other: Option<&Limit<T>>) {
    let Some(other) = other else {
        return;
    };
    if limit.as_ref().is_none_or(|limit| other.at < limit.at) {
        *limit = Some(other.clone());
    }
}

/// A limit, and the rule that sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit<T> {
    /// How much.
    pub at: T,
    /// Who says so.
    pub rule: Arc<RuleReference>,
}

/// So many commands in a time, for each person (or, where nobody knows the person, for each user of
/// the target at each client address).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In which time.
    pub per: Duration,
}

/// The decision on one command.
#[derive(Debug, Clone)]
pub struct Decision {
    /// What is to happen.
    pub outcome: Outcome,
    /// The rule that decided; `None` for the target's default.
    pub rule: Option<Arc<RuleReference>>,
    /// Why, for the client, the approver and the record; one line.
    pub reason: Arc<str>,
    /// What did not count.
    pub lift: Option<Box<Lift>>,
    /// What it is bound to.
    pub obligations: Option<Arc<Obligations>>,
}

impl Decision {
    /// A refusal that no rule asked for.
    pub fn refusal(reason: &str) -> Self {
        Self {
            outcome: Outcome::Deny,
            rule: None,
            reason: reason.into(),
            lift: None,
            obligations: None,
        }
    }
}

/// The person behind a session, as far as the policy's identities tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// The person; `None` where no identity fits, or more than one.
    pub person: Option<Arc<str>>,
    /// Their groups.
    pub groups: Vec<Arc<str>>,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.person.as_deref().unwrap_or("unknown"))
    }
}
