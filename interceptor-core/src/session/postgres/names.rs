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
}

/// The names of one session.
#[derive(Default)]
pub(super) struct Names {
    statements: HashMap<Box<[u8]>, Arc<Statement>>,
    portals: HashMap<Box<[u8]>, Arc<Judged>>,
    journal: VecDeque<Entry>,
    segment: u64,
}

impl Names {
    pub(super) fn is_full(&self) -> bool {
        self.statements.len() + self.portals.len() + self.journal.len() >= NAMES_MAX
    }

    /// The client sent a Sync.
    pub(super) fn next_segment(&mut self) {
        self.segment += 1;
    }

    pub(super) fn prepare(&mut self, name: &[u8], statement: Statement) {
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

    fn write(&mut self, change: Change) {
        self.journal.push_back(Entry {
            segment: self.segment,
            change,
        });
    }

    pub(super) fn statement(&self, name: &[u8]) -> Found<Arc<Statement>> {
        let written = self
            .journal
            .iter()
            .rev()
            .find_map(|entry| match &entry.change {
                Change::Statement(known, statement) if **known == *name => {
                    Some((entry.segment, statement.clone()))
                }
                _ => None,
            });
        self.settle(written, self.statements.get(name))
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

    /// The server completed the oldest Parse, Bind or Close.
    pub(super) fn confirm(&mut self) {
        match self.journal.pop_front().map(|entry| entry.change) {
            Some(Change::Statement(name, Some(statement))) => {
                self.statements.insert(name, statement);
            }
            Some(Change::Statement(name, None)) => {
                self.statements.remove(&name);
            }
            Some(Change::Portal(name, Some(portal))) => {
                self.portals.insert(name, portal);
            }
            Some(Change::Portal(name, None)) => {
                self.portals.remove(&name);
            }
            None => {}
        }
    }

    /// The server skipped the oldest Parse, Bind or Close after an error.
    pub(super) fn skip(&mut self) {
        self.journal.pop_front();
    }

    /// The transaction ended, and its portals with it.
    pub(super) fn end_transaction(&mut self) {
        self.portals.clear();
    }

    /// SQL may have given names another meaning: what is known of them no longer holds. A client
    /// that goes on using such a name is refused, not misjudged.
    pub(super) fn forget(&mut self, forgotten: &Forgotten) {
        for entry in &mut self.journal {
            match &mut entry.change {
                Change::Statement(name, statement) if forgotten.covers(name) => *statement = None,
                Change::Portal(_, portal) if *forgotten == Forgotten::Portals => *portal = None,
                _ => {}
            }
        }
        if *forgotten == Forgotten::Portals {
            self.portals.clear();
        }
        self.statements.retain(|name, _| !forgotten.covers(name));
    }
}

impl Forgotten {
    fn covers(&self, name: &[u8]) -> bool {
        match self {
            Self::Statement(forgotten) => forgotten.as_bytes() == name,
            Self::Statements => !name.is_empty(),
            Self::Portals => false,
        }
    }
}
