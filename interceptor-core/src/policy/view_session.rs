//! What a session asks of its view beside decisions.

use alloc::sync::Arc;

use super::{RuleReference, View};

impl View {
    /// Some rule asks how large the tables of a command are.
    pub const fn needs_estimates(&self) -> bool {
        false
    }

    /// A rule that keeps every command of this client read-only, whatever the command is.
    pub const fn read_only_session(&self) -> Option<Arc<RuleReference>> {
        None
    }

    /// Some mask on columns is on this target, in force or to be put in force by a rule.
    pub const fn may_mask_columns(&self) -> bool {
        false
    }
}
