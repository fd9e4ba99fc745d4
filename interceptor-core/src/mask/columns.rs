//! Masks on columns.
//!
//! It owns how a column finds its masks. It must not know where the masks come from, nor whether they
//! are in force.
//!
//! A mask is kept under the names that it spells out: `customers.card` under the table and then the
//! column, `*.password` under the column. What has a `*` in both is looked at for every column.

use alloc::vec::Vec;

use super::Method;
use crate::policy::{Doubt, NameMap, NamePattern, RelationPattern};

/// One entry of a mask's `columns`.
#[derive(Debug, Clone)]
pub(crate) struct ColumnMask {
    pub(crate) relation: RelationPattern,
    pub(crate) column: NamePattern,
    pub(crate) method: Method,
}

impl ColumnMask {
    fn is_on(&self, schema: Option<&str>, table: &str) -> bool {
        self.relation.matches(schema, table, Doubt::Matches)
    }
}

/// Column masks that are in force together.
#[derive(Debug)]
pub(crate) struct Columns {
    all: Vec<ColumnMask>,
    tables: NameMap<OfTable>,
    /// Those whose table has a `*`.
    any_table: OfTable,
}

/// Positions in the list of all.
#[derive(Debug, Default)]
struct OfTable {
    every: Vec<u32>,
    columns: NameMap<Vec<u32>>,
    /// Those whose column has a `*`.
    any_column: Vec<u32>,
}

impl OfTable {
    fn insert(&mut self, number: u32, column: &NamePattern) {
        self.every.push(number);
        match column.plain() {
            Some(name) => self.columns.entry(name).push(number),
            None => self.any_column.push(number),
        }
    }

    fn for_column(&self, column: &str) -> impl Iterator<Item = u32> {
        let named = self.columns.get(column).into_iter().flatten();
        named.chain(&self.any_column).copied()
    }
}

impl Columns {
    pub(crate) fn new(all: Vec<ColumnMask>) -> Self {
        let mut tables: NameMap<OfTable> = NameMap::default();
        let mut any_table = OfTable::default();
        for (number, mask) in (0..).zip(&all) {
            let of_table = match mask.relation.plain_name() {
                Some(name) => tables.entry(name),
                None => &mut any_table,
            };
            of_table.insert(number, &mask.column);
        }
        Self {
            all,
            tables,
            any_table,
        }
    }

    /// All of them in one, so that a column is looked up once.
    pub(crate) fn joined<'a>(several: impl Iterator<Item = &'a Self>) -> Self {
        Self::new(
            several
                .flat_map(|columns| columns.all.iter().cloned())
                .collect(),
        )
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those on a table; without a schema, on a table of that name in any.
    pub(super) fn on_table<'a>(
        &'a self,
        schema: Option<&'a str>,
        table: &'a str,
    ) -> impl Iterator<Item = &'a ColumnMask> {
        let named = self.tables.get(table).into_iter();
        let numbers = named.chain([&self.any_table]).flat_map(|some| &some.every);
        self.numbered(numbers.copied())
            .filter(move |mask| mask.is_on(schema, table))
    }

    /// Of those, the ones on a column.
    pub(super) fn on_column<'a>(
        &'a self,
        schema: Option<&'a str>,
        table: &'a str,
        column: &'a str,
    ) -> impl Iterator<Item = &'a ColumnMask> {
        let named = self.tables.get(table).into_iter();
        let numbers = named
            .chain([&self.any_table])
            .flat_map(|some| some.for_column(column));
        self.numbered(numbers).filter(move |mask| {
            mask.is_on(schema, table) && mask.column.matches_identifier(column, Doubt::Matches)
        })
    }

    fn numbered(&self, numbers: impl Iterator<Item = u32>) -> impl Iterator<Item = &ColumnMask> {
        numbers.filter_map(|number| self.all.get(number as usize))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn mask(relation: &str, column: &str, method: Method) -> ColumnMask {
        ColumnMask {
            relation: RelationPattern::parse(relation).unwrap(),
            column: NamePattern::new(column),
            method,
        }
    }

    proptest! {
        /// The same masks as by looking at every one.
        #[test]
        fn it_finds_what_a_scan_finds(
            masks in proptest::collection::vec(
                ("([abAB*]{1,2}[.])?[abAB*]{1,2}", "[abAB*]{1,2}", proptest::sample::select(vec![Method::Partial, Method::Hash, Method::Full, Method::Null])),
                0..20,
            ),
            schema in proptest::option::of("[abAB]{1,2}"),
            table in "[abAB]{1,2}",
            column in "[abAB]{1,2}",
        ) {
            let all: Vec<ColumnMask> = masks.iter().map(|(relation, column, method)| mask(relation, column, *method)).collect();
            let schema = schema.as_deref();
            let columns = Columns::new(all.clone());
            let mut on_table: Vec<Method> = columns.on_table(schema, &table).map(|mask| mask.method).collect();
            let mut expected: Vec<Method> = all.iter().filter(|mask| mask.is_on(schema, &table)).map(|mask| mask.method).collect();
            on_table.sort();
            expected.sort();
            prop_assert_eq!(on_table, expected);
            let on_column = columns.on_column(schema, &table, &column).map(|mask| mask.method).max();
            let expected = all.iter().filter(|mask| mask.is_on(schema, &table) && mask.column.matches_identifier(&column, Doubt::Matches));
            prop_assert_eq!(on_column, expected.map(|mask| mask.method).max());
        }
    }
}
