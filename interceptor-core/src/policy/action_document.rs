//! Actions as documents write them: `allow`, `hold`, `deny`, `terminate`.
//!
//! It owns their forms, and the way from the groups that a hold names to the people in them. What a
//! rule asks for beside an action is [`super::obligation_document`]'s.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use saphyr_parser::Span;

use super::approver_document::ApproverGroups;
use super::error::PolicyError;
use super::expression::Expression;
use super::match_document::expression;
use super::problem::Problem;
use super::read::{Reader, report};
use super::reference::{Reference, Referent};
use super::yaml::{Node, Value};
use super::{
    Action, ESCALATIONS_MAX, HOLD_TIMEOUT_DEFAULT, HOLD_TIMEOUT_MAX, HoldPlan, OnTimeout, Outcome,
    QUORUM_MAX, Requirement, Source,
};

pub(super) const HOLD_KEYS: [&str; 7] = [
    "message",
    "timeout",
    "group",
    "groups",
    "quorum",
    "requesterMayApprove",
    "onTimeout",
];
pub(super) const ON_TIMEOUT_KEYS: [&str; 2] = ["escalate", "automatic"];
pub(super) const ESCALATE_KEYS: [&str; 5] = ["group", "groups", "quorum", "timeout", "onTimeout"];

/// What an action does, in the order of strictness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Allow,
    Hold,
    Deny,
    Terminate,
}

/// What a target does by itself.
pub(super) const TARGET_VERBS: &[(&str, Verb)] = &[
    ("allow", Verb::Allow),
    ("hold", Verb::Hold),
    ("deny", Verb::Deny),
];
/// What a rule does.
pub(super) const RULE_VERBS: &[(&str, Verb)] = &[
    ("allow", Verb::Allow),
    ("hold", Verb::Hold),
    ("deny", Verb::Deny),
    ("terminate", Verb::Terminate),
];

/// The words of an action where the file gives none.
pub(super) struct Reasons {
    pub(super) allow: String,
    pub(super) hold: String,
    pub(super) deny: String,
}

/// An action before the groups that it names are looked up.
#[derive(Debug)]
pub(super) struct ActionDocument {
    pub(super) verb: Verb,
    pub(super) reason: String,
    /// Of [`Verb::Hold`].
    pub(super) hold: Option<HoldDocument>,
}

/// One stage of a hold.
#[derive(Debug)]
pub(super) struct HoldDocument {
    message: Option<String>,
    timeout: Duration,
    /// All of them have to be heard.
    groups: Vec<Reference>,
    quorum: u32,
    /// Where the quorum stands, or what stands for it.
    quorum_place: Span,
    requester_may_approve: Option<bool>,
    on_timeout: OnTimeoutDocument,
}

#[derive(Debug)]
enum OnTimeoutDocument {
    Deny,
    Escalate(Box<HoldDocument>),
    Automatic(Arc<Expression>),
}

impl ActionDocument {
    pub(super) fn new(verb: Verb, reason: String) -> Self {
        Self {
            verb,
            reason,
            hold: None,
        }
    }

    /// Its stages, one after the other.
    fn stages(&self) -> impl Iterator<Item = &HoldDocument> {
        core::iter::successors(self.hold.as_ref(), |hold| match &hold.on_timeout {
            OnTimeoutDocument::Escalate(next) => Some(next),
            OnTimeoutDocument::Deny | OnTimeoutDocument::Automatic(_) => None,
        })
    }

    /// The approver groups that it names.
    pub(super) fn references(&self) -> Vec<Reference> {
        let groups = self.stages().flat_map(|hold| &hold.groups);
        groups.cloned().collect()
    }

    /// What it asks when nobody answered.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.stages().filter_map(|hold| match &hold.on_timeout {
            OnTimeoutDocument::Automatic(expression) => Some(&**expression),
            OnTimeoutDocument::Deny | OnTimeoutDocument::Escalate(_) => None,
        })
    }

    /// Reports each quorum that its group cannot reach. Groups that are not there are left out.
    pub(super) fn compile(
        &self,
        groups: &ApproverGroups,
        source: Source<'_>,
        errors: &mut Vec<PolicyError>,
    ) -> Action {
        let outcome = match (self.verb, &self.hold) {
            (Verb::Allow, _) => Outcome::Allow,
            (Verb::Deny, _) => Outcome::Deny,
            (Verb::Terminate, _) => Outcome::Terminate,
            (Verb::Hold, None) => {
                Outcome::Hold(Arc::new(HoldPlan::by_anybody(HOLD_TIMEOUT_DEFAULT)))
            }
            (Verb::Hold, Some(hold)) => {
                Outcome::Hold(Arc::new(hold.compile(None, groups, source, errors)))
            }
        };
        Action {
            outcome,
            reason: self.reason.as_str().into(),
        }
    }
}

