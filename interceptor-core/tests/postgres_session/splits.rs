//! However the bytes are cut on their way, both sides read the same and the same is recorded.

use proptest::prelude::*;

use crate::pair::{CUSTOMERS, ORDERS, Pair, SECRET, masked, settings};
use crate::text::*;

/// What happens next.
enum Step {
    Client(Vec<u8>),
    Server(Vec<u8>),
    Resolve(bool),
    Cancel,
    Wait(u64),
}

use Step::{Cancel, Client, Resolve, Server, Wait};

/// What came of a transcript.
#[derive(Debug, PartialEq)]
struct Result {
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    log: Vec<String>,
    state: &'static str,
}

/// Plays a transcript; `cut` says how many of the bytes at hand come at once.
fn play(steps: &[Step], mut cut: impl FnMut(usize) -> usize) -> Result {
    let mut pair = Pair::new(&masked());
    for step in steps {
        match step {
            Client(bytes) | Server(bytes) => {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (chunk, tail) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
                    match step {
                        Client(_) => pair.client(chunk),
                        _ => pair.server(chunk),
                    }
                    rest = tail;
                }
            }
            Resolve(approved) => pair.resolve(*approved),
            Cancel => pair.cancel(),
            Wait(seconds) => pair.wait(*seconds),
        }
    }
    // An intent may well come before or after the outcome of the command before it: that depends
    // on when bytes come. The order within each kind does not.
    let kind = |line: &String| line.split(['(', ' ']).next().map(str::to_owned);
    pair.log.sort_by_key(kind);
    Result {
        to_client: pair.to_client,
        to_server: pair.to_server,
        log: pair.log,
        state: pair.session.state(),
    }
}

/// SSLRequest, SCRAM as far as a relay sees it, the settings.
fn opening() -> Vec<Step> {
    vec![
        Client(ssl_request()),
        Client(startup()),
        Server(authentication(10, b"SCRAM-SHA-256\0\0")),
        Client(password(b"SCRAM-SHA-256\0\0\0\0\x08n,,n=,r=")),
        Server(authentication(11, b"r=abc,s=def,i=4096")),
        Client(password(b"c=biws,r=abc,p=proof")),
        Server([authentication(12, b"v=signature"), authentication(0, &[])].concat()),
        Server(settings()),
    ]
}

fn simple() -> Vec<Step> {
    vec![
        Client(query("SELECT id, email FROM customers; SELECT 1")),
        Server(
            [
                rows(&[(CUSTOMERS, 1), (CUSTOMERS, 3)]),
                row(&[Some("1"), Some(SECRET)]),
                row(&[Some("2"), None]),
                complete("SELECT 2"),
                rows(&[(0, 0)]),
                row(&[Some("1")]),
                complete("SELECT 1"),
                ready(b'I'),
            ]
            .concat(),
        ),
    ]
}

fn pipeline() -> Vec<Step> {
    let again = || [bind_one("", "s", "a"), execute(""), sync()].concat();
    vec![
        Client(
            [
                parse("s", "SELECT total FROM orders WHERE id = $1"),
                describe_statement("s"),
                again(),
                again(),
                again(),
            ]
            .concat(),
        ),
        Server(
            [
                parse_complete(),
                parameter_description(),
                rows(&[(ORDERS, 2)]),
                bind_complete(),
                rows(&[(ORDERS, 2)]),
                row(&[Some("9")]),
                complete("SELECT 1"),
                ready(b'I'),
            ]
            .concat(),
        ),
        // The name was not settled before: only now the rest goes to the server.
        Server(
            [
                bind_complete(),
                rows(&[(ORDERS, 2)]),
                complete("SELECT 0"),
                ready(b'I'),
                bind_complete(),
                rows(&[(ORDERS, 2)]),
                row(&[Some("10")]),
                suspended(),
                ready(b'I'),
            ]
            .concat(),
        ),
        Client([close_statement("s"), flush(), sync()].concat()),
        Server([close_complete(), ready(b'I')].concat()),
    ]
}

fn denied_in_pipeline() -> Vec<Step> {
    let run = |sql: &str| [parse("", sql), bind("", ""), execute("")].concat();
    vec![
        Client(
            [
                run("BEGIN"),
                run("DROP TABLE orders"),
                run("SELECT 1"),
                sync(),
                query("ROLLBACK"),
            ]
            .concat(),
        ),
        Server(
            [
                parse_complete(),
                bind_complete(),
                no_data(),
                complete("BEGIN"),
                error(
                    "42601",
                    "syntax error at or near \"refused_by_interceptor\"",
                ),
                ready(b'E'),
                complete("ROLLBACK"),
                ready(b'I'),
            ]
            .concat(),
        ),
    ]
}

