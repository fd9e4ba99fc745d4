//! What SQL does to the names of prepared statements and portals, which it shares with the protocol:
//! PREPARE, DEALLOCATE, DISCARD, CLOSE.
//!
//! None of it is believed before the server says that it was done: a DEALLOCATE in a failed
//! transaction takes nothing away. Until then a name that is taken away still means what it meant,
//! for the server knows better; one that is given a meaning means nothing yet.

use alloc::format;
use alloc::sync::Arc;

use super::Session;
use super::judge::{Judged, UNSEEN};
use super::names::Statement;
use super::queue::Running;
use crate::sql::Analysis;
use crate::wire::postgres::encode;

impl Session {
    /// A command goes now. Gives how many names it prepares.
    pub(super) fn begin_names(&mut self, judged: &Judged) -> usize {
        let prepares = &judged.analysis.prepares;
        for (name, _) in prepares {
            // Whoever binds it runs what EXECUTE would.
            let text = format!("EXECUTE \"{}\"", name.replace('"', "\"\""));
            let analysis = self.analyze(&text).unwrap_or_else(|_| unseen());
            let statement = Arc::new(Statement { text, analysis });
            self.names.prepare_by_sql(name, statement);
        }
        prepares.len()
    }

    /// A command that began with [`Self::begin_names`] is over.
    pub(super) fn end_names(&mut self, running: &Running) {
        if running.error_code.is_empty() {
            for forgotten in &running.judged.analysis.forgets {
                self.names.forget(forgotten);
            }
        }
        // Of a Query that failed in its middle those before that are done: no ROLLBACK undoes them.
        for index in 0..running.prepares {
            self.names.prepared_by_sql(index < running.prepared);
        }
    }

    /// What a name means depends on a reply that the server may keep back until it is asked.
    pub(super) fn ask_for_replies(&mut self) {
        let end = |session: &Self| session.sent_up + session.to_server.len() as u64;
        if self.flushed_at != end(self) {
            encode::flush(&mut self.to_server);
            self.flushed_at = end(self);
        }
    }
}

fn unseen() -> Arc<Analysis> {
    let mut analysis = Analysis::default();
    analysis.facts.incomplete = Some(UNSEEN);
    analysis.lineage.opaque = true;
    Arc::new(analysis)
}
