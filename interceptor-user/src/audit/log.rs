//! Where the recorder's writer writes: the log on this machine, or the gateway that has it.

use interceptor_core::audit::chain::Head;

use super::relay::Relay;
use super::store::{Reader, Store};

/// Where the writer writes.
pub enum Log {
    /// The log itself.
    Store(Store),
    /// The gateway that has it now.
    Relay(Relay),
}

impl From<Store> for Log {
    fn from(store: Store) -> Self {
        Self::Store(store)
    }
}

impl From<Relay> for Log {
    fn from(relay: Relay) -> Self {
        Self::Relay(relay)
    }
}

impl Log {
    /// Writes encoded events; their numbers, and the head of the log if it is here.
    pub(super) fn append(
        &mut self,
        events: Vec<Vec<u8>>,
        request_number: u64,
    ) -> Result<(Vec<u64>, Option<Head>), String> {
        match self {
            Self::Store(store) => {
                let first = store.head().sequence.saturating_add(1);
                let head = store
                    .append(events, request_number)
                    .map_err(|error| error.to_string())?;
                Ok(((first..=head.sequence).collect(), Some(head)))
            }
            Self::Relay(relay) => Ok((relay.append(events)?, None)),
        }
    }

    pub(super) fn reader(&self) -> Option<Reader> {
        match self {
            Self::Store(store) => Some(store.reader()),
            Self::Relay(_) => None,
        }
    }
}