fn held(end: Step, replies: Vec<u8>) -> Vec<Step> {
    vec![
        Client([query("DELETE FROM orders WHERE id = 1"), query("SELECT 1")].concat()),
        end,
        Server([replies, ready(b'I')].concat()),
        Server([rows(&[(0, 0)]), complete("SELECT 0"), ready(b'I')].concat()),
    ]
}

fn copies() -> Vec<Step> {
    vec![
        Client(query("COPY customers (id, email) TO STDOUT")),
        Server(
            [
                copy_response(b'H', 2),
                copy_data(&format!("1\t{SECRET}\n2\t")),
                copy_data("\\N\n3\ta\\tb\n"),
                copy_done(),
                complete("COPY 3"),
                ready(b'I'),
            ]
            .concat(),
        ),
        Client(query("COPY orders TO STDOUT (FORMAT csv, HEADER)")),
        Server(
            [
                copy_response(b'H', 2),
                copy_data("id,total\n"),
                copy_data("1,\"a\nb\"\n"),
                copy_done(),
                complete("COPY 1"),
                ready(b'I'),
            ]
            .concat(),
        ),
        Client(query("COPY orders FROM STDIN")),
        Server(copy_response(b'G', 2)),
        Client([copy_data("1\t2\n"), copy_data("3\t4\n"), copy_done()].concat()),
        Server([complete("COPY 2"), ready(b'I')].concat()),
        Client(query("COPY orders FROM STDIN")),
        Server(copy_response(b'G', 2)),
        Client(copy_data("nonsense\n")),
        Server(
            [
                error("22P04", "missing data for column \"total\""),
                ready(b'I'),
            ]
            .concat(),
        ),
        Client([copy_data("late\n"), copy_done(), query("SELECT 1")].concat()),
        Server([rows(&[(0, 0)]), complete("SELECT 0"), ready(b'I')].concat()),
    ]
}

fn troubles() -> Vec<Step> {
    vec![
        Client(query("SELEC 1")),
        Server([error("42601", "syntax error"), ready(b'I')].concat()),
        Client(
            [
                parse("", "SELECT no FROM orders"),
                bind("", ""),
                execute(""),
                sync(),
            ]
            .concat(),
        ),
        Server([error("42703", "column \"no\" does not exist"), ready(b'I')].concat()),
        Client(query("SELECT pg_sleep(10)")),
        Cancel,
        Server(
            [
                error("57014", "canceling statement due to user request"),
                ready(b'I'),
            ]
            .concat(),
        ),
        Server(report(
            b'N',
            &[(b'S', "WARNING"), (b'C', "01000"), (b'M', "a warning")],
        )),
        Server(notification("")),
        Client(terminate()),
    ]
}

fn transcripts() -> Vec<(&'static str, Vec<Step>)> {
    let refused = || {
        error(
            "42601",
            "syntax error at or near \"refused_by_interceptor\"",
        )
    };
    let transcript = |mut rest: Vec<Step>| {
        let mut steps = opening();
        steps.append(&mut rest);
        steps
    };
    vec![
        ("simple", transcript(simple())),
        ("pipeline", transcript(pipeline())),
        ("denied", transcript(denied_in_pipeline())),
        (
            "approved",
            transcript(held(Resolve(true), complete("DELETE 1"))),
        ),
        ("refused", transcript(held(Resolve(false), refused()))),
        ("cancelled", transcript(held(Cancel, refused()))),
        ("timed out", transcript(held(Wait(61), refused()))),
        ("copies", transcript(copies())),
        ("troubles", transcript(troubles())),
    ]
}

#[test]
fn one_byte_at_a_time_is_as_all_at_once() {
    for (name, steps) in transcripts() {
        let whole = play(&steps, |rest| rest);
        assert_eq!(play(&steps, |_| 1), whole, "{name}");
        assert_eq!(play(&steps, |_| 3), whole, "{name}");
        assert!(
            !whole
                .log
                .iter()
                .any(|line| line.contains("violation: true")),
            "{name}: {:#?}",
            whole.log
        );
    }
}

/// The transcripts are what they claim to be: the client is answered, nothing masked is shown.
#[test]
fn the_transcripts_run_to_their_ends() {
    for (name, steps) in transcripts() {
        let result = play(&steps, |rest| rest);
        let expected = if name == "troubles" { "closed" } else { "idle" };
        assert_eq!(result.state, expected, "{name}: {:#?}", result.log);
        assert!(!holds(&result.to_client, SECRET), "{name}");
        let deleted = holds(&result.to_server, "DELETE FROM");
        assert_eq!(deleted, name == "approved", "{name}");
        assert!(!holds(&result.to_server, "DROP TABLE"), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_is_as_all_at_once(cuts in prop::collection::vec(1usize..200, 1..40)) {
        for (name, steps) in transcripts() {
            let whole = play(&steps, |rest| rest);
            let mut next = cuts.iter().cycle();
            let split = play(&steps, |_| *next.next().unwrap());
            prop_assert_eq!(split, whole, "{}", name);
        }
    }
}
