//! Which rules a command can match, found without looking at the others.
//!
//! It owns leaving out rules that cannot match. It must not know what matches: it may leave in any
//! number that do not, and [`super::condition`] judges each.
//!
//! Three sets of rules, a bit each, meet for a command:
//!
//! - the *session's*: those whose conditions on target and client can be met, found once a session;
//! - the *kind's*: those that name the kind of the statement, or none;
//! - the *name's*: those that name one of its tables, columns or functions, letter by letter or by its first
//!   letters, or none. A pattern with `*` among its first letters names nothing here.

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use hashbrown::HashMap;

use super::RelationPattern;
use super::condition::Condition;
use super::decide::Rule;
use super::expression::Scope;
use super::name::{ColumnPattern, Doubt};
use super::name_map::NameMap;
use crate::command::{Column, Facts, KINDS};

/// Words of a set that need no memory of their own: enough for 2,048 rules.
const INLINE_WORDS: usize = 32;
/// Bytes by which a pattern such as `dblink*` is found.
const START_BYTES: usize = 3;
/// Kinds of one command that are told apart; with more, no rule is left out for its kinds.
const KINDS_TOLD_MAX: usize = 8;

/// A set of rules by their positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set(Box<[u64]>);

impl Set {
    fn none_of(rules: usize) -> Self {
        Self(vec![0; rules.div_ceil(64)].into())
    }

    fn insert(&mut self, position: usize) {
        insert(&mut self.0, position);
    }
}

fn insert(words: &mut [u64], position: usize) {
    if let Some(word) = words.get_mut(position / 64) {
        *word |= 1 << (position % 64);
    }
}

fn unite(words: &mut [u64], others: &[u64]) {
    for (word, other) in words.iter_mut().zip(others) {
        *word |= other;
    }
}

/// The rules of a snapshot, by what they ask of a command.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Those that a command of the kind can match.
    kinds: HashMap<&'static str, Set>,
    /// Those that ask for no kind.
    of_any_kind: Set,
    relations: Names,
    functions: Names,
    columns: NameMap<Vec<u32>>,
    /// Those that are in none of these.
    of_any_name: Set,
    /// Those that are found by columns, and for commands that take every column of a table: by the
    /// table, and those that name a column of any.
    by_columns: Set,
    tables_of_columns: NameMap<Vec<u32>>,
    of_any_table: Set,
}

