//! What the session made of a command before, for as long as it would make the same of it again.
//!
//! It owns what that rests on beside the analysis, and forgets everything when any of it is not what it
//! was. It must not know how names are found, nor what policy says. Why:
//! `docs/adr/0034-what-was-resolved-stands.md`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use hashbrown::HashMap;

use super::Session;
use super::analyses::ANALYSED_BYTES_MAX;
use super::catalog::Catalog;
use super::judge::COPIES_MASKED;
use super::search_path::SearchPath;
use crate::command::Facts;
use crate::mask::Masks;
use crate::policy::Target;
use crate::sql::{Analysis, Lineage};

/// Analyses of which it is kept what the session makes of them.
const RESOLUTIONS_MAX: usize = 256;

/// What a decision is made on: the analysis, or a copy of it with what the session adds.
pub(super) struct Parts<'a> {
    pub(super) analysis: &'a Analysis,
    pub(super) added: Added,
}

/// What the session adds to an analysis: where it adds nothing, the analysis's own holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Added {
    facts: Option<Arc<Facts>>,
    /// With that of the statements that it runs by name.
    lineage: Option<Box<Lineage>>,
    /// It writes what the target's masks cover to a place that they do not cover.
    pub(super) copies_masked: bool,
}

impl Added {
    pub(super) fn new(facts: Facts, lineage: Lineage) -> Self {
        Self {
            facts: Some(Arc::new(facts)),
            lineage: Some(Box::new(lineage)),
            copies_masked: false,
        }
    }

    pub(super) fn facts<'a>(&'a self, analysis: &'a Analysis) -> &'a Facts {
        self.facts.as_deref().unwrap_or(&analysis.facts)
    }

    pub(super) fn lineage<'a>(&'a self, analysis: &'a Analysis) -> &'a Lineage {
        self.lineage.as_deref().unwrap_or(&analysis.lineage)
    }
}

impl Parts<'_> {
    pub(super) fn facts(&self) -> &Facts {
        self.added.facts(self.analysis)
    }

    pub(super) fn lineage(&self) -> &Lineage {
        self.added.lineage(self.analysis)
    }

    /// The facts, to be changed: those that are kept stay as they are.
    pub(super) fn own(&mut self) -> &mut Facts {
        let analysis = self.analysis;
        let copy = || Arc::new(analysis.facts.clone());
        Arc::make_mut(self.added.facts.get_or_insert_with(copy))
    }
}

/// What was made of analyses, and what all of it rests on.
#[derive(Default)]
pub(super) struct Standing {
    ground: Option<Ground>,
    /// By the analysis's place in memory, which nothing else takes while it is held here.
    resolutions: HashMap<usize, (Arc<Analysis>, Added)>,
}

/// All that a resolution rests on beside the analysis. The policy's view is not in it: whoever changes
/// that says so by [`Standing::forget`].
struct Ground {
    target: Arc<Target>,
    catalog: Option<Arc<Catalog>>,
    is_newest: bool,
    user: String,
    search_path: SearchPath,
}

impl Ground {
    fn of(session: &Session) -> Self {
        let (catalog, is_newest) = session.shared_catalog();
        Self {
            target: Arc::clone(&session.target),
            catalog: catalog.cloned(),
            is_newest,
            user: session.server_user().into(),
            search_path: session.search_path.clone(),
        }
    }

    /// Nothing of it is another than it was.
    fn holds(&self, session: &Session) -> bool {
        let (catalog, is_newest) = session.shared_catalog();
        let same_catalog = match (&self.catalog, catalog) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_catalog
            && self.is_newest == is_newest
            && Arc::ptr_eq(&self.target, &session.target)
            && self.user == session.server_user()
            && self.search_path == session.search_path
    }
}

impl Standing {
    /// What was made of analyses may not be made of them again.
    pub(super) fn forget(&mut self) {
        self.ground = None;
        self.resolutions.clear();
    }

    fn of(&self, analysis: &Arc<Analysis>) -> Option<&Added> {
        self.resolutions
            .get(&place(analysis))
            .map(|(_, added)| added)
    }

