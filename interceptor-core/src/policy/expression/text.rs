//! Texts that are compared where they lie.
//!
//! It owns what `schema.table.column` means without writing it down. It must not know where a text
//! comes from.

use alloc::borrow::Cow;
use core::cmp::Ordering;

/// A text, in one piece or in parts that a dot joins.
#[derive(Debug, Clone)]
pub(super) enum Text<'s> {
    One(Cow<'s, str>),
    Two(&'s str, &'s str),
    Three(&'s str, &'s str, &'s str),
}

impl Text<'_> {
    /// The same, for as long as this lives.
    pub(super) fn borrowed(&self) -> Text<'_> {
        match self {
            Self::One(text) => Text::One(Cow::Borrowed(text)),
            Self::Two(a, b) => Text::Two(a, b),
            Self::Three(a, b, c) => Text::Three(a, b, c),
        }
    }

    fn pieces(&self) -> [&str; 5] {
        match self {
            Self::One(text) => [text, "", "", "", ""],
            Self::Two(a, b) => [a, ".", b, "", ""],
            Self::Three(a, b, c) => [a, ".", b, ".", c],
        }
    }

    fn bytes(&self) -> impl DoubleEndedIterator<Item = u8> {
        self.pieces().into_iter().flat_map(str::bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.pieces().into_iter().map(str::len).sum()
    }

    /// In characters.
    pub(super) fn size(&self) -> usize {
        let pieces = self.pieces().into_iter();
        pieces.map(|piece| piece.chars().count()).sum()
    }

    pub(super) fn equals(&self, other: &Text<'_>) -> bool {
        match (self, other) {
            (Text::One(a), Text::One(b)) => a == b,
            _ => self.len() == other.len() && self.bytes().eq(other.bytes()),
        }
    }

    /// By code point, which is the order of bytes in UTF-8.
    pub(super) fn compare(&self, other: &Text<'_>) -> Ordering {
        self.bytes().cmp(other.bytes())
    }

    pub(super) fn starts_with(&self, other: &Text<'_>) -> bool {
        match (self, other) {
            (Text::One(a), Text::One(b)) => a.starts_with(b.as_ref()),
            _ => self.len() >= other.len() && other.bytes().zip(self.bytes()).all(|(a, b)| a == b),
        }
    }

    pub(super) fn ends_with(&self, other: &Text<'_>) -> bool {
        match (self, other) {
            (Text::One(a), Text::One(b)) => a.ends_with(b.as_ref()),
            _ => {
                let mut backwards = other.bytes().rev().zip(self.bytes().rev());
                self.len() >= other.len() && backwards.all(|(a, b)| a == b)
            }
        }
    }

    /// In one piece.
    pub(super) fn whole(&self) -> Cow<'_, str> {
        match self {
            Self::One(text) => Cow::Borrowed(text),
            _ => Cow::Owned(self.pieces().concat()),
        }
    }

    pub(super) fn contains(&self, other: &Text<'_>) -> bool {
        self.whole().contains(other.whole().as_ref())
    }
}
