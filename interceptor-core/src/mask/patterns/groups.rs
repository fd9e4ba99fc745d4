//! Groups of digits with single separators between them, as in `4111 1111 1111 1111`.
//!
//! It owns how far a sequence is read. It must not know what its groups are.

use core::ops::{Deref, Range};

use super::bytes;

/// More groups than this has nothing that is looked for: a card has six, a phone number eight.
const GROUPS_MAX: usize = 9;

/// The groups from a digit on, at most [`GROUPS_MAX`].
#[derive(Default)]
pub(super) struct Groups {
    groups: [Range<usize>; GROUPS_MAX],
    count: usize,
}

impl Groups {
    /// Appends one; false if there is no room.
    pub(super) fn push(&mut self, group: Range<usize>) -> bool {
        let Some(place) = self.groups.get_mut(self.count) else {
            return false;
        };
        *place = group;
        self.count += 1;
        true
    }
}

impl Deref for Groups {
    type Target = [Range<usize>];

    fn deref(&self) -> &[Range<usize>] {
        self.groups.get(..self.count).unwrap_or_default()
    }
}

/// Reads the groups that begin at `start`, with one separator between each two.
pub(super) fn read(text: &[u8], start: usize, separates: impl Fn(u8) -> bool) -> Groups {
    let mut groups = Groups::default();
    let mut begin = start;
    loop {
        let end = bytes::digits_end(text, begin);
        if !groups.push(begin..end) {
            return groups;
        }
        match text.get(end..end + 2) {
            Some([separator, next]) if separates(*separator) && next.is_ascii_digit() => {
                begin = end + 1;
            }
            _ => return groups,
        }
    }
}
