//! The session's `search_path`, as far as it can be known without asking.
//!
//! It owns which values it may have at the moment. A command is judged before those sent ahead of it
//! have run, so that several values can be possible; one of them is settled on when the server has
//! answered everything, said that no transaction is open, and nothing failed meanwhile. It must not
//! know what is looked up.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::judge::{self, Judged};
use super::{Phase, Session};
use crate::command::Facts;
use crate::sql::{self, PathChange};
use crate::wire::postgres::startup::Begun;

/// Values that are kept; of more nothing is known.
const VALUES_MAX: usize = 8;
/// Names of the session's own relations that are kept; beyond it any name may be one.
const TEMPORARY_MAX: usize = 1_000;

/// A value of `search_path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// What sessions of this role begin with.
    Usual,
    /// These schemas, in order.
    Schemas(Arc<[Box<str>]>),
}

/// What is known of it. What was looked up with it stands while all of it is the same.
#[derive(Clone, PartialEq)]
pub(super) struct SearchPath {
    /// What the session began with; `None` if that could not be read.
    initial: Option<Value>,
    /// Every value that it may have; `None` for any.
    values: Option<Vec<Value>>,
    /// What it was when nothing was under way.
    settled: Option<Vec<Value>>,
    /// Changes since then that came to their end, and last for the session.
    last: Option<Value>,
    /// Changes since then are for their transaction only.
    only_local: bool,
    /// Since then something failed or was rolled back, or may not have taken effect.
    unclear: bool,
    /// The server reports every change of it.
    reported: bool,
    /// A cursor may change it whenever rows are fetched.
    lost: bool,
    /// `$user` may be somebody else.
    role_changed: bool,
    /// What the catalogue said that sessions begin with, each time that it was read: a later setting is
    /// not for this session.
    usual: Vec<Option<Box<str>>>,
    /// Names that relations of the session's own may have.
    temporary: BTreeSet<Box<str>>,
    /// Any name may be that of a relation of the session's own.
    any_temporary: bool,
}

impl Default for SearchPath {
    fn default() -> Self {
        let usual = Some(alloc::vec![Value::Usual]);
        Self {
            initial: Some(Value::Usual),
            values: usual.clone(),
            settled: usual,
            last: None,
            only_local: true,
            unclear: false,
            reported: false,
            lost: false,
            role_changed: false,
            usual: Vec::new(),
            temporary: BTreeSet::new(),
            any_temporary: false,
        }
    }
}

impl SearchPath {
    /// The session begins.
    pub(super) fn begin(&mut self, begun: &Begun, sets_role: bool) {
        self.initial = match begun {
            Begun::Usual => Some(Value::Usual),
            Begun::Set(value) => sql::schemas(value).map(Value::of),
            Begun::Unclear => None,
        };
        self.values = self.initial.clone().map(|value| alloc::vec![value]);
        self.settled.clone_from(&self.values);
        self.role_changed = sets_role;
    }

    /// The schemas that may be looked through, whichever value it has; `None` if that can be any.
    pub(super) fn schemas(&self, user: &str) -> Option<BTreeSet<Box<str>>> {
        let mut schemas = BTreeSet::new();
        let values = self.values.as_ref().filter(|_| !self.lost)?;
        for value in values {
            match value {
                Value::Usual if self.usual.is_empty() => return None,
                Value::Usual => {
                    for usual in &self.usual {
                        schemas.extend(sql::schemas(usual.as_deref()?)?);
                    }
                }
                Value::Schemas(list) => schemas.extend(list.iter().cloned()),
            }
        }
        if schemas.remove("$user") {
            if self.role_changed {
                return None;
            }
            schemas.insert(user.into());
        }
        Some(schemas)
    }

    /// The catalogue says what sessions of this role begin with.
    pub(super) fn note_usual(&mut self, usual: Option<&str>) {
        // Beyond the limit nothing is known.
        let usual = usual.filter(|_| self.usual.len() < VALUES_MAX);
        let mut known = self.usual.iter();
        if !known.any(|known| known.as_deref() == usual) {
            self.usual.push(usual.map(Into::into));
        }
    }

    /// The name may be that of a relation of the session's own, which comes before all others.
    pub(super) fn may_be_temporary(&self, name: &str) -> bool {
        self.any_temporary || self.temporary.contains(name)
    }

    /// The server refused something: what it is part of is undone.
    pub(super) fn fails(&mut self) {
        self.unclear = true;
    }

