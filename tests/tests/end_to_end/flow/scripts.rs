//! Scripts that were thought of, each with the trap in it.

use anyhow::Result;
use interceptor_tests::messages::{
    bind, close, copy_data, copy_done, copy_fail, describe, execute, flush, function_call, parse,
};
use interceptor_tests::policies::OPEN;
use interceptor_tests::postgres::Version;
use interceptor_tests::wire::{extended, query, sync};
use interceptor_tests::with_gateway_of;

use super::Both;

type Script = (&'static str, Vec<Vec<u8>>);

const NOTIFICATIONS: &str = "notifications";

/// Pipelines, and errors in their middle.
fn pipelines() -> Vec<Script> {
    let select = |name: &str| parse(name, "SELECT generate_series(1, 5)", &[]);
    vec![
        ("nothing but Sync", vec![sync(), sync(), sync()]),
        ("an empty statement", vec![extended(""), sync()]),
        (
            "an empty query",
            vec![query(""), query(";"), query(" ; ; ")],
        ),
        (
            "an error takes what follows with it up to Sync",
            vec![
                extended("SELECT 1"),
                extended("SELECT 1 / 0"),
                extended("SELECT 2"),
                describe(b'S', "nothing"),
                close(b'S', "nothing"),
                flush(),
                query("SELECT 'skipped as well'"),
                sync(),
                extended("SELECT 3"),
                sync(),
            ],
        ),
        (
            "an error of Parse, of Bind, of Describe and of Execute",
            vec![
                parse("", "SELECT FROM WHERE", &[]),
                sync(),
                parse("", "SELECT $1::int", &[]),
                bind("", "", &[], &[Some(b"no number")], &[]),
                sync(),
                describe(b'S', "nobody"),
                sync(),
                describe(b'P', "nobody"),
                sync(),
                bind("", "nobody", &[], &[], &[]),
                sync(),
                execute("nobody", 0),
                sync(),
            ],
        ),
        (
            "a transaction of an implicit block ends at Sync",
            vec![
                extended("CREATE TEMP TABLE gone (a int)"),
                extended("SELECT 1 / 0"),
                sync(),
                extended("SELECT count(*) FROM pg_class WHERE relname = 'gone'"),
                sync(),
            ],
        ),
        (
            "several statements in one Query are one implicit transaction",
            vec![
                query(
                    "CREATE TEMP TABLE both (a int); INSERT INTO both VALUES (1), (2); SELECT a + 0 FROM both; SELECT 1 / 0; SELECT 3",
                ),
                query("SELECT count(*) FROM pg_class WHERE relname = 'both'"),
                query("SELECT 1; BEGIN; SELECT 2; COMMIT; SELECT 3"),
                query("BEGIN; SELECT 1 / 0; SELECT 2"),
                query("SELECT 'failed'"),
                query("ROLLBACK; SELECT 'again'"),
            ],
        ),
        (
            "row limits and suspended portals",
            vec![
                select("rows"),
                bind("p", "rows", &[], &[], &[]),
                describe(b'P', "p"),
                execute("p", 2),
                execute("p", 2),
                execute("p", 2),
                execute("p", 2),
                bind("q", "rows", &[], &[], &[1]),
                execute("q", 1),
                close(b'P', "q"),
                execute("q", 1),
                sync(),
                execute("p", 1),
                sync(),
                close(b'S', "rows"),
                sync(),
            ],
        ),
        (
            "two portals take turns",
            vec![
                select("turns"),
                bind("one", "turns", &[], &[], &[]),
                bind("two", "turns", &[], &[], &[1]),
                execute("one", 1),
                execute("two", 2),
                execute("one", 2),
                execute("two", 0),
                execute("one", 0),
                sync(),
                close(b'S', "turns"),
                sync(),
            ],
        ),
        (
            "portals live as long as their transaction",
            vec![
                query("BEGIN"),
                select("kept"),
                bind("kept", "kept", &[], &[], &[]),
                execute("kept", 2),
                sync(),
                execute("kept", 2),
                sync(),
                query("COMMIT"),
                execute("kept", 2),
                sync(),
                close(b'S', "kept"),
                sync(),
            ],
        ),
    ]
}

/// Names of statements and portals, by the protocol and by SQL.
fn names() -> Vec<Script> {
    vec![
        (
            "a name is used again",
            vec![
                parse("s", "SELECT 1", &[]),
                parse("s", "SELECT 2", &[]),
                sync(),
                bind("", "s", &[], &[], &[]),
                execute("", 0),
                sync(),
                close(b'S', "s"),
                parse("s", "SELECT 3", &[]),
                bind("", "s", &[], &[], &[]),
                execute("", 0),
                close(b'S', "s"),
                close(b'S', "s"),
                sync(),
            ],
        ),
        (
            "the unnamed ones are replaced, and go with a Query",
            vec![
                parse("", "SELECT 1", &[]),
                parse("", "SELECT 2", &[]),
                bind("", "", &[], &[], &[]),
                bind("", "", &[], &[], &[]),
                execute("", 0),
                sync(),
                query("SELECT 3"),
                bind("", "", &[], &[], &[]),
                sync(),
            ],
        ),
        (
            "DEALLOCATE of what the protocol prepared",
            vec![
                parse("mine", "SELECT 'mine'", &[]),
                sync(),
                query("DEALLOCATE mine"),
                bind("", "mine", &[], &[], &[]),
                sync(),
                parse("mine", "SELECT 'again'", &[]),
                bind("", "mine", &[], &[], &[]),
                execute("", 0),
                extended("DEALLOCATE ALL"),
                bind("", "mine", &[], &[], &[]),
                sync(),
                describe(b'S', "mine"),
                sync(),
            ],
        ),
        (
            "a DEALLOCATE that fails takes nothing",
            vec![
                parse("stays", "SELECT 'here'", &[]),
                sync(),
                query("BEGIN"),
                query("SELECT 1 / 0"),
                query("DEALLOCATE stays"),
                query("DEALLOCATE ALL"),
                query("ROLLBACK"),
                bind("", "stays", &[], &[], &[]),
                execute("", 0),
                sync(),
                query("BEGIN"),
                query("DISCARD ALL"),
                query("ROLLBACK"),
                bind("", "stays", &[], &[], &[]),
                execute("", 0),
                sync(),
                query("DISCARD ALL"),
                bind("", "stays", &[], &[], &[]),
                sync(),
            ],
        ),
        (
            "an unnamed statement that is not understood leaves none behind",
            vec![
                parse("", "SELECT 'old'", &[]),
                sync(),
                parse("", "SELEC 'new'", &[]),
                sync(),
                bind("", "", &[], &[], &[]),
                execute("", 0),
                sync(),
            ],
        ),
        (
            "a PREPARE that fails changes nothing, one that is done counts for the protocol",
            vec![
                parse("taken", "SELECT 'first'", &[]),
                sync(),
                extended("PREPARE taken AS SELECT 'second'"),
                sync(),
                bind("", "taken", &[], &[], &[]),
                execute("", 0),
                sync(),
                extended("DEALLOCATE taken"),
                extended("PREPARE taken AS SELECT 'third'"),
                bind("", "taken", &[], &[], &[]),
                execute("", 0),
                sync(),
                query("DISCARD TEMP; DISCARD PLANS"),
                bind("", "taken", &[], &[], &[]),
                execute("", 0),
                close(b'S', "taken"),
                sync(),
            ],
        ),
        (
            "EXECUTE in SQL of what the protocol prepared, and the other way round",
            vec![
                parse("shared", "SELECT $1::int + 1", &[]),
                sync(),
                query("EXECUTE shared (41)"),
                query("DEALLOCATE shared"),
                query("PREPARE shared AS SELECT 'by SQL'"),
                query("EXECUTE shared"),
                close(b'S', "shared"),
                sync(),
                query("EXECUTE shared"),
            ],
        ),
        (
            "cursors",
            vec![
                query("BEGIN; DECLARE c SCROLL CURSOR FOR SELECT generate_series(1, 9)"),
                query(
                    "FETCH 2 FROM c; MOVE 2 IN c; FETCH BACKWARD 1 FROM c; FETCH ABSOLUTE 7 FROM c",
                ),
                describe(b'P', "c"),
                sync(),
                query("CLOSE c; FETCH c"),
                query(
                    "ROLLBACK; BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT generate_series(1, 4); COMMIT",
                ),
                query("FETCH 3 FROM h"),
                extended("FETCH ALL FROM h"),
                sync(),
                query("CLOSE h"),
                query("FETCH 3 FROM h"),
            ],
        ),
    ]
}

/// Formats and parameters.
fn values() -> Vec<Script> {
    vec![
        (
            "a format for each column, a shape that is known from before",
            vec![
                parse("shape", "SELECT $1::int, $2::text, $3::numeric, NULL", &[]),
                describe(b'S', "shape"),
                sync(),
                bind(
                    "",
                    "shape",
                    &[1, 0, 0],
                    &[Some(&[0, 0, 0, 7]), Some(b"seven"), Some(b"7.50")],
                    &[1, 0, 1, 0],
                ),
                execute("", 0),
                bind("", "shape", &[], &[None, None, None], &[0]),
                execute("", 0),
                sync(),
                bind("", "shape", &[], &[None, None, None], &[1, 0]),
                sync(),
                bind("", "shape", &[], &[None], &[]),
                sync(),
                close(b'S', "shape"),
                sync(),
            ],
        ),
        (
            "calls of functions by number",
            vec![
                // int4pl, lo_creat, a function that there is not, one with a wrong argument
                function_call(177, &[Some(&[0, 0, 0, 40]), Some(&[0, 0, 0, 2])]),
                function_call(177, &[Some(&[0, 0, 0, 40]), None]),
                function_call(999_999, &[]),
                function_call(177, &[Some(&[1])]),
                query("SELECT 1"),
            ],
        ),
    ]
}

/// COPY both ways.
fn copies() -> Vec<Script> {
    let table = query("CREATE TEMP TABLE copied (a int, b text)");
    let drop = query("DROP TABLE copied");
    vec![
        (
            "COPY in, in pieces of any size",
            vec![
                table.clone(),
                query("COPY copied FROM STDIN"),
                copy_data(b"1\tone\n2\tt"),
                copy_data(b"wo\n"),
                copy_data(b""),
                sync(),
                flush(),
                copy_data(b"3\tthree\n"),
                copy_done(),
                query("COPY copied TO STDOUT; COPY copied TO STDOUT (FORMAT csv, HEADER)"),
                query("COPY copied TO STDOUT (FORMAT binary)"),
                drop.clone(),
            ],
        ),
        (
            "COPY in that fails",
            vec![
                table.clone(),
                query("COPY copied FROM STDIN"),
                copy_data(b"no number\tone\n"),
                copy_data(b"2\ttwo\n"),
                copy_done(),
                query("COPY copied FROM STDIN"),
                copy_data(b"1\tone\n"),
                copy_fail("changed my mind"),
                query("COPY nothing FROM STDIN"),
                copy_data(b"1\tone\n"),
                copy_done(),
                query("SELECT a + 0, b || '' FROM copied"),
                drop.clone(),
            ],
        ),
        (
            "COPY by the extended protocol",
            vec![
                table.clone(),
                parse("", "COPY copied FROM STDIN (FORMAT csv)", &[]),
                bind("", "", &[], &[], &[]),
                describe(b'P', ""),
                execute("", 0),
                copy_data(b"1,\"o\nne\"\n"),
                copy_done(),
                sync(),
                extended("COPY copied TO STDOUT"),
                extended("SELECT count(*) FROM copied"),
                sync(),
                parse("", "COPY copied FROM STDIN", &[]),
                bind("", "", &[], &[], &[]),
                execute("", 0),
                copy_data(b"x\n"),
                copy_data(b"2\ttwo\n"),
                copy_done(),
                sync(),
                query("SELECT a + 0, b || '' FROM copied"),
                drop.clone(),
            ],
        ),
        (
            "several COPYs in one Query",
            vec![
                table,
                query(
                    "COPY copied FROM STDIN; SELECT 1; COPY copied FROM STDIN; COPY copied TO STDOUT",
                ),
                copy_data(b"1\tone\n"),
                copy_done(),
                copy_data(b"2\ttwo\n"),
                copy_done(),
                drop,
            ],
        ),
        (
            "COPY data that nobody asked for",
            vec![
                copy_data(b"x"),
                copy_done(),
                copy_fail("x"),
                query("SELECT 1"),
            ],
        ),
    ]
}

/// What comes unasked.
fn unasked() -> Vec<Script> {
    vec![
        (
            "notices and settings in the middle of rows",
            vec![
                query(
                    "DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$; SET application_name = 'x'; SELECT 1; SET TimeZone = 'Asia/Tokyo'; RESET ALL",
                ),
                extended("SET application_name = 'y'"),
                extended("SELECT set_config('application_name', 'z', false)"),
                sync(),
            ],
        ),
        (
            NOTIFICATIONS,
            vec![
                query("LISTEN here; NOTIFY here, 'one'"),
                query("BEGIN; NOTIFY here, 'two'; SELECT 1; COMMIT"),
                extended("SELECT pg_notify('here', 'three')"),
                sync(),
                query("UNLISTEN *; NOTIFY here, 'never'"),
            ],
        ),
        (
            "settings that change how texts are read",
            vec![
                query("SET client_encoding = 'LATIN1'"),
                query("SELECT 'caf\u{e9}'"),
                query("SET client_encoding = 'UTF8'; SET standard_conforming_strings = off"),
                query("SELECT 'plain'"),
                query("RESET ALL"),
            ],
        ),
    ]
}

fn scripts_are_alike(version: Version, name: &str) -> Result<()> {
    with_gateway_of(version, name, OPEN, |world, _| {
        let groups = [pipelines(), names(), values(), copies(), unasked()];
        let mut both = Both::log_in(world)?;
        for (what, script) in groups.into_iter().flatten() {
            both.compare(what, &script.concat())?;
            // The same, with a rest before each message; unless the two sessions would hear each
            // other.
            for message in script.iter().filter(|_| what != NOTIFICATIONS) {
                both.compare(what, message)?;
            }
        }
        Ok(())
    })
}

#[test]
fn scripts_are_alike_on_15() -> Result<()> {
    scripts_are_alike(Version::Debian, "flow-15")
}

#[test]
fn scripts_are_alike_on_18() -> Result<()> {
    scripts_are_alike(Version::Eighteen, "flow-18")
}
