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

impl Session {
    /// The record of a command's intent.
    pub(super) fn command_event(
        &self,
        judged: &Judged,
        text: &str,
        digest: [u8; 32],
        parameters: usize,
    ) -> event::Command {
        let who = self.view.as_ref().map(|view| view.who());
        let (facts, policy) = (judged.facts(), &self.policy.hash);
        event::Command {
            text: recorded_text(&judged.analysis, &judged.masks, text),
            digest: digest.to_vec(),
            parameters: u32::try_from(parameters).unwrap_or(u32::MAX),
            ..event::Command::decided(judged.number, facts, &judged.decision, who, policy)
        }
    }
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
