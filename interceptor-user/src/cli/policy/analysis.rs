//! A statement's facts, as a session finds them that has seen nothing before it.
//!
//! It owns nothing of its own: the analysis is the gateway's.

use interceptor_core::command::Facts;
use interceptor_core::policy::{Input, Met, View};
use interceptor_core::session::postgres;

/// What a statement does, or why the gateway refuses it without asking the policy.
pub(super) fn facts(
    view: &View,
    text: &str,
    now_unix_ns: u64,
    estimated_rows: Option<u64>,
) -> Result<Facts, String> {
    match postgres::alone(view, text, now_unix_ns, estimated_rows) {
        Ok(alone) => match alone.refusal {
            None => Ok(alone.facts),
            Some(reason) => Err(format!("the gateway refuses this itself: {reason}")),
        },
        Err(error) => Err(format!(
            "the gateway refuses this text before it asks the policy: {error}"
        )),
    }
}

/// Whether a document that looks at the text could have a part in the decision, but for the text.
pub(super) fn rests_on_text(view: &View, input: &Input<'_>) -> bool {
    let documents = view.explain(input).rules;
    documents.iter().any(|document| {
        let conditions = || document.conditions.iter();
        let looks_at_text = |key: &str, detail: &str| {
            key == "text" || (key == "when" && detail.contains("statement.text"))
        };
        conditions().any(|it| looks_at_text(it.key, &it.detail))
            && conditions().all(|it| it.met != Met::No || looks_at_text(it.key, &it.detail))
    })
}