    fn keep(&mut self, analysis: &Arc<Analysis>, added: &Added) {
        if self.resolutions.len() >= RESOLUTIONS_MAX {
            self.resolutions.clear();
        }
        let kept = (Arc::clone(analysis), added.clone());
        self.resolutions.insert(place(analysis), kept);
    }
}

fn place(analysis: &Arc<Analysis>) -> usize {
    Arc::as_ptr(analysis).addr()
}

impl Session {
    /// The analysis with what the session adds to it, and whether that stands: the same analysis will be
    /// given the same until [`Standing::forget`].
    pub(super) fn resolve<'a>(
        &mut self,
        analysis: &'a Arc<Analysis>,
        text: &str,
    ) -> (Parts<'a>, bool) {
        let stands = self.may_stand(analysis, text);
        if !stands {
            return (self.resolve_anew(analysis), false);
        }
        if let Some(added) = self.kept.standing.of(analysis).cloned() {
            debug_assert!(
                added == self.resolve_anew(analysis).added,
                "a resolution stood too long"
            );
            return (Parts { analysis, added }, true);
        }
        let parts = self.resolve_anew(analysis);
        self.kept.standing.keep(analysis, &parts.added);
        (parts, true)
    }

    /// What is made of this analysis rests on the [`Ground`] alone, which is now the one in force.
    fn may_stand(&mut self, analysis: &Analysis, text: &str) -> bool {
        // An open transaction adds to what it changed with each command, and names of statements and
        // cursors mean something else with each PREPARE and DECLARE.
        let apart = self.changes().is_some()
            || !analysis.executes.is_empty()
            || !analysis.fetches.is_empty();
        if apart || text.is_empty() || text.len() > ANALYSED_BYTES_MAX {
            return false;
        }
        let ground = self.kept.standing.ground.as_ref();
        if !ground.is_some_and(|ground| ground.holds(self)) {
            self.kept.forget_verdicts();
            self.kept.standing.ground = Some(Ground::of(self));
        }
        true
    }

    fn resolve_anew<'a>(&mut self, analysis: &'a Analysis) -> Parts<'a> {
        let added = self.joined(analysis).unwrap_or_default();
        let mut parts = Parts { analysis, added };
        if let Some(facts) = self.resolved(&parts) {
            parts.added.facts = Some(Arc::new(facts));
        }
        let usual = Arc::clone(&self.target.masks);
        parts.added.copies_masked = self.copies_masked(&usual, &parts);
        if parts.added.copies_masked {
            parts.own().incomplete.get_or_insert(COPIES_MASKED);
        }
        self.add_masked_uses(&usual, &mut parts);
        if self.needs_estimates() {
            parts.own().estimated_rows = self.estimated_rows(&parts);
        }
        parts
    }

    fn add_masked_uses(&mut self, usual: &Arc<Masks>, parts: &mut Parts<'_>) {
        if usual.has_columns()
            && let Some(known) = self.known_provenance(usual)
        {
            let uses = known.masked_uses(parts.lineage(), parts.facts());
            if !uses.is_empty() {
                parts.own().masked_uses = uses;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_the_limit() {
        let mut standing = Standing::default();
        for _ in 0..3 * RESOLUTIONS_MAX {
            let analysis = Arc::new(Analysis::default());
            standing.keep(&analysis, &Added::default());
            assert!(standing.of(&analysis).is_some());
            assert!(standing.resolutions.len() <= RESOLUTIONS_MAX);
        }
        // What is kept holds its analysis, so that no other can take its place in memory.
        for (analysis, _) in standing.resolutions.values() {
            assert_eq!(Arc::strong_count(analysis), 1);
        }
    }

    #[test]
    fn facts_that_are_kept_do_not_change_with_a_commands_own() {
        let analysis = Arc::new(Analysis::default());
        let kept = Added::new(Facts::default(), Lineage::default());
        let mut parts = Parts {
            analysis: &analysis,
            added: kept.clone(),
        };
        parts.own().incomplete = Some(COPIES_MASKED);
        assert_eq!(kept.facts(&analysis).incomplete, None);
        assert_eq!(parts.facts().incomplete, Some(COPIES_MASKED));
    }
}
