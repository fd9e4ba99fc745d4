//! Masks that are in force where a rule names them.
//!
//! It owns the combinations of them on each target. They are made once, when a policy is loaded, so that
//! the same combination is the same value for every command of every session; that bounds how many
//! different lists of masks the rules of a target may name.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use super::MASK_LISTS_MAX;
use super::estimates::concerns;
use super::files::{Documents, Files};
use super::reference::Reference;
use super::rule_document::RuleDocument;
use crate::mask::{HashKey, Layer, Masks};

/// The different lists of masks that rules name, by their sorted names.
pub(super) struct MaskLists(HashMap<Vec<String>, u32>);

impl MaskLists {
    pub(super) fn of(rules: &Documents<'_, RuleDocument>) -> Self {
        let lists = rules
            .iter()
            .map(|(_, rule)| sorted(&rule.obligations.masks));
        let mut lists: Vec<Vec<String>> = lists.filter(|list| !list.is_empty()).collect();
        lists.sort();
        lists.dedup();
        Self(lists.into_iter().zip(0..).collect())
    }

    /// `None` for an empty list.
    pub(super) fn number(&self, masks: &[Reference]) -> Option<u32> {
        self.0.get(&sorted(masks)).copied()
    }
}

fn sorted(masks: &[Reference]) -> Vec<String> {
    let mut names: Vec<String> = masks.iter().map(|mask| mask.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// The masks of one target.
#[derive(Debug, Clone)]
pub(super) struct TargetMasks {
    /// Numbers of the lists that have a say here. The position is the bit.
    lists: Vec<u32>,
    /// By the bits of the lists that are in force; the first is what is always in force.
    combined: Vec<Arc<Masks>>,
    always: Arc<Masks>,
}

impl TargetMasks {
    pub(super) const fn always(&self) -> &Arc<Masks> {
        &self.always
    }

    /// The bit of a list; none if it has no say here.
    pub(super) fn bit(&self, list: u32) -> usize {
        let position = self.lists.iter().position(|known| *known == list);
        position.map_or(0, |position| 1 << position)
    }

    /// What is in force with these lists.
    pub(super) fn combined(&self, bits: usize) -> &Arc<Masks> {
        // More bits than there are lists cannot be; everything at once hides most.
        self.combined.get(bits).unwrap_or_else(|| self.all())
    }

    /// Everything that can be in force.
    pub(super) fn all(&self) -> &Arc<Masks> {
        self.combined.last().unwrap_or(&self.always)
    }
}

/// `None` if there are too many lists. `layers` are the masks' in the order of their documents.
pub(super) fn on_target(
    files: &Files<'_>,
    target: &str,
    layers: &[Layer],
    lists: &MaskLists,
    hash_key: &HashKey,
) -> Option<TargetMasks> {
    let here = || {
        let masks = files.masks.iter().zip(layers);
        masks.filter(|((_, mask), _)| mask.is_on(target))
    };
    let always = here().filter(|((_, mask), _)| mask.is_always);
    let always = Masks::new(always.map(|(_, layer)| layer), hash_key.clone());
    let named: HashMap<&str, &Layer> = here()
        .filter(|((_, mask), _)| !mask.is_always)
        .map(|((head, _), layer)| (head.name.as_str(), layer))
        .collect();
    let mut used: HashMap<u32, Vec<&Layer>> = HashMap::new();
    for (_, rule) in &files.rules {
        let masks = &rule.obligations.masks;
        let found = sorted(masks);
        let found: Vec<&Layer> = found
            .iter()
            .filter_map(|name| named.get(name.as_str()).copied())
            .collect();
        if let (Some(list), false) = (lists.number(masks), found.is_empty())
            && concerns(&rule.conditions, target)
        {
            used.insert(list, found);
        }
    }
    if used.len() > MASK_LISTS_MAX {
        return None;
    }
    let mut used: Vec<(u32, Vec<&Layer>)> = used.into_iter().collect();
    used.sort_by_key(|(list, _)| *list);
    let always = Arc::new(always);
    let mut combined = [Arc::clone(&always)].to_vec();
    for (_, layers) in &used {
        // With each list, once more what there is so far, and that list.
        let with: Vec<Arc<Masks>> = combined
            .iter()
            .map(|masks| Arc::new(masks.and(layers.iter().copied())))
            .collect();
        combined.extend(with);
    }
    Some(TargetMasks {
        lists: used.into_iter().map(|(list, _)| list).collect(),
        combined,
        always,
    })
}
