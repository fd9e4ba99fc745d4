//! A read goes at once, and nothing of its reply is read before the read is written down.

use proptest::prelude::*;

use crate::pair::{ORDERS, Pair, RULES};
use crate::text::*;

fn read(number: usize) -> Vec<u8> {
    query(&format!("SELECT total FROM orders WHERE id = {number}"))
}

/// Its reply, with a marker in it.
fn reply(number: usize) -> Vec<u8> {
    [
        rows(&[(ORDERS, 2)]),
        row(&[Some(&format!("<marker{number}>"))]),
        complete("SELECT 1"),
        ready(b'I'),
    ]
    .concat()
}

fn marker(number: usize) -> String {
    format!("<marker{number}>")
}

/// A session whose reads overlap their record.
fn overlapping(policy: &str) -> Pair {
    let mut pair = Pair::running(policy);
    pair.session.let_reads_overlap();
    pair
}

/// A session whose first read went, and is not on record.
fn reading() -> Pair {
    let mut pair = overlapping(RULES);
    pair.withhold = true;
    pair.client(&read(0));
    assert!(holds(&pair.to_server, "WHERE id = 0"));
    assert_eq!(pair.tickets.len(), 1);
    pair
}

#[test]
fn however_a_reply_is_cut_nothing_of_it_is_read_before_its_record() {
    let failed = [error("22012", "division by <marker0>"), ready(b'I')].concat();
    let noticed = [
        report(
            b'N',
            &[(b'S', "NOTICE"), (b'C', "00000"), (b'M', "<marker0>")],
        ),
        reply(0),
    ]
    .concat();
    for whole in [reply(0), failed, noticed] {
        for cut in 0..=whole.len() {
            let mut pair = reading();
            let (first, second) = whole.split_at(cut);
            pair.server(first);
            pair.server(second);
            assert!(pair.to_client.is_empty(), "cut at {cut}");
            assert_eq!(pair.session.state(), "active");
            pair.confirm();
            assert_eq!(kinds(&pair.to_client), kinds(&whole), "cut at {cut}");
            assert_eq!(pair.session.state(), "idle");

            let mut pair = reading();
            pair.server(first);
            pair.confirm();
            pair.server(second);
            assert_eq!(kinds(&pair.to_client), kinds(&whole), "confirmed at {cut}");
        }
    }
}

#[test]
fn the_extended_protocol_is_no_other() {
    let mut pair = overlapping(RULES);
    pair.withhold = true;
    let messages = [
        parse("", "SELECT total FROM orders"),
        bind("", ""),
        execute(""),
        sync(),
    ];
    pair.client(&messages.concat());
    assert_eq!(kinds(&pair.to_server), "PBES");
    let replies = [
        parse_complete(),
        bind_complete(),
        row(&[Some("1")]),
        complete("SELECT 1"),
        ready(b'I'),
    ];
    pair.server(&replies.concat());
    assert!(pair.to_client.is_empty());
    pair.confirm();
    assert_eq!(kinds(&pair.to_client), "12DCZ");
}

#[test]
fn what_may_do_more_than_read_waits_as_ever() {
    for sql in [
        "INSERT INTO orders VALUES (1)",
        "SELECT total FROM orders FOR UPDATE",
        "SELECT total FROM orders For/**/no Key update",
        "SELECT next_order()",
        "SELECT total INTO other FROM orders",
        "WITH gone AS (DELETE FROM lines WHERE id = 1 RETURNING id) SELECT id FROM gone",
        "SELECT 1; INSERT INTO orders VALUES (1)",
        "SET search_path = x",
        "EXPLAIN ANALYZE DELETE FROM lines WHERE id = 1",
        "EXECUTE p",
        "FETCH c",
        "PREPARE p AS SELECT 1",
        "DO 'begin end'",
        "COMMIT",
        "LOCK orders",
        "NOTIFY channel",
    ] {
        let policy = RULES.replace("default: allow", "default: allow\n  incomplete: allow");
        let mut pair = overlapping(&policy);
        pair.withhold = true;
        pair.client(&query(sql));
        assert!(!pair.session.is_closed());
        assert!(
            pair.to_server.is_empty() || !holds(&pair.to_server, sql),
            "{sql}"
        );
    }
}

