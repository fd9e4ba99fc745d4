//! A statement's facts, as a session finds them that has seen nothing before it.
//!
//! It owns nothing of its own: the analysis is the gateway's.

use interceptor_core::command::Facts;
use interceptor_core::mask::Masks;
use interceptor_core::sql;

/// What a statement does, or why the gateway would refuse it unread.
pub(super) fn facts(text: &str, _masks: &Masks) -> Result<Facts, String> {
    match sql::analyze(text) {
        Ok(analysis) => Ok(analysis.facts),
        Err(error) => Err(format!(
            "the gateway refuses this text before it asks the policy: {error}"
        )),
    }
}
