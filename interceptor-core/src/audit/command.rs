//! A command's event from its facts and the decision on it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::event;
use crate::command::Facts;
use crate::policy::{Decision, Who};

/// Which facts an event holds: see `facts` of `Command` in `docs/audit-log.proto`.
const FACTS_VERSION: u32 = 1;

impl event::Command {
    /// All but the text, its digest and the number of parameters.
    pub fn decided(
        number: u64,
        facts: &Facts,
        decision: &Decision,
        who: Option<&Who>,
        policy: &[u8],
    ) -> Self {
        let (rule, lift) = (decision.rule.as_ref(), decision.lift.as_ref());
        let obliging = decision.obligations.iter().flat_map(|they| &they.rules);
        let person = who.and_then(|who| who.person.as_deref());
        Self {
            number,
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
            policy: policy.to_vec(),
            facts: FACTS_VERSION,
            functions: facts.functions.clone(),
            unfiltered: facts.unfiltered,
            masked_uses: strings(&facts.masked_uses),
            columns_read: strings(&facts.columns_read),
            columns_written: strings(&facts.columns_written),
            estimated_rows: facts.estimated_rows,
            person: person.unwrap_or_default().to_string(),
            groups: who.map(|who| strings(&who.groups)).unwrap_or_default(),
            lifted_by: lift
                .map(|lift| format!("{} {}", lift.kind, lift.by.name))
                .unwrap_or_default(),
            lifted_rule: lift.map(|lift| lift.rule.to_string()).unwrap_or_default(),
            obliged_by: obliging.map(|rule| rule.name.clone()).collect(),
            ..Self::default()
        }
    }
}

fn strings<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}
