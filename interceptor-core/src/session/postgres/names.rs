//! Prepared statements and portals by name.
//!
//! The server takes a name only when it completes Parse or Bind, and not at all when it skips the
//! message after an error. A map that ran ahead of it would let a client pass one statement by the
//! judge and run another of the same name. So changes wait in a journal until the server confirms
//! them, and a name that waits from before the last Sync is not looked up at all.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;

use hashbrown::HashMap;

use super::judge::Judged;
use crate::sql::{Analysis, Forgotten};
use crate::wire::postgres::frontend::Object;

/// Names that a session may hold; beyond it Parse is refused.
pub(super) const NAMES_MAX: usize = 100_000;

/// Bytes of the texts of prepared statements that a session may hold; beyond it Parse is refused.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// Bytes of a name. The server cuts longer ones (`NAMEDATALEN`), so that two of them could be one.
pub(super) const NAME_BYTES_MAX: usize = 63;

/// A prepared statement.
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) analysis: Arc<Analysis>,
}

enum Change {
    Statement(Box<[u8]>, Option<Arc<Statement>>),
    Portal(Box<[u8]>, Option<Arc<Judged>>),
    /// SQL is preparing a statement of that name.
    Prepare(Box<[u8]>, Arc<Statement>),
}

struct Entry {
    /// Counts Syncs: which segment of the pipeline it belongs to.
    segment: u64,
    change: Change,
}

/// The result of a look-up.
pub(super) enum Found<T> {
    /// It is this one.
    Known(T),
    /// There is none of that name.
    Absent,
    /// It is not settled which one it is: replies from before the last Sync are outstanding.
    Unsettled,
    /// SQL is giving the name a meaning: whether it does, the server has yet to say.
    Pending,
}

/// The names of one session.
#[derive(Default)]
pub(super) struct Names {
    statements: HashMap<Box<[u8]>, Arc<Statement>>,
    portals: HashMap<Box<[u8]>, Arc<Judged>>,
    journal: VecDeque<Entry>,
    segment: u64,
    text_bytes: usize,
}

impl Names {
    /// No name more may be taken, nor `text_bytes` of text be kept.
    pub(super) fn is_full(&self, text_bytes: usize) -> bool {
        self.statements.len() + self.portals.len() + self.journal.len() >= NAMES_MAX
            || self.text_bytes + text_bytes > TEXT_BYTES_MAX
    }

    /// The client sent a Sync.
    pub(super) fn next_segment(&mut self) {
        self.segment += 1;
    }

    pub(super) fn prepare(&mut self, name: &[u8], statement: Statement) {
        self.text_bytes += statement.text.len();
        self.write(Change::Statement(name.into(), Some(Arc::new(statement))));
    }

    pub(super) fn bind(&mut self, name: &[u8], judged: Arc<Judged>) {
        self.write(Change::Portal(name.into(), Some(judged)));
    }

    pub(super) fn close(&mut self, object: Object, name: &[u8]) {
        self.write(match object {
            Object::Statement => Change::Statement(name.into(), None),
            Object::Portal => Change::Portal(name.into(), None),
        });
    }

    /// A command is on its way that prepares a statement in SQL.
    pub(super) fn prepare_by_sql(&mut self, name: &str, statement: Arc<Statement>) {
        self.text_bytes += statement.text.len();
        self.write(Change::Prepare(name.as_bytes().into(), statement));
    }

    /// The command is over that has the oldest PREPARE in it. `done`: the server did it.
    pub(super) fn prepared_by_sql(&mut self, done: bool) {
        let Some(Entry {
            change: Change::Prepare(name, statement),
            ..
        }) = self.journal.pop_front()
        else {
            return;
        };
        // Beyond the limit the name means nothing: whoever uses it is refused.
        let has_room = self.statements.len() + self.portals.len() < NAMES_MAX;
        let gone = match (done, has_room) {
            (true, true) => self.statements.insert(name, statement),
            (true, false) => {
                self.release(Some(&statement));
                self.statements.remove(&name)
            }
            (false, _) => Some(statement),
        };
        self.release(gone.as_deref());
    }

    fn write(&mut self, change: Change) {
        self.journal.push_back(Entry {
            segment: self.segment,
            change,
        });
    }

    pub(super) fn statement(&self, name: &[u8]) -> Found<Arc<Statement>> {
        let written = self.journal.iter().rev().find_map(|entry| {
            let (known, statement) = match &entry.change {
                Change::Statement(known, statement) => (known, Some(statement)),
                Change::Prepare(known, _) => (known, None),
                Change::Portal(..) => return None,
            };
            (**known == *name).then_some((entry.segment, statement))
        });
        match written {
            Some((_, None)) => Found::Pending,
            Some((segment, Some(statement))) => {
                self.settle(Some((segment, statement.clone())), None)
            }
            None => self.settle(None, self.statements.get(name)),
        }
    }