    /// Code runs that is not seen: it may do anything.
    fn doubt(&mut self) {
        self.any_temporary = true;
        self.role_changed = true;
        self.forget();
    }

    fn forget(&mut self) {
        self.unclear = true;
        self.only_local = false;
        // The server says what it is then.
        self.values = None;
    }

    /// A change is on its way.
    fn may_become(&mut self, change: &PathChange) {
        self.only_local &= change.local;
        self.unclear |= !change.certain;
        let value = self.value(change);
        let (Some(values), Some(value)) = (&mut self.values, value) else {
            return self.forget();
        };
        if !values.contains(&value) {
            values.push(value);
        }
        if values.len() > VALUES_MAX {
            self.forget();
        }
    }

    fn value(&self, change: &PathChange) -> Option<Value> {
        match &change.schemas {
            Some(schemas) => Some(Value::of(schemas.clone())),
            None => self.initial.clone(),
        }
    }

    /// A command with changes came to its end without an error.
    fn became(&mut self, changes: &[PathChange]) {
        if let Some(last) = changes.iter().rfind(|change| !change.local) {
            self.last = self.value(last);
        }
    }

    /// Nothing is under way any more.
    fn settle(&mut self) {
        if self.only_local {
            self.values.clone_from(&self.settled);
        } else if let Some(last) = self.last.take().filter(|_| !self.unclear) {
            self.values = Some(alloc::vec![last]);
        }
        self.settled.clone_from(&self.values);
        self.last = None;
        self.only_local = true;
        self.unclear = false;
    }

    /// The server reports it, as PostgreSQL 18 does whenever it changes.
    fn report(&mut self, value: &str) {
        self.reported = true;
        let value = sql::schemas(value).map(Value::of);
        self.settled = value.map(|value| alloc::vec![value]);
    }

    /// The server reported everything up to now.
    fn settle_reported(&mut self) {
        self.only_local = true;
        self.lost = false;
        self.settle();
    }
}

impl Value {
    fn of(schemas: Vec<Box<str>>) -> Self {
        Self::Schemas(schemas.into())
    }
}

impl Session {
    /// Takes into account what a command may do to how names are found.
    pub(super) fn foresee_finding(&mut self, judged: &Judged) {
        let facts = judged.facts();
        let path = &mut self.search_path;
        let analysis = &judged.analysis;
        // In a session that is kept read-only a function is complete, and can change settings.
        let unseen = self.read_only.is_some() && facts.unknown_calls;
        if unseen || runs_unseen(facts) {
            path.doubt();
        }
        let set_config = |name: &alloc::string::String| name.ends_with("set_config");
        let by_name = !analysis.executes.is_empty() || !analysis.fetches.is_empty();
        if analysis.unseen_settings || (by_name && facts.functions.iter().any(set_config)) {
            path.role_changed = true;
            path.forget();
        }
        path.lost |= analysis.cursor_settings;
        path.unclear |= facts.kinds.contains(&"ROLLBACK");
        path.role_changed |= analysis.finding.role;
        for change in &analysis.finding.paths {
            path.may_become(change);
        }
        path.temporary
            .extend(analysis.finding.temporary.iter().cloned());
        if path.temporary.len() > TEMPORARY_MAX {
            path.any_temporary = true;
            path.temporary.clear();
        }
    }

    /// A command came to its end, without an error if `done`.
    pub(super) fn found_after(&mut self, judged: &Judged, done: bool) {
        match done {
            true => self.search_path.became(&judged.analysis.finding.paths),
            false => self.search_path.unclear = true,
        }
    }

    /// ReadyForQuery came.
    pub(super) fn settle_finding(&mut self) {
        let path = &mut self.search_path;
        if !self.expected.is_empty() {
            return;
        }
        if path.reported {
            path.settle_reported();
        } else if self.settings.idle {
            path.settle();
        }
    }

    /// The server reports its `search_path`.
    pub(super) fn note_search_path(&mut self, value: &[u8]) {
        match core::str::from_utf8(value) {
            Ok(value) => self.search_path.report(value),
            Err(_) => self.search_path.report("\""),
        }
        if self.phase < Phase::Running {
            self.search_path.settle_reported();
        }
    }
}

/// It runs code that is not seen, which can make relations of the session's own and set anything.
pub(super) fn runs_unseen(facts: &Facts) -> bool {
    judge::hides_code(facts) || facts.incomplete.is_some()
}
