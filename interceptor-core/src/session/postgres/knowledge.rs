//! What the session knows of the target's catalogue: when it is read, what masks say of it, and how
//! large its tables are.
//!
//! It owns waiting for the catalogue. It must not know who reads it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::backend::Stop;
use super::catalog::Catalog;
use super::judge::Judged;
use super::provenance::{Origin, Provenance};
use super::standing::Parts;
use super::{Action, Session};
use crate::mask::{Masks, Method};
use crate::wire::postgres::backend::Column;
use crate::wire::postgres::encode::ErrorText;

/// Sets of masks whose meaning for the catalogue is kept; the oldest goes for another.
const PROVENANCES_MAX: usize = 8;

/// What is known of the target's catalogue.
#[derive(Default)]
pub(super) struct CatalogState {
    catalog: Option<Arc<Catalog>>,
    /// What the masks say of it: the target's own, and those that rules put in force.
    provenances: Vec<(Arc<Masks>, Arc<Provenance>)>,
    /// It is being read; what needs it waits.
    pub(super) awaited: bool,
    /// Masks need it: without it nothing goes on.
    pub(super) for_masks: bool,
    /// It could not be read, which only estimates needed.
    unavailable: bool,
    /// A message of the server waits for it.
    for_message: bool,
    /// It was read for the very message that is at hand.
    pub(super) fresh: bool,
    /// The generation that `catalog` belongs to, and the newest known.
    generation: u64,
    pub(super) newest: u64,
    /// What commands of this transaction may have changed, which nobody else can see yet.
    pub(super) changing: Option<Changes>,
}

/// Changes to the catalogue in the open transaction.
#[derive(Default)]
pub(super) struct Changes {
    /// Names of relations that were made, altered or dropped, in whichever schema.
    pub(super) relations: Vec<Box<str>>,
    /// Something else changed, or it cannot be told what.
    pub(super) anything: bool,
}

impl Session {
    /// The catalogue of this session's database, of this generation.
    pub fn handle_catalog(&mut self, catalog: Arc<Catalog>, generation: u64) {
        let usual = catalog.search_path(self.server_user()).map(Box::from);
        self.search_path.note_usual(usual.as_deref());
        self.catalog.catalog = Some(catalog);
        self.catalog.provenances.clear();
        self.catalog.generation = generation;
        self.catalog.newest = self.catalog.newest.max(generation);
        self.catalog.awaited = false;
        self.catalog.fresh = core::mem::take(&mut self.catalog.for_message);
    }

    /// The catalogue has had changes up to this generation: an older one is not used any more.
    pub fn set_catalog_generation(&mut self, generation: u64) {
        self.catalog.newest = self.catalog.newest.max(generation);
    }

    /// The catalogue cannot be read: masks on columns cannot be kept, estimates are not known.
    pub fn handle_no_catalog(&mut self, reason: &str) {
        self.catalog.awaited = false;
        if !self.catalog.for_masks {
            self.catalog.unavailable = true;
            return;
        }
        let mut error = ErrorText::new(
            "58000",
            "interceptor cannot read the target's catalogue, which its masks need",
        );
        error.hint = String::from(
            "Ask the gateway's operator to check `catalog` in the target's policy file.",
        );
        let reason = alloc::format!("the catalogue cannot be read: {reason}");
        self.close_with(&reason, false, &error);
    }

    /// Another policy is in force, with masks of its own.
    pub(super) fn forget_provenances(&mut self) {
        self.catalog.provenances.clear();
        self.catalog.unavailable = false;
    }

    /// Reads the catalogue as the session begins, if its commands will need it.
    pub(super) fn foresee_catalog(&mut self) {
        self.catalog.for_masks = self.target.masks.has_columns();
        if self.catalog.for_masks || self.reads_catalog() {
            self.catalog.awaited = true;
            self.actions.push_back(Action::ReadCatalog { anew: false });
        }
    }

    /// Some mask on columns may be in force, now or for another command.
    pub(super) fn may_mask_columns(&self) -> bool {
        let by_rule = self
            .view
            .as_ref()
            .is_some_and(|view| view.may_mask_columns());
        by_rule || self.target.masks.has_columns()
    }

    /// Rules ask how large tables are, and the catalogue can be read.
    pub(super) fn needs_estimates(&self) -> bool {
        let asked = self
            .view
            .as_ref()
            .is_some_and(|view| view.needs_estimates());
        asked && self.target.catalog.is_some()
    }

    /// The catalogue can be read: it tells how names are found, what functions can do, and sizes.
    pub(super) fn reads_catalog(&self) -> bool {
        self.target.catalog.is_some()
    }

    /// The catalogue, if the one at hand is the newest.
    pub(super) fn known_catalog(&self) -> Option<&Catalog> {
        self.any_catalog()
            .and_then(|(catalog, fresh)| fresh.then_some(catalog))
    }

