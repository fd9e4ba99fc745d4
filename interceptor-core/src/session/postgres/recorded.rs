//! What is written down of a command, and shown to who approves it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Session;
use super::judge::Judged;
use crate::audit::event;
use crate::mask::{Masks, TextMask};
use crate::sql::{self, Analysis};

/// Bytes of a command's text that are recorded; its digest covers all of it.
const RECORDED_BYTES_MAX: usize = 64 << 10;
/// Which facts an event holds: see `facts` of `Command` in `docs/audit-log.proto`.
const FACTS_VERSION: u32 = 1;

impl Session {
    /// The record of a command's intent.
    pub(super) fn command_event(
        &self,
        judged: &Judged,
        text: &str,
        digest: [u8; 32],
        parameters: usize,
    ) -> event::Command {
        let (facts, decision) = (judged.facts(), &judged.decision);
        let rule = decision.rule.as_ref();
        let who = self.view.as_ref().map(|view| view.who());
        let lift = decision.lift.as_ref();
        let obliging = decision.obligations.as_ref().map(|they| &they.rules);
        event::Command {
            number: judged.number,
            text: recorded_text(&judged.analysis, &judged.masks, text),
            digest: digest.to_vec(),
            parameters: u32::try_from(parameters).unwrap_or(u32::MAX),
            kinds: strings(&facts.kinds),
            reads: strings(&facts.reads),
            writes: strings(&facts.writes),
            incomplete: facts.incomplete.unwrap_or_default().to_string(),
            decision: decision.outcome.word().to_string(),
            rule: rule.map(|rule| rule.name.clone()).unwrap_or_default(),
            rule_source: rule
                .map(|rule| format!("{}:{}", rule.file, rule.line))
                .unwrap_or_default(),
            reason: decision.reason.to_string(),
            policy: self.policy.hash.to_vec(),
            facts: FACTS_VERSION,
            functions: facts.functions.clone(),
            unfiltered: facts.unfiltered,
            columns_read: strings(&facts.columns_read),
            columns_written: strings(&facts.columns_written),
            estimated_rows: facts.estimated_rows,
            person: who
                .and_then(|who| who.person.as_deref())
                .unwrap_or_default()
                .to_string(),
            groups: who.map(|who| strings(&who.groups)).unwrap_or_default(),
            lifted_by: lift
                .map(|lift| format!("{} {}", lift.kind, lift.by.name))
                .unwrap_or_default(),
            lifted_rule: lift.map(|lift| lift.rule.to_string()).unwrap_or_default(),
            obliged_by: obliging
                .map(|rules| rules.iter().map(|rule| rule.name.clone()).collect())
                .unwrap_or_default(),
        }
    }
}

fn strings<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// The text as it may be kept: no constants where a password may be among them, no value that a
/// pattern hides, no text at all where it was not understood.
fn recorded_text(analysis: &Analysis, masks: &Masks, text: &str) -> String {
    let normalized;
    let text = if analysis.sensitive {
        match sql::without_constants(text) {
            Some(text) => {
                normalized = text;
                normalized.as_str()
            }
            None => return format!("({} bytes that may hold a credential)", text.len()),
        }
    } else {
        text
    };
    let mut end = text.len().min(RECORDED_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut shown = masked_text(masks, text.get(..end).unwrap_or_default());
    let left_out = text.len().saturating_sub(end);
    if left_out > 0 {
        // Who reads it must not take the start for the whole: it may end in something else.
        shown.push_str(&format!(" … ({left_out} more bytes are not shown)"));
    }
    shown
}

/// A text with pattern masks applied.
pub(super) fn masked_text(masks: &Masks, text: &str) -> String {
    let mut masked = Vec::new();
    match masks.mask_text(text.as_bytes(), &mut masked) {
        TextMask::Clean => text.to_string(),
        TextMask::Rewritten { .. } | TextMask::Null { .. } => {
            String::from_utf8_lossy(&masked).into_owned()
        }
    }
}