#[test]
fn a_record_that_fails_ends_the_session_and_the_reply_is_never_read() {
    for whole in [reply(0), reply(0)[..20].to_vec(), Vec::new()] {
        let mut pair = reading();
        pair.server(&whole);
        pair.session.handle_not_recorded("the disk is full");
        pair.pump();
        assert_eq!(kinds(&pair.to_client), "E");
        assert!(holds(&pair.to_client, "58030"));
        pair.confirm();
        assert!(!holds(&pair.to_client, "<marker"));
    }
}

#[test]
fn no_end_lets_a_reply_out_that_is_not_on_record() {
    type End = fn(&mut Pair);
    let ends: [End; 6] = [
        |pair| pair.session.terminate("going down"),
        |pair| pair.session.kill("by somebody"),
        |pair| pair.session.handle_broken("it broke"),
        |pair| pair.session.handle_client_closed(),
        |pair| pair.client(&[0xff; 16]),
        |pair| pair.server(&[0xff; 16]),
    ];
    for end in ends {
        let mut pair = reading();
        pair.server(&reply(0));
        end(&mut pair);
        pair.pump();
        assert!(pair.session.is_closed());
        assert!(!holds(&pair.to_client, "<marker"));
        pair.confirm();
        assert!(!holds(&pair.to_client, "<marker"));
    }
}

/// The server answered and closed: the client reads the answer, once it may.
#[test]
fn a_server_that_closes_is_heard_to_its_end() {
    let mut pair = reading();
    pair.server(&reply(0));
    pair.session.handle_server_closed();
    pair.pump();
    assert!(!pair.session.is_closed() && !pair.session.wants_server());
    // What the client says now goes nowhere, and does not put off the end.
    pair.client(&read(1));
    assert!(!pair.session.wants_client() && !holds(&pair.to_server, "WHERE id = 1"));
    pair.confirm();
    assert!(holds(&pair.to_client, &marker(0)));
    assert!(pair.session.is_closed());
}

/// In the middle of a row that passes, an error would be read as its bytes.
#[test]
fn an_end_within_a_row_says_nothing_more() {
    let mut pair = overlapping(RULES);
    pair.client(&read(0));
    let (long, value) = (1_000, "x".repeat(1_000));
    let whole = [rows(&[(ORDERS, 2)]), row(&[Some(&value)])].concat();
    let (first, _) = whole.split_at(whole.len() - long / 2);
    pair.server(first);
    let read_so_far = pair.to_client.len();
    assert!(read_so_far > 0);
    pair.withhold = true;
    pair.client(&read(1));
    assert!(holds(&pair.to_server, "WHERE id = 1"));
    pair.server(&[b'x'; 100]);
    pair.session.terminate("going down");
    pair.pump();
    assert_eq!(pair.to_client.len(), read_so_far);
    assert!(!holds(&pair.to_client, "going down"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any order of reads, replies in pieces and confirmations: what was read was on record, and all
    /// of it is read in the end.
    #[test]
    fn what_is_read_is_on_record(script in prop::collection::vec((0u8..3, 1usize..90), 1..60)) {
        let mut pair = overlapping(RULES);
        pair.withhold = true;
        let (mut sent, mut confirmed, mut said) = (0usize, 0usize, Vec::new());
        let mut answered = 0;
        for (step, size) in script {
            match step {
                0 => {
                    pair.client(&read(sent));
                    said.extend(reply(sent));
                    sent += 1;
                }
                1 => {
                    let end = said.len().min(answered + size);
                    pair.server(&said[answered..end]);
                    answered = end;
                }
                _ if !pair.tickets.is_empty() => {
                    let ticket = pair.tickets.remove(0);
                    pair.session.handle_recorded(ticket);
                    pair.pump();
                    confirmed += 1;
                }
                _ => {}
            }
            for index in confirmed..sent {
                prop_assert!(!holds(&pair.to_client, &marker(index)));
            }
        }
        pair.confirm();
        pair.server(&said[answered..]);
        prop_assert_eq!(&pair.to_client, &said);
        prop_assert_eq!(pair.session.state(), "idle");
    }
}

/// A read is no exception where nobody chose that it is.
#[test]
fn unless_chosen_a_read_waits_for_its_record() {
    let mut pair = Pair::running(RULES);
    pair.withhold = true;
    pair.client(&read(0));
    assert!(!holds(&pair.to_server, "WHERE id = 0"));
    pair.confirm();
    assert!(holds(&pair.to_server, "WHERE id = 0"));
}