impl HoldDocument {
    /// `inherited` is what the stage before says of who asks.
    fn compile(
        &self,
        inherited: Option<bool>,
        groups: &ApproverGroups,
        source: Source<'_>,
        errors: &mut Vec<PolicyError>,
    ) -> HoldPlan {
        let mut requirements: Vec<Requirement> = Vec::new();
        for reference in &self.groups {
            let Some((group, people)) = groups.of(&reference.name) else {
                continue;
            };
            if u64::from(self.quorum) > people {
                let problem = Problem::QuorumTooLarge {
                    group: reference.name.clone(),
                    quorum: self.quorum,
                    people,
                };
                report(errors, source, self.quorum_place, problem, None);
            }
            requirements.push(Requirement {
                group: Arc::clone(group),
                quorum: self.quorum,
            });
        }
        let asked = self.requester_may_approve.or(inherited);
        HoldPlan {
            requester_may_approve: asked.unwrap_or(requirements.is_empty()),
            requirements,
            timeout: self.timeout,
            on_timeout: match &self.on_timeout {
                OnTimeoutDocument::Deny => OnTimeout::Deny,
                OnTimeoutDocument::Escalate(next) => {
                    OnTimeout::Escalate(Arc::new(next.compile(asked, groups, source, errors)))
                }
                OnTimeoutDocument::Automatic(expression) => {
                    OnTimeout::Automatic(Arc::clone(expression))
                }
            },
        }
    }
}

/// A target's `default` or `incomplete`: one of the words, or a mapping of it to its message or, for
/// `hold`, to its keys.
pub(super) fn read_target_action(
    reader: &mut Reader<'_>,
    node: &Node,
    reasons: &Reasons,
) -> Option<ActionDocument> {
    let Value::Mapping(entries) = &node.value else {
        let verb = reader.one_of(node, "action", TARGET_VERBS)?;
        return detail(reader, verb, None, reasons);
    };
    let [(key, value)] = entries.as_slice() else {
        let (expected, found) = ("one of `allow`, `hold` and `deny`", "several keys");
        reader.report(node.span, Problem::WrongType { expected, found });
        return None;
    };
    let verb = reader.one_of(key, "action", TARGET_VERBS)?;
    detail(reader, verb, Some(value), reasons)
}

/// What stands behind the word: a message, nothing, or what a hold asks for.
pub(super) fn detail(
    reader: &mut Reader<'_>,
    verb: Verb,
    node: Option<&Node>,
    reasons: &Reasons,
) -> Option<ActionDocument> {
    let mut hold = None;
    let message = match node {
        Some(node) if verb == Verb::Hold && matches!(node.value, Value::Mapping(_)) => {
            let fields = reader.fields(node, "`hold`", HOLD_KEYS)?;
            let read = stage(reader, node, &fields, 0)?;
            let message = read.message.clone();
            hold = Some(read);
            message
        }
        Some(node) => Some(reader.text(node)?.to_owned()),
        None => None,
    };
    let reason = message.unwrap_or_else(|| match verb {
        Verb::Allow => reasons.allow.clone(),
        Verb::Hold => reasons.hold.clone(),
        Verb::Deny | Verb::Terminate => reasons.deny.clone(),
    });
    Some(ActionDocument { verb, reason, hold })
}

