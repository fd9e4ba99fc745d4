//! Random walks: messages in orders that nobody would think of.
#![allow(
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

use anyhow::Result;
use interceptor_tests::messages::{
    bind, close, copy_data, copy_done, describe, execute, flush, parse,
};
use interceptor_tests::policies::OPEN;
use interceptor_tests::postgres::Version;
use interceptor_tests::wire::{query, sync};
use interceptor_tests::with_gateway_of;

use super::Both;

/// Pipelines that one run sends, and messages of each.
const WALKS: usize = 400;
const STEPS: usize = 14;

/// A generator of numbers: the same walks in every run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(drawn).unwrap_or(0) % limit
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

const NAMES: &[&str] = &["", "", "a", "b"];
const TEXTS: &[&str] = &[
    "SELECT 1",
    "SELECT generate_series(1, 3), 'x'",
    "SELECT 1 / 0",
    "SELECT $1::int",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "SELECT FROM",
    "SELEC",
    "",
    "SET application_name = 'w'",
    "SET LOCAL extra_float_digits = 1",
    "DEALLOCATE a",
    "DEALLOCATE ALL",
    "CLOSE a",
    "CLOSE c",
    "CLOSE ALL",
    "DISCARD ALL",
    "PREPARE a AS SELECT 2",
    "EXECUTE a",
    "DECLARE c CURSOR FOR SELECT generate_series(1, 4)",
    "FETCH 2 FROM c",
    "COPY (SELECT generate_series(1, 3)) TO STDOUT",
    "COPY walked FROM STDIN",
    "INSERT INTO walked VALUES (1) RETURNING a + 0",
    "DO $$ BEGIN RAISE NOTICE 'noted'; END $$",
];

fn step(dice: &mut Dice) -> Vec<u8> {
    let name = dice.one(NAMES);
    match dice.below(16) {
        0..=3 => parse(name, dice.one(TEXTS), &[]),
        4..=6 => {
            let parameters: &[Option<&[u8]>] = dice.one(&[&[], &[], &[Some(b"7")]]);
            let formats: &[i16] = dice.one(&[&[], &[0], &[1]]);
            bind(dice.one(NAMES), name, &[], parameters, formats)
        }
        7 => describe(dice.one(b"SP"), name),
        8..=10 => execute(name, dice.one(&[0, 0, 1, 2])),
        11 => close(dice.one(b"SP"), name),
        12 => match dice.below(3) {
            0 => flush(),
            1 => copy_data(b"5\n"),
            _ => copy_done(),
        },
        13 => query(&match dice.below(3) {
            0 => [dice.one(TEXTS), dice.one(TEXTS)].join("; "),
            _ => dice.one(TEXTS).to_owned(),
        }),
        _ => sync(),
    }
}

fn walks_are_alike(version: Version, name: &str) -> Result<()> {
    with_gateway_of(version, name, OPEN, |world, _| {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
        let mut both = Both::log_in(world)?;
        let table = "CREATE TEMP TABLE IF NOT EXISTS walked (a int)";
        for walk in 0..WALKS {
            if both.are_closed {
                both = Both::log_in(world)?;
            }
            let mut pipeline = query(table);
            for _ in 0..STEPS {
                pipeline.extend(step(&mut dice));
            }
            both.compare(
                &format!("walk {walk}: {}", pipeline.escape_ascii()),
                &pipeline,
            )?;
        }
        Ok(())
    })
}

#[test]
fn walks_are_alike_on_15() -> Result<()> {
    walks_are_alike(Version::Debian, "walk-15")
}

#[test]
fn walks_are_alike_on_18() -> Result<()> {
    walks_are_alike(Version::Eighteen, "walk-18")
}
