//! Encoded events one after another in one buffer, so that none needs memory of its own.
//!
//! It must not know what they are for.

/// Encoded events in order.
#[derive(Default)]
pub(super) struct Events {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

/// What a buffer keeps of its memory when it is emptied: a burst is not kept for ever.
const KEPT_BYTES: usize = 1024 * 1024;

impl Events {
    /// Adds one.
    pub(super) fn push(&mut self, event: &[u8]) {
        self.bytes.extend_from_slice(event);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Their bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Those from `first` on, at most `events_max`, and no further one after `bytes_soft`.
    pub(super) fn some(
        &self,
        first: usize,
        events_max: usize,
        bytes_soft: usize,
    ) -> impl Iterator<Item = &[u8]> {
        let ends = self.ends.get(first..).unwrap_or_default();
        let begin = match first.checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or_default(),
            None => 0,
        };
        let mut from = begin;
        ends.iter().take(events_max).map_while(move |&end| {
            let event = self.bytes.get(from..end)?;
            let is_within = from - begin < bytes_soft;
            from = end;
            is_within.then_some(event)
        })
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.ends.shrink_to(KEPT_BYTES / 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_in_pieces_within_limits() {
        let mut events = Events::default();
        for length in [3, 0, 5, 7] {
            events.push(&vec![length; usize::from(length)]);
        }
        assert_eq!((events.len(), events.bytes()), (4, 15));
        let lengths = |first, events_max, bytes_soft| -> Vec<usize> {
            let some = events.some(first, events_max, bytes_soft);
            some.map(<[u8]>::len).collect()
        };
        assert_eq!(lengths(0, 9, 99), [3, 0, 5, 7]);
        assert_eq!(lengths(1, 2, 99), [0, 5]);
        assert_eq!(lengths(0, 9, 4), [3, 0, 5]);
        // One is always taken.
        assert_eq!(lengths(3, 9, 1), [7]);
        assert_eq!(lengths(4, 9, 1), [0_usize; 0]);
    }
}
