//! A command that waits for a person. Its exact bytes wait here; a permit releases them once.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::recorded::masked_text;
use super::submit::Pending;
use super::{Action, HoldRequest, Session, judge};
use crate::audit::event::{self, Kind};
use crate::command::Resolution;
use crate::mask::Masks;
use crate::policy::{Expression, HoldPlan, Input, OnTimeout};
use crate::wire::postgres::encode::{self, ErrorText};

/// Characters of a parameter that the approver is shown.
const PARAMETER_CHARS_MAX: usize = 200;
/// Bytes of a binary parameter that the approver is shown.
const PARAMETER_BYTES_MAX: usize = 16;

/// A held command.
pub(super) struct Held {
    pending: Pending,
    /// The request's number, once it is open.
    request: Option<u64>,
    plan: Arc<HoldPlan>,
    /// How often others were asked already.
    stage: u32,
    pub(super) deadline_ns: u64,
}

impl Session {
    /// Holds a command; the client is not read on until it is decided. `stage` counts those who were
    /// asked in vain.
    pub(super) fn hold(&mut self, pending: Pending, plan: Arc<HoldPlan>, stage: u32) {
        let request = self.hold_request(&pending, &plan, stage);
        // Replies to what came before must not wait with it.
        if !self.expected.is_empty() {
            encode::flush(&mut self.to_server);
        }
        let wait_ns = request.timeout_ms.saturating_mul(1_000_000);
        self.actions.push_back(Action::Hold(request));
        self.held = Some(Held {
            pending,
            request: None,
            plan,
            stage,
            deadline_ns: self.now_ns.saturating_add(wait_ns),
        });
    }

    fn hold_request(&self, pending: &Pending, plan: &Arc<HoldPlan>, stage: u32) -> HoldRequest {
        let (judged, facts) = (&pending.judged, pending.judged.facts());
        let rule = judged.decision.rule.as_ref();
        let strings =
            |list: &[crate::command::Relation]| list.iter().map(ToString::to_string).collect();
        let who = self.view.as_ref().map(|view| view.who());
        HoldRequest {
            command: judged.number,
            rule: rule.map(|rule| rule.name.clone()).unwrap_or_default(),
            reason: judged.decision.reason.to_string(),
            text: pending.recorded.clone(),
            parameters: pending.parameters.clone(),
            kinds: facts.kinds.iter().map(ToString::to_string).collect(),
            reads: strings(&facts.reads),
            writes: strings(&facts.writes),
            timeout_ms: u64::try_from(plan.timeout.as_millis()).unwrap_or(u64::MAX),
            stage,
            plan: Arc::clone(plan),
            person: who.and_then(|who| who.person.clone()),
            people: Arc::clone(&self.policy.people),
        }
    }

    /// The request has this number; its record is on the way.
    pub fn handle_hold_numbered(&mut self, request: u64) {
        if let Some(held) = &mut self.held {
            held.request = Some(request);
        }
    }

    /// The request is recorded and open: the client is told.
    pub fn handle_hold_opened(&mut self) {
        let Some(held) = &self.held else { return };
        let request = number(held);
        let decision = &held.pending.judged.decision;
        let rule = decision
            .rule
            .as_ref()
            .map_or("default", |rule| rule.name.as_str());
        let required = held.plan.required().join(", ");
        let by = match required.as_str() {
            "" => String::new(),
            required => format!(" by {required}"),
        };
        let text = format!(
            "interceptor: request {request} waits for approval{by} (rule \"{rule}\": {}); cancel to withdraw it",
            decision.reason
        );
        self.notify(text);
    }

    /// No request could be opened: the command is refused.
    pub fn handle_hold_refused(&mut self, reason: &str) {
        if let Some(held) = self.held.take() {
            let error = ErrorText::new("42501", &format!("refused by interceptor: {reason}"));
            self.refuse(held.pending, error);
        }
    }

    /// A person decided. The first answer holds; the bytes go once.
    pub fn handle_resolution(&mut self, resolution: &Resolution) {
        let Some(held) = self.held.take() else { return };
        let word = if resolution.approved {
            "approved"
        } else {
            "denied"
        };
        let event = approval(&held, word, &resolution.by, &resolution.reason);
        if resolution.approved {
            self.record_before(Kind::Approval(event));
            self.release(held.pending);
        } else {
            self.record(Kind::Approval(event));
            let mut error = judge::refusal(&held.pending.judged);
            let why = if resolution.reason.is_empty() {
                String::new()
            } else {
                format!(": {}", resolution.reason)
            };
            error.message = format!(
                "{} (request {} denied by {}{why})",
                error.message,
                number(&held),
                resolution.by
            );
            self.refuse(held.pending, error);
        }
    }

