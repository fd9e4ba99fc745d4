//! Whether the policy asks how many rows a table has.
//!
//! It owns that question, so that nobody reads statistics that no document looks at.

use super::action_document::ActionDocument;
use super::condition::Condition;
use super::expression::Expression;
use super::files::Files;
use super::match_document::MatchDocument;
use super::reference::Referent;

/// Some document that can concern the target asks for it.
pub(super) fn are_needed(files: &Files<'_>, target: &str) -> bool {
    let rules = files.rules.iter();
    let rules = rules.map(|(_, rule)| (&rule.conditions, rule.action.as_ref()));
    let grants = files.grants.iter().chain(&files.bypasses);
    let grants = grants.map(|(_, grant)| (&grant.conditions, None));
    let own = files.targets.iter().filter(|(head, _)| head.name == target);
    let mut own = own.flat_map(|(_, document)| [&document.default, &document.incomplete]);
    let asks = |(conditions, action): (&MatchDocument, Option<&ActionDocument>)| {
        (conditions.conditions.0.iter().any(asks_for_rows)
            || action.is_some_and(|action| action.expressions().any(names_rows)))
            && concerns(conditions, target)
    };
    rules.chain(grants).any(asks) || own.any(|action| action.expressions().any(names_rows))
}

/// By the targets that it names.
pub(super) fn concerns(conditions: &MatchDocument, target: &str) -> bool {
    let mut targets = conditions.references.iter();
    !conditions.has("targets")
        || targets.any(|reference| {
            reference.referent == Referent::Target && reference.pattern().matches(target)
        })
}

fn asks_for_rows(condition: &Condition) -> bool {
    match condition {
        Condition::EstimatedRows(_) => true,
        Condition::When(expression) => names_rows(expression),
        _ => false,
    }
}

fn names_rows(expression: &Expression) -> bool {
    expression.variables().contains(&"statement.estimated_rows")
}
