//! What is kept under a name, where the case of its letters is in doubt.
//!
//! It owns finding a name without writing it in lower case first. It must not know what is kept.

use alloc::boxed::Box;
use core::fmt;
use core::hash::{BuildHasher, Hasher as _};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Bytes of a name that are hashed at a time.
const CHUNK_BYTES: usize = 32;

/// Values by names, of which those that differ in the case of ASCII letters are the same.
#[derive(Clone)]
pub(crate) struct NameMap<T> {
    table: HashTable<(Box<str>, T)>,
    hasher: DefaultHashBuilder,
}

impl<T> Default for NameMap<T> {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for NameMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.table.iter().map(|(name, value)| (name, value));
        f.debug_map().entries(entries).finish()
    }
}

impl<T> NameMap<T> {
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        if self.table.is_empty() {
            return None;
        }
        let same = |(known, _): &(Box<str>, T)| known.eq_ignore_ascii_case(name);
        let entry = self.table.find(hash(&self.hasher, name), same);
        entry.map(|(_, value)| value)
    }
}

impl<T: Default> NameMap<T> {
    /// The value of a name, made if there is none yet.
    pub(crate) fn entry(&mut self, name: &str) -> &mut T {
        let Self { table, hasher } = self;
        let entry = table.entry(
            hash(hasher, name),
            |(known, _)| known.eq_ignore_ascii_case(name),
            |(known, _)| hash(hasher, known),
        );
        let value = || (Box::from(name), T::default());
        &mut entry.or_insert_with(value).into_mut().1
    }
}

fn hash(hasher: &DefaultHashBuilder, name: &str) -> u64 {
    let mut hasher = hasher.build_hasher();
    for chunk in name.as_bytes().chunks(CHUNK_BYTES) {
        let mut folded = [0; CHUNK_BYTES];
        for (to, from) in folded.iter_mut().zip(chunk) {
            *to = from.to_ascii_lowercase();
        }
        hasher.write(folded.get(..chunk.len()).unwrap_or_default());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_of_either_case_are_one() {
        let mut map: NameMap<u32> = NameMap::default();
        assert_eq!(map.get("orders"), None);
        *map.entry("Orders") += 1;
        *map.entry("orders") += 1;
        *map.entry("größe") += 5;
        assert_eq!(map.get("ORDERS"), Some(&2));
        assert_eq!(map.get("GRößE"), Some(&5));
        assert_eq!(map.get("GRÖßE"), None);
        let long = "n".repeat(3 * CHUNK_BYTES + 1);
        *map.entry(&long) = 7;
        assert_eq!(map.get(&long.to_ascii_uppercase()), Some(&7));
        assert_eq!(map.get(long.get(1..).unwrap_or_default()), None);
    }

    proptest! {
        #[test]
        fn it_finds_what_a_scan_finds(names in proptest::collection::vec("[aAbB]{0,3}", 0..20), asked in "[aAbB]{0,3}") {
            let mut map: NameMap<u32> = NameMap::default();
            for name in &names {
                *map.entry(name) += 1;
            }
            let same = |name: &&String| name.eq_ignore_ascii_case(&asked);
            let count = names.iter().filter(same).count();
            prop_assert_eq!(map.get(&asked).copied().unwrap_or(0) as usize, count);
        }
    }
}