/// The names by which a rule is found.
enum Key<'r> {
    Relations(&'r [RelationPattern]),
    Columns(&'r [ColumnPattern]),
    Functions(&'r [RelationPattern]),
}

impl<'r> Key<'r> {
    /// `None` for a condition on something else, and for a list in which something is no plain name.
    fn of(condition: &'r Condition) -> Option<Self> {
        let plain = |list: &[RelationPattern]| list.iter().all(|one| Start::of(one).is_some());
        match condition {
            Condition::Tables(list) | Condition::Reads(list) | Condition::Writes(list) => {
                plain(list).then_some(Self::Relations(list))
            }
            Condition::Functions(list) => plain(list).then_some(Self::Functions(list)),
            Condition::ColumnsRead(list) | Condition::ColumnsWritten(list) => {
                let is_found = |one: &ColumnPattern| {
                    one.column.plain().is_some() || one.relation.plain_name().is_some()
                };
                list.iter().all(is_found).then_some(Self::Columns(list))
            }
            _ => None,
        }
    }

    const fn len(&self) -> usize {
        match self {
            Self::Relations(list) | Self::Functions(list) => list.len(),
            Self::Columns(list) => list.len(),
        }
    }
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let none = || Set::none_of(rules.len());
        let mut index = Self {
            kinds: KINDS.iter().map(|kind| (*kind, none())).collect(),
            of_any_kind: none(),
            relations: Names::default(),
            functions: Names::default(),
            columns: NameMap::default(),
            of_any_name: none(),
            by_columns: none(),
            tables_of_columns: NameMap::default(),
            of_any_table: none(),
        };
        for (position, rule) in rules.iter().enumerate() {
            index.insert_by_kind(position, rule);
            index.insert_by_name(position, rule);
        }
        index
    }

    fn insert_by_kind(&mut self, position: usize, rule: &Rule) {
        let kinds = rule
            .conditions
            .0
            .iter()
            .find_map(|condition| match condition {
                Condition::Statements(kinds) => Some(kinds),
                _ => None,
            });
        match kinds {
            Some(kinds) => {
                for kind in kinds {
                    if let Some(set) = self.kinds.get_mut(kind) {
                        set.insert(position);
                    }
                }
            }
            None => {
                self.of_any_kind.insert(position);
                for set in self.kinds.values_mut() {
                    set.insert(position);
                }
            }
        }
    }

    /// Under one of its lists: a rule matches only if each of them does.
    fn insert_by_name(&mut self, position: usize, rule: &Rule) {
        let keys = rule.conditions.0.iter().filter_map(Key::of);
        let shortest = keys.min_by_key(Key::len);
        let number = u32::try_from(position).unwrap_or(u32::MAX);
        match shortest {
            None => self.of_any_name.insert(position),
            Some(Key::Relations(list)) => self.relations.post(number, list),
            Some(Key::Functions(list)) => self.functions.post(number, list),
            Some(Key::Columns(list)) => {
                self.by_columns.insert(position);
                for one in list {
                    self.insert_column(position, number, one);
                }
            }
        }
    }

    /// By its name; or, if that has a `*`, by its table.
    fn insert_column(&mut self, position: usize, number: u32, pattern: &ColumnPattern) {
        let table = pattern.relation.plain_name();
        match (pattern.column.plain(), table) {
            (Some(column), _) => put(self.columns.entry(column), number),
            (None, Some(table)) => put(self.relations.whole.entry(table), number),
            (None, None) => {}
        }
        match table {
            Some(table) => put(self.tables_of_columns.entry(table), number),
            None => self.of_any_table.insert(position),
        }
    }

    /// The rules whose conditions on target and client can be met in a session.
    pub(super) fn of_session(rules: &[Rule], scope: &Scope<'_>) -> Set {
        let mut set = Set::none_of(rules.len());
        for (position, rule) in rules.iter().enumerate() {
            // What a rule asks for beside its outcome restricts, even where the outcome permits.
            let doubt = match rule.allows() && rule.obligations.is_none() {
                true => Doubt::Differs,
                false => Doubt::Matches,
            };
            let mut conditions = rule.conditions.0.iter();
            if conditions.all(|one| !one.is_of_the_session() || one.holds(scope, doubt)) {
                set.insert(position);
            }
        }
        set
    }

    /// The rules of a session that a command can match.
    pub(super) fn candidates(&self, session: &Set, facts: &Facts) -> Candidates {
        let mut found = Candidates::new(&self.of_any_name);
        let words = found.words_mut();
        for relation in facts.reads.iter().chain(&facts.writes) {
            self.relations.take(&relation.name, words);
        }
        // Columns of one table stand together.
        let mut table = None;
        for column in facts.columns_read.iter().chain(&facts.columns_written) {
            if let (Some(relation), Some(_)) = (&column.relation, &column.name)
                && table != Some(relation)
            {
                table = Some(relation);
                self.relations.take(&relation.name, words);
            }
            self.take_column(column, facts, words);
        }
        for function in &facts.functions {
            let name = function
                .rsplit_once('.')
                .map_or(function.as_str(), |(_, name)| name);
            self.functions.take(name, words);
        }
        for (word, session) in words.iter_mut().zip(&session.0) {
            *word &= session;
        }
        self.keep_kinds(facts, words);
        found
    }

    fn take_column(&self, column: &Column, facts: &Facts, words: &mut [u64]) {
        let names_none = facts.reads.is_empty() && facts.writes.is_empty();
        match (&column.relation, &column.name) {
            (Some(_), Some(name)) => take(&self.columns, name, words),
            (Some(relation), None) => {
                take(&self.tables_of_columns, &relation.name, words);
                unite(words, &self.of_any_table.0);
            }
            (None, Some(name)) if !names_none => take(&self.columns, name, words),
            // It can be any column of any table.
            (None, _) => unite(words, &self.by_columns.0),
        }
    }

    fn keep_kinds(&self, facts: &Facts, words: &mut [u64]) {
        let mut sets = [&*self.of_any_kind.0; KINDS_TOLD_MAX];
        if facts.kinds.len() > KINDS_TOLD_MAX {
            return;
        }
        for (set, kind) in sets.iter_mut().zip(&facts.kinds) {
            if let Some(known) = self.kinds.get(kind) {
                *set = &known.0;
            }
        }
        let sets = sets.get(..facts.kinds.len().max(1)).unwrap_or_default();
        match sets {
            [one] => {
                for (word, kind) in words.iter_mut().zip(*one) {
                    *word &= kind;
                }
            }
            several => {
                for (position, word) in words.iter_mut().enumerate() {
                    let of_kinds = several.iter().filter_map(|set| set.get(position));
                    *word &= of_kinds.fold(0, |all, one| all | one);
                }
            }
        }
    }
}

/// What a pattern is found by.
enum Start<'r> {
    /// The whole name.
    Whole(&'r str),
    /// As many bytes of it as [`START_BYTES`], in front of its first `*`.
    Bytes(&'r str),
}

impl<'r> Start<'r> {
    fn of(pattern: &'r RelationPattern) -> Option<Self> {
        if let Some(name) = pattern.plain_name() {
            return Some(Self::Whole(name));
        }
        let text = pattern.name().as_str();
        let (before, _) = text.split_once('*')?;
        before.get(..START_BYTES).map(Self::Bytes)
    }
}

/// Rules by the names of relations or functions.
#[derive(Debug, Default)]
struct Names {
    whole: NameMap<Vec<u32>>,
    starts: NameMap<Vec<u32>>,
}

impl Names {
    fn post(&mut self, number: u32, patterns: &[RelationPattern]) {
        for start in patterns.iter().filter_map(Start::of) {
            let numbers = match start {
                Start::Whole(name) => self.whole.entry(name),
                Start::Bytes(start) => self.starts.entry(start),
            };
            put(numbers, number);
        }
    }

    fn take(&self, name: &str, words: &mut [u64]) {
        take(&self.whole, name, words);
        if let Some(start) = name.get(..START_BYTES) {
            take(&self.starts, start, words);
        }
    }
}

fn put(numbers: &mut Vec<u32>, number: u32) {
    if numbers.last() != Some(&number) {
        numbers.push(number);
    }
}

fn take(map: &NameMap<Vec<u32>>, name: &str, words: &mut [u64]) {
    for number in map.get(name).into_iter().flatten() {
        insert(words, *number as usize);
    }
}

/// The rules that a command can match.
#[derive(Debug)]
pub(super) struct Candidates {
    inline: [u64; INLINE_WORDS],
    /// Instead of `inline`, for more rules than it takes.
    many: Vec<u64>,
    len: usize,
}

impl Candidates {
    fn new(start: &Set) -> Self {
        let mut candidates = Self {
            inline: [0; INLINE_WORDS],
            many: Vec::new(),
            len: start.0.len(),
        };
        if candidates.len > INLINE_WORDS {
            candidates.many = start.0.to_vec();
        } else {
            unite(&mut candidates.inline, &start.0);
        }
        candidates
    }

    fn words_mut(&mut self) -> &mut [u64] {
        match self.len > INLINE_WORDS {
            true => &mut self.many,
            false => self.inline.get_mut(..self.len).unwrap_or_default(),
        }
    }

    fn words(&self) -> &[u64] {
        match self.len > INLINE_WORDS {
            true => &self.many,
            false => self.inline.get(..self.len).unwrap_or_default(),
        }
    }

    /// In the order of the rules.
    pub(super) fn of<'c>(&'c self, rules: &'c [Rule]) -> impl Iterator<Item = &'c Rule> + Clone {
        let words = self.words().iter().enumerate();
        let positions = words
            .flat_map(|(word_position, word)| Ones(*word).map(move |bit| word_position * 64 + bit));
        positions.filter_map(move |position| rules.get(position))
    }
}

/// The positions of the ones in a word.
#[derive(Debug, Clone)]
struct Ones(u64);

impl Iterator for Ones {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let position = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(position)
    }
}