    /// The catalogue at hand, and whether it is the newest.
    pub(super) fn any_catalog(&self) -> Option<(&Catalog, bool)> {
        let state = &self.catalog;
        let catalog = state.catalog.as_deref()?;
        Some((catalog, state.generation >= state.newest))
    }

    /// The same, to be told from another one.
    pub(super) fn shared_catalog(&self) -> (Option<&Arc<Catalog>>, bool) {
        let state = &self.catalog;
        (state.catalog.as_ref(), state.generation >= state.newest)
    }

    /// What the open transaction may have changed.
    pub(super) fn changes(&self) -> Option<&Changes> {
        self.catalog.changing.as_ref()
    }

    /// Nothing is decided before the catalogue is known, where it can be read: it tells how names are
    /// found, how large tables are, and what views and functions show that names alone do not tell.
    /// `true`: wait.
    pub(super) fn awaits_catalog(&mut self) -> bool {
        if self.known_catalog().is_some() || !self.reads_catalog() {
            return false;
        }
        let for_masks = self.may_mask_columns();
        if !for_masks && self.catalog.unavailable {
            return false;
        }
        self.catalog.for_masks |= for_masks;
        if !self.catalog.awaited {
            self.catalog.awaited = true;
            self.actions.push_back(Action::ReadCatalog { anew: false });
        }
        true
    }

    /// The size of the largest table of a command, by the server's statistics.
    pub(super) fn estimated_rows(&self, parts: &Parts<'_>) -> Option<u64> {
        let catalog = self.catalog.catalog.as_ref()?;
        catalog.estimated_rows(parts.facts(), parts.lineage())
    }

    /// The mask on each column, by where it comes from.
    pub(super) fn methods(
        &mut self,
        columns: &[Column],
        judged: &Judged,
        statement: usize,
    ) -> Result<Vec<Option<Method>>, Stop> {
        if !judged.masks.has_columns() {
            return Ok(alloc::vec![None; columns.len()]);
        }
        let (lineage, facts) = (judged.lineage_of(statement), judged.facts());
        let provenance = self.provenance(&judged.masks)?;
        let changing = self.catalog.changing.as_ref();
        let outdated = changing.is_some_and(|changes| {
            changes.anything || provenance.is_outdated(&changes.relations, facts)
        });
        let anything = changing.is_some_and(|changes| changes.anything);
        let mut methods = Vec::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            let origin = match column.table_oid {
                0 => match provenance.expression(index, lineage, facts) {
                    Some(method) => Origin::Masked(method),
                    None if outdated && lineage.depends(index, anything) => {
                        Origin::Masked(Method::Full)
                    }
                    None => Origin::Clear,
                },
                // Its definition may have changed in this transaction, unseen from outside.
                oid if changing.is_some() && provenance.is_view(oid) => {
                    Origin::Masked(Method::Full)
                }
                oid => provenance.column(oid, column.attribute),
            };
            methods.push(match origin {
                Origin::Clear => None,
                Origin::Masked(method) => Some(method),
                Origin::Unknown if self.catalog.fresh => Some(Method::Full),
                Origin::Unknown => return Err(self.want_catalog()),
            });
        }
        self.catalog.fresh = false;
        Ok(methods)
    }

    /// What masks say of the catalogue, if one that is new enough is there.
    pub(super) fn provenance(&mut self, masks: &Arc<Masks>) -> Result<Arc<Provenance>, Stop> {
        if self.catalog.generation < self.catalog.newest {
            return Err(self.want_catalog());
        }
        match self.known_provenance(masks) {
            Some(provenance) => Ok(provenance),
            None => Err(self.want_catalog()),
        }
    }

    /// What masks say of the catalogue that is at hand, however old.
    pub(super) fn known_provenance(&mut self, masks: &Arc<Masks>) -> Option<Arc<Provenance>> {
        let catalog = self.catalog.catalog.as_ref()?;
        let known = &mut self.catalog.provenances;
        if let Some((_, provenance)) = known.iter().find(|(of, _)| Arc::ptr_eq(of, masks)) {
            return Some(provenance.clone());
        }
        let provenance = Arc::new(Provenance::new(catalog.clone(), masks));
        if known.len() >= PROVENANCES_MAX {
            known.remove(0);
        }
        known.push((masks.clone(), provenance.clone()));
        Some(provenance)
    }

    pub(super) fn want_catalog(&mut self) -> Stop {
        self.catalog.for_masks = true;
        // One that is being read already may be older than what the message speaks of.
        if !self.catalog.awaited {
            self.catalog.for_message = true;
            self.catalog.awaited = true;
            self.actions.push_back(Action::ReadCatalog { anew: true });
        }
        Stop::Catalog
    }
}