    /// A cancel request came for this session. If it ends a hold the target does not hear of it:
    /// it has not seen the command.
    pub fn handle_cancel(&mut self) {
        match (self.end_hold("cancelled"), &self.cancel_key) {
            (Some(pending), _) => {
                self.refuse(
                    pending,
                    ErrorText::new("57014", "canceling statement due to user request"),
                );
            }
            (None, Some(key)) => self.actions.push_back(Action::ForwardCancel(key.clone())),
            (None, None) => {}
        }
    }

    /// The time for an answer is over: others are asked, the policy answers, or it is refused.
    pub(super) fn expire_hold(&mut self) {
        let Some(held) = self
            .held
            .as_ref()
            .filter(|held| self.now_ns >= held.deadline_ns)
        else {
            return;
        };
        let (plan, next) = (Arc::clone(&held.plan), held.stage + 1);
        match &plan.on_timeout {
            OnTimeout::Escalate(others) => {
                if let Some(pending) = self.end_hold("escalated") {
                    self.hold(pending, Arc::clone(others), next);
                }
            }
            OnTimeout::Automatic(expression) if self.holds_now(expression) => {
                self.actions.push_back(Action::Withdraw);
                if let Some(held) = self.held.take() {
                    self.record_before(Kind::Approval(approval(&held, "automatic", "", "")));
                    self.release(held.pending);
                }
            }
            OnTimeout::Automatic(_) | OnTimeout::Deny => {
                if let Some(pending) = self.end_hold("timed_out") {
                    let mut error = judge::refusal(&pending.judged);
                    let seconds = plan.timeout.as_millis().div_ceil(1_000);
                    error.message =
                        format!("{} (nobody answered within {seconds} s)", error.message);
                    self.refuse(pending, error);
                }
            }
        }
    }

    /// What the policy in force says of the held command at this moment.
    fn holds_now(&self, expression: &Expression) -> bool {
        let (Some(held), Some(view)) = (&self.held, &self.view) else {
            return false;
        };
        let input = Input {
            facts: held.pending.judged.facts(),
            text: &held.pending.text,
            now_unix_ns: self.now_unix_ns,
        };
        view.automatic(expression, &input)
    }

    /// Ends the hold without an answer; the command stays with the caller.
    pub(super) fn end_hold(&mut self, resolution: &str) -> Option<Pending> {
        let held = self.held.take()?;
        self.actions.push_back(Action::Withdraw);
        self.record(Kind::Approval(approval(&held, resolution, "", "")));
        Some(held.pending)
    }
}

fn number(held: &Held) -> u64 {
    held.request.unwrap_or(0)
}

fn approval(held: &Held, resolution: &str, by: &str, reason: &str) -> event::Approval {
    event::Approval {
        request: number(held),
        command: held.pending.judged.number,
        resolution: resolution.to_string(),
        by: by.to_string(),
        reason: reason.to_string(),
    }
}

/// Parameters as the approver may see them.
pub(super) fn shown_parameters(
    masks: &Masks,
    parameters: &[crate::wire::postgres::frontend::Parameter<'_>],
) -> Vec<String> {
    parameters
        .iter()
        .map(|parameter| match parameter.value {
            None => String::from("NULL"),
            Some(value) if parameter.binary => {
                let shown = value.get(..PARAMETER_BYTES_MAX).unwrap_or(value);
                let more = if shown.len() < value.len() { "…" } else { "" };
                let shown = hex::encode(shown);
                format!("{} bytes in binary: {shown}{more}", value.len())
            }
            Some(value) => {
                let text = masked_text(masks, &String::from_utf8_lossy(value));
                match text.char_indices().nth(PARAMETER_CHARS_MAX) {
                    Some((end, _)) => {
                        let (shown, rest) = text.split_at(end);
                        format!("{shown} … ({} more bytes are not shown)", rest.len())
                    }
                    None => text,
                }
            }
        })
        .collect()
}