/// The keys that a hold and its escalations share. `depth` counts escalations.
fn stage<const N: usize>(
    reader: &mut Reader<'_>,
    node: &Node,
    fields: &super::read::Fields<'_, N>,
    depth: usize,
) -> Option<HoldDocument> {
    let message = match fields.optional("message") {
        Some(node) => reader.text(node).map(|text| Some(text.to_owned())),
        None => Some(None),
    };
    let timeout = match fields.optional("timeout") {
        Some(node) => hold_timeout(reader, node),
        None => Some(HOLD_TIMEOUT_DEFAULT),
    };
    let groups = groups(reader, node, fields);
    let quorum = match fields.optional("quorum") {
        Some(node) => reader.number(node, 1..=u64::from(QUORUM_MAX)),
        None => Some(1),
    };
    if let (Some(node), Some([])) = (fields.optional("quorum"), groups.as_deref()) {
        reader.report(node.span, Problem::QuorumWithoutGroup);
    }
    let requester_may_approve = match fields.optional("requesterMayApprove") {
        Some(node) => reader.truth(node).map(Some),
        None => Some(None),
    };
    let on_timeout = match fields.optional("onTimeout") {
        Some(node) => on_timeout(reader, node, depth),
        None => Some(OnTimeoutDocument::Deny),
    };
    let groups = groups?;
    let places = [
        fields.optional("quorum").map(|node| node.span),
        groups.first().map(|group| group.span),
    ];
    Some(HoldDocument {
        message: message?,
        timeout: timeout?,
        quorum: u32::try_from(quorum?).unwrap_or(u32::MAX),
        quorum_place: places.into_iter().flatten().next().unwrap_or(node.span),
        groups,
        requester_may_approve: requester_may_approve?,
        on_timeout: on_timeout?,
    })
}

/// `group: dba` or `groups: [dba, security]`.
fn groups<const N: usize>(
    reader: &mut Reader<'_>,
    node: &Node,
    fields: &super::read::Fields<'_, N>,
) -> Option<Vec<Reference>> {
    match (fields.optional("group"), fields.optional("groups")) {
        (None, None) => Some(Vec::new()),
        (Some(group), None) => {
            Reference::read(reader, group, Referent::ApproverGroup).map(|group| [group].into())
        }
        (None, groups) => {
            let groups = reader.references(groups, Referent::ApproverGroup)?;
            for (index, group) in groups.iter().enumerate() {
                if groups
                    .iter()
                    .take(index)
                    .any(|before| before.name == group.name)
                {
                    let value = group.name.clone();
                    reader.report(group.span, Problem::RepeatedEntry { value });
                }
            }
            Some(groups)
        }
        (Some(_), Some(_)) => {
            reader.report(node.span, Problem::GroupAndGroups);
            None
        }
    }
}

fn on_timeout(reader: &mut Reader<'_>, node: &Node, depth: usize) -> Option<OnTimeoutDocument> {
    if !matches!(node.value, Value::Mapping(_)) {
        reader.one_of(node, "end of a hold", &[("deny", ())])?;
        return Some(OnTimeoutDocument::Deny);
    }
    let within = "`onTimeout`";
    let fields = reader.fields(node, within, ON_TIMEOUT_KEYS)?;
    match (fields.optional("escalate"), fields.optional("automatic")) {
        (Some(node), None) => {
            if depth >= ESCALATIONS_MAX {
                reader.report(node.span, Problem::TooManyEscalations);
                return None;
            }
            let fields = reader.fields(node, "`escalate`", ESCALATE_KEYS)?;
            let next = stage(reader, node, &fields, depth + 1)?;
            if next.groups.is_empty() {
                reader.report(node.span, Problem::EscalationToNobody);
                return None;
            }
            Some(OnTimeoutDocument::Escalate(Box::new(next)))
        }
        (None, Some(node)) => {
            let expression = expression(reader, node)?;
            Some(OnTimeoutDocument::Automatic(Arc::new(expression)))
        }
        _ => {
            let (expected, found) = match fields.optional("escalate") {
                Some(_) => ("one of `escalate` and `automatic`", "both"),
                None => ("`deny`, `escalate` or `automatic`", "nothing"),
            };
            reader.report(node.span, Problem::WrongType { expected, found });
            None
        }
    }
}

fn hold_timeout(reader: &mut Reader<'_>, node: &Node) -> Option<Duration> {
    let timeout = reader.duration(node)?;
    if timeout.is_zero() || timeout > HOLD_TIMEOUT_MAX {
        reader.report(node.span, Problem::TimeoutOutOfRange);
        return None;
    }
    Some(timeout)
}
