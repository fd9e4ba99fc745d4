//! Port ranges, each with the target that it belongs to; no two overlap.
//!
//! A range is one entry here and one element in nft. In the kernel's trie it becomes prefixes of the
//! port's 16 bits, at most 30 of them (`PORT_PREFIXES_MAX`).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// Bits of a port.
const PORT_BITS: u8 = 16;

/// Ports from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PortRange {
    pub(super) first: u16,
    pub(super) last: u16,
}

/// As nft writes it.
impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

/// The ports of one rule set. Neighbours of the same target are one range, so that equal sets of ports
/// are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    /// By first port.
    spans: BTreeMap<u16, Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Span {
    last: u16,
    target: u32,
}

impl Ports {
    /// Gives `target` the ports of a range that nobody has yet.
    pub(super) fn fill(&mut self, range: RangeInclusive<u16>, target: u32) {
        for gap in self.gaps(range) {
            self.add(gap, target);
        }
    }

    /// Gives the ports that nobody has yet to whom they belong in `outer`.
    pub(super) fn fill_from(&mut self, outer: &Ports) {
        for (range, target) in outer.ranges() {
            self.fill(range.first..=range.last, target);
        }
    }

    /// The parts of a range that nobody has.
    pub(super) fn gaps(&self, range: RangeInclusive<u16>) -> Vec<PortRange> {
        let mut gaps = Vec::new();
        if range.is_empty() {
            return gaps;
        }
        let (first, last) = range.into_inner();
        // Wider than a port: after 65535 comes the end.
        let mut next = u32::from(first);
        let before = self.spans.range(..first).next_back();
        for (start, span) in before.into_iter().chain(self.spans.range(first..=last)) {
            gaps.extend(port_range(next, u32::from(*start)));
            next = next.max(u32::from(span.last) + 1);
        }
        gaps.extend(port_range(next, u32::from(last) + 1));
        gaps
    }

    fn add(&mut self, gap: PortRange, target: u32) {
        let PortRange {
            mut first,
            mut last,
        } = gap;
        let before = self.spans.range(..first).next_back();
        if let Some((start, span)) = before.map(|(start, span)| (*start, *span))
            && span.target == target
            && span.last.checked_add(1) == Some(first)
        {
            first = start;
        }
        if let Some(next) = last.checked_add(1)
            && let Some(span) = self.spans.get(&next).copied()
            && span.target == target
        {
            self.spans.remove(&next);
            last = span.last;
        }
        self.spans.insert(first, Span { last, target });
    }

    pub(super) fn lookup(&self, port: u16) -> Option<u32> {
        let (_, span) = self.spans.range(..=port).next_back()?;
        (port <= span.last).then_some(span.target)
    }

    /// The ranges in order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (PortRange, u32)> {
        self.spans.iter().map(|(first, span)| {
            let range = PortRange {
                first: *first,
                last: span.last,
            };
            (range, span.target)
        })
    }

    /// The same as prefixes: how many leading bits count, the port, and whose it is.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (u8, u16, u32)> {
        self.ranges().flat_map(|(range, target)| {
            Prefixes::of(range).map(move |(bits, port)| (bits, port, target))
        })
    }
}

fn port_range(first: u32, end: u32) -> Option<PortRange> {
    let last = u16::try_from(end.checked_sub(1)?).ok()?;
    let first = u16::try_from(first).ok()?;
    (first <= last).then_some(PortRange { first, last })
}

/// The ports that a prefix of the kernel's trie stands for.
pub(super) fn prefix_ports(bits: u8, port: u16) -> RangeInclusive<u16> {
    let rest = u16::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
    port & !rest..=port | rest
}

/// The fewest prefixes that make up a range, in order.
struct Prefixes {
    next: u32,
    end: u32,
}

impl Prefixes {
    fn of(range: PortRange) -> Self {
        Self {
            next: u32::from(range.first),
            end: u32::from(range.last) + 1,
        }
    }
}

impl Iterator for Prefixes {
    type Item = (u8, u16);

    fn next(&mut self) -> Option<(u8, u16)> {
        let left = self.end.checked_sub(self.next).filter(|left| *left > 0)?;
        // As large as its place allows, and as what is left allows.
        let bits = self.next.trailing_zeros().min(left.ilog2());
        let port = u16::try_from(self.next).ok()?;
        self.next += 1 << bits;
        let bits = u8::try_from(bits).ok()?;
        Some((PORT_BITS.checked_sub(bits)?, port))
    }
}

#[cfg(test)]
mod tests {
    use interceptor_common::PORT_PREFIXES_MAX;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever came first has a port, and the prefixes say the same.
        #[test]
        fn the_first_claim_of_a_port_counts(
            claims in prop::collection::vec((0_u16..=300, 0_u16..=300, 0_u32..4), 0..12),
            top in any::<bool>(),
        ) {
            // Near both ends of the range of ports.
            let base = if top { u16::MAX - 300 } else { 0 };
            let mut ports = Ports::default();
            let mut model = BTreeMap::new();
            for (first, last, target) in claims {
                ports.fill(base + first..=base + last, target);
                for port in base + first..=base + last {
                    model.entry(port).or_insert(target);
                }
            }
            let mut by_prefix = BTreeMap::new();
            for (bits, port, target) in ports.prefixes() {
                for port in prefix_ports(bits, port) {
                    prop_assert_eq!(by_prefix.insert(port, target), None);
                }
            }
            prop_assert_eq!(&by_prefix, &model);
            for port in base..=base + 300 {
                prop_assert_eq!(ports.lookup(port), model.get(&port).copied());
            }
            let spans: Vec<_> = ports.ranges().collect();
            for pair in spans.windows(2) {
                let touches = u32::from(pair[0].0.last) + 1 == u32::from(pair[1].0.first);
                prop_assert!(!touches || pair[0].1 != pair[1].1, "{:?}", spans);
            }
        }

        #[test]
        fn a_range_is_few_prefixes(first in any::<u16>(), last in any::<u16>()) {
            let range = PortRange { first: first.min(last), last: first.max(last) };
            let prefixes: Vec<_> = Prefixes::of(range).collect();
            prop_assert!(prefixes.len() <= PORT_PREFIXES_MAX as usize);
            let ports: u32 = prefixes.iter().map(|(bits, _)| 1 << (16 - bits)).sum();
            prop_assert_eq!(ports, u32::from(range.last - range.first) + 1);
        }
    }

    #[test]
    fn the_worst_range_and_the_whole_one() {
        let count = |first, last| Prefixes::of(PortRange { first, last }).count();
        assert_eq!(count(1, 65534), PORT_PREFIXES_MAX as usize);
        assert_eq!(count(0, 65535), 1);
        assert_eq!(count(1, 65535), 16);
        assert_eq!(
            Prefixes::of(PortRange {
                first: 0,
                last: 65535
            })
            .next(),
            Some((0, 0))
        );
    }
}
