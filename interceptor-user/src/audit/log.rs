//! Where the recorder's writer writes: the log on this machine, or the gateway that has it.

use interceptor_core::audit::chain::Head;

use super::relay::Relay;
use super::store::{Reader, Store};

/// Where the writer writes.
pub enum Log {
    /// The log itself.
    Store(Box<Store>),
    /// The gateway that has it now.
    Relay(Relay),
}

impl From<Store> for Log {
    fn from(store: Store) -> Self {
        Self::Store(Box::new(store))
    }
}

impl From<Relay> for Log {
    fn from(relay: Relay) -> Self {
        Self::Relay(relay)
    }
}

impl Log {
    /// Writes encoded events, as one commit; the head of the log if it is here.
    pub(super) fn append<'a>(
        &mut self,
        events: impl Iterator<Item = &'a [u8]>,
        request_number: u64,
    ) -> Result<Option<Head>, String> {
        match self {
            Self::Store(store) => store
                .append(events, request_number)
                .map(Some)
                .map_err(|error| error.to_string()),
            Self::Relay(relay) => relay.append(events).map(|()| None),
        }
    }

    pub(super) fn reader(&self) -> Option<Reader> {
        match self {
            Self::Store(store) => Some(store.reader()),
            Self::Relay(_) => None,
        }
    }
}