    pub(super) fn portal(&self, name: &[u8]) -> Found<Arc<Judged>> {
        let written = self
            .journal
            .iter()
            .rev()
            .find_map(|entry| match &entry.change {
                Change::Portal(known, portal) if **known == *name => {
                    Some((entry.segment, portal.clone()))
                }
                _ => None,
            });
        self.settle(written, self.portals.get(name))
    }

    fn settle<T: Clone>(
        &self,
        written: Option<(u64, Option<T>)>,
        confirmed: Option<&T>,
    ) -> Found<T> {
        match (written, confirmed) {
            (Some((segment, _)), _) if segment != self.segment => Found::Unsettled,
            (Some((_, Some(value))), _) => Found::Known(value),
            (Some((_, None)), _) | (None, None) => Found::Absent,
            (None, Some(value)) => Found::Known(value.clone()),
        }
    }

    /// The server completed the oldest Parse, Bind or Close. Gives the portal that is gone, if one
    /// is.
    pub(super) fn confirm(&mut self) -> Option<Arc<Judged>> {
        match self.journal.pop_front().map(|entry| entry.change) {
            Some(Change::Statement(name, statement)) => {
                let gone = match statement {
                    Some(statement) => self.statements.insert(name, statement),
                    None => self.statements.remove(&name),
                };
                self.release(gone.as_deref());
                None
            }
            Some(Change::Portal(name, Some(portal))) => self.portals.insert(name, portal),
            Some(Change::Portal(name, None)) => self.portals.remove(&name),
            // The end of its command takes it out.
            Some(Change::Prepare(..)) | None => None,
        }
    }

    /// The server skipped the oldest Parse, Bind or Close after an error.
    pub(super) fn skip(&mut self) {
        if let Some(Entry {
            change: Change::Statement(_, Some(statement)),
            ..
        }) = self.journal.pop_front()
        {
            self.release(Some(&statement));
        }
    }

    fn release(&mut self, gone: Option<&Statement>) {
        let bytes = gone.map_or(0, |statement| statement.text.len());
        self.text_bytes = self.text_bytes.saturating_sub(bytes);
    }

    /// The transaction ended, and its portals with it.
    pub(super) fn end_transaction(&mut self) {
        self.portals.clear();
    }

    /// SQL took names away, and the server said so. What was written since then is of later
    /// messages.
    pub(super) fn forget(&mut self, forgotten: &Forgotten) {
        let mut freed = 0;
        self.portals
            .retain(|name, _| !forgotten.covers_portal(name));
        self.statements.retain(|name, statement| {
            let goes = forgotten.covers(name);
            freed += if goes { statement.text.len() } else { 0 };
            !goes
        });
        self.text_bytes = self.text_bytes.saturating_sub(freed);
    }

    /// SQL is about to give portals another meaning: what is known of them no longer holds. A client
    /// that goes on using such a name is refused, not misjudged.
    pub(super) fn forget_portals(&mut self, forgotten: &Forgotten) {
        for entry in &mut self.journal {
            if let Change::Portal(name, portal) = &mut entry.change
                && forgotten.covers_portal(name)
            {
                *portal = None;
            }
        }
        self.portals
            .retain(|name, _| !forgotten.covers_portal(name));
    }

    /// Code that cannot be seen may have given every name another meaning: of what a statement
    /// shows nothing is known any more, and portals are gone.
    pub(super) fn doubt(&mut self) {
        let doubted = |statement: &Arc<Statement>| {
            let mut analysis = Analysis::clone(&statement.analysis);
            analysis.lineage.opaque = true;
            Arc::new(Statement {
                text: statement.text.clone(),
                analysis: Arc::new(analysis),
            })
        };
        for statement in self.statements.values_mut() {
            *statement = doubted(statement);
        }
        for entry in &mut self.journal {
            if let Change::Statement(_, Some(statement)) | Change::Prepare(_, statement) =
                &mut entry.change
            {
                *statement = doubted(statement);
            }
        }
        self.forget_portals(&Forgotten::Portals);
    }
}

impl Forgotten {
    fn covers(&self, name: &[u8]) -> bool {
        match self {
            Self::Statement(forgotten) => forgotten.as_bytes() == name,
            Self::Statements => !name.is_empty(),
            Self::Portal(_) | Self::Portals => false,
        }
    }

    fn covers_portal(&self, name: &[u8]) -> bool {
        match self {
            Self::Portal(forgotten) => forgotten.as_bytes() == name,
            Self::Portals => true,
            Self::Statement(_) | Self::Statements => false,
        }
    }
}
