//! Changes of a catalogue that go past the gateway: the connection that read it stays, and asks.
//!
//! It owns when it is asked and what is compared. What a catalogue says is [`super::catalog`]'s.
//!
//! PostgreSQL tells nobody of a change without an event trigger, which only a superuser may make. But
//! each change writes rows of the system's tables, and a row has the number of the transaction that wrote it
//! (`xmin`). How many rows there are and the sum of their numbers change with every change, and
//! with nothing else: what VACUUM and ANALYZE write there, they write in place.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::catalog::{CatalogError, Entry, READ_WAIT_MAX};

/// How often it is asked, while sessions use the database.
const INTERVAL: Duration = Duration::from_secs(3);
/// A large catalogue is asked less often: asking takes no more than this part of the time.
const SHARE: u32 = 20;
/// Who holds an entry that no session uses: the list of entries, and the one that asks.
const IDLE_HOLDERS: usize = 2;

const CHANGES: &str = "
    SELECT concat_ws(' ',
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_catalog.pg_class),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_catalog.pg_attribute),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_catalog.pg_rewrite),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_catalog.pg_inherits),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_catalog.pg_proc),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_catalog.pg_namespace),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_catalog.pg_db_role_setting))";

/// A connection of the gateway's own to a database.
pub(super) struct Side {
    pub(super) client: Client,
    /// Ends when the client is dropped.
    pub(super) connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Drop for Side {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What is compared.
pub(super) async fn state(client: &Client) -> Result<String, CatalogError> {
    Ok(client.query_one(CHANGES, &[]).await?.try_get(0)?)
}

/// Asks until no session uses the database any more. `known` was asked for before the catalogue was
/// read.
pub(super) async fn watch(entry: Weak<Entry>, side: Side, mut known: String) {
    let mut pause = INTERVAL;
    loop {
        tokio::time::sleep(pause).await;
        let Some(entry) = entry.upgrade() else {
            return;
        };
        if Arc::strong_count(&entry) <= IDLE_HOLDERS {
            return entry.unwatched();
        }
        let began = Instant::now();
        match tokio::time::timeout(READ_WAIT_MAX, state(&side.client)).await {
            Ok(Ok(found)) if found == known => {}
            Ok(Ok(found)) => {
                known = found;
                entry.change();
            }
            // Nobody watches any more: who uses the catalogue reads it anew, and this begins again.
            Ok(Err(_)) | Err(_) => {
                entry.unwatched();
                return entry.change();
            }
        }
        pause = INTERVAL.max(began.elapsed() * SHARE);
    }
}
