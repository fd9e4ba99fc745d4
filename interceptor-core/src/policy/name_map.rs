//! What is kept under a name, where the case of its letters is in doubt.
//!
//! It owns finding a name without writing it in lower case first. It must not know what is kept.

use alloc::boxed::Box;
use core::fmt;

use hashbrown::HashTable;

/// The odd number next to 2^64 divided by the golden ratio, which spreads what is multiplied by it.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Values by names, of which those that differ in the case of ASCII letters are the same.
#[derive(Clone)]
pub(crate) struct NameMap<T> {
    table: HashTable<(Box<str>, T)>,
}

impl<T> Default for NameMap<T> {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
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
        let entry = self.table.find(hash(name), same);
        entry.map(|(_, value)| value)
    }
}

impl<T: Default> NameMap<T> {
    /// The value of a name, made if there is none yet.
    pub(crate) fn entry(&mut self, name: &str) -> &mut T {
        let entry = self.table.entry(
            hash(name),
            |(known, _)| known.eq_ignore_ascii_case(name),
            |(known, _)| hash(known),
        );
        let value = || (Box::from(name), T::default());
        &mut entry.or_insert_with(value).into_mut().1
    }
}

/// Not keyed: what is kept comes from policy files, and a peer's names are only looked up.
fn hash(name: &str) -> u64 {
    let (words, rest) = name.as_bytes().as_chunks::<8>();
    let mut tail = [0; 8];
    for (to, from) in tail.iter_mut().zip(rest) {
        *to = *from;
    }
    let seed = (name.len() as u64).wrapping_mul(MULTIPLIER);
    let hash = words.iter().fold(seed, |hash, word| mix(hash, *word));
    mix(hash, tail)
}

fn mix(hash: u64, word: [u8; 8]) -> u64 {
    // Letters of either case differ in this bit of each byte; other bytes that do collide, which
    // costs a comparison.
    let folded = u64::from_le_bytes(word) | 0x2020_2020_2020_2020;
    let product = u128::from(hash ^ folded).wrapping_mul(u128::from(MULTIPLIER));
    (product >> 64) as u64 ^ product as u64
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
        let long = "n".repeat(97);
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
