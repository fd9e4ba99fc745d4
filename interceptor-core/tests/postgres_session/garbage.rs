//! Bytes that mean nothing, from either side and at any time: the session waits or ends with an
//! error, in bounded memory, and nothing that was not judged reaches the server.

use proptest::prelude::*;

use crate::pair::{Pair, masked, settings};
use crate::text::*;

/// Where a session can stand.
fn phases() -> Vec<(&'static str, Pair)> {
    let new = || Pair::new(&masked());
    let mut authenticating = new();
    authenticating.client(&startup());
    let mut preparing = new();
    preparing.client(&startup());
    preparing.server(&authentication(0, &[]));
    let running = || Pair::running(&masked());
    let mut querying = running();
    querying.client(&query("SELECT email FROM customers"));
    let mut streaming = running();
    streaming.client(&query("SELECT email FROM customers"));
    streaming.server(&rows(&[(20_000, 3)]));
    let mut pipelining = running();
    pipelining.client(&[parse("", "SELECT 1"), bind("", ""), execute("")].concat());
    let mut held = running();
    held.client(&query("DELETE FROM orders"));
    let mut copying_in = running();
    copying_in.client(&query("COPY orders FROM STDIN"));
    copying_in.server(&copy_response(b'G', 2));
    let mut copying_out = running();
    copying_out.client(&query("COPY customers TO STDOUT"));
    copying_out.server(&copy_response(b'H', 4));
    let mut refused = running();
    refused.client(&[parse("", "DROP TABLE orders"), bind("", "")].concat());
    vec![
        ("new", new()),
        ("authenticating", authenticating),
        ("preparing", preparing),
        ("running", running()),
        ("querying", querying),
        ("streaming", streaming),
        ("pipelining", pipelining),
        ("held", held),
        ("copying in", copying_in),
        ("copying out", copying_out),
        ("refused", refused),
    ]
}

/// Whether every byte that went up is a message that a running session may send unjudged, a
/// command that was recorded, or the gateway's own.
fn judged_only(pair: &Pair) -> bool {
    let recorded = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        let text = text.trim_end_matches('\0');
        text == "refused_by_interceptor" || pair.logged(&["Command", text])
    };
    messages(&pair.to_server)
        .iter()
        .all(|(kind, body)| match kind {
            b'Q' => recorded(body),
            b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' | b'X' | b'd' | b'c' | b'f' | b'p'
            | b'F' => true,
            _ => false,
        })
}

/// Message types that one side or the other knows.
const KINDS: &[u8] = b"QPBDECSHXdcfFpTZKRSAN123tnsIGWV\0\xff";

fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let anything = prop::collection::vec(any::<u8>(), 0..64);
    let framed = (
        prop::sample::select(KINDS),
        prop::collection::vec(any::<u8>(), 0..48),
    )
        .prop_map(|(kind, body)| message(kind, &body));
    let strings = (
        prop::sample::select(KINDS),
        prop::collection::vec("[a-z ]{0,8}", 0..4),
    )
        .prop_map(|(kind, texts)| {
            let mut body = texts.join("\0").into_bytes();
            body.extend_from_slice(&[0; 3]);
            message(kind, &body)
        });
    prop::collection::vec(prop_oneof![anything, framed, strings], 1..6)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn garbage_from_the_client(bytes in garbage(), chunk in 1usize..40) {
        for (phase, mut pair) in phases() {
            if phase != "new" && phase != "authenticating" && phase != "preparing" {
                pair.to_server.clear();
            }
            for part in bytes.chunks(chunk) {
                pair.client(part);
            }
            if pair.to_server.first().is_some_and(|&first| first != 0) {
                prop_assert!(judged_only(&pair), "{}: {:?}", phase, pair.to_server);
            }
            prop_assert!(!holds(&pair.to_server, "DELETE") && !holds(&pair.to_server, "DROP"));
        }
    }

    #[test]
    fn garbage_from_the_server(bytes in garbage(), chunk in 1usize..40) {
        for (_, mut pair) in phases() {
            pair.to_server.clear();
            for part in bytes.chunks(chunk) {
                pair.server(part);
            }
            // A server cannot make the gateway send anything on the client's behalf.
            prop_assert!(!holds(&pair.to_server, "DELETE"));
        }
    }
}

#[test]
fn impossible_lengths_end_the_session_at_once() {
    for length in [0u32, 3, 0x8000_0000, 0xffff_ffff] {
        for kind in [b'Q', b'd', b'P', b'X'] {
            for (phase, mut pair) in phases() {
                if matches!(phase, "held" | "preparing" | "new") {
                    continue;
                }
                pair.client(&[&[kind][..], &length.to_be_bytes()].concat());
                assert_eq!(pair.session.state(), "closed", "{phase} {length}");
                assert!(pair.logged(&["Close", "violation: true"]));
            }
        }
        for (phase, mut pair) in phases() {
            if phase == "new" {
                continue;
            }
            pair.server(&[&b"D"[..], &length.to_be_bytes()].concat());
            assert_eq!(pair.session.state(), "closed", "{phase} {length}");
        }
    }
}

/// A length of 2 GiB is an error where the message would be read whole, before it is.
#[test]
fn what_would_be_read_whole_has_a_limit() {
    for kind in [b'Q', b'P', b'B', b'p'] {
        let mut pair = Pair::running(&masked());
        pair.client(&[&[kind][..], &0x7fff_ffffu32.to_be_bytes()].concat());
        assert_eq!(pair.session.state(), "closed");
        assert_eq!(kinds(&pair.to_client), "E");
    }
    let mut pair = Pair::running(&masked());
    pair.client(&query("SELECT email FROM customers"));
    pair.server(&[&b"T"[..], &0x7fff_ffffu32.to_be_bytes()].concat());
    assert_eq!(pair.session.state(), "closed");
}

/// Nobody reads: then nobody is read, so that memory stays bounded on both sides.
#[test]
fn a_slow_peer_stops_the_other() {
    let mut pair = Pair::running(&masked());
    pair.client(&query("SELECT total FROM orders"));
    pair.server(&rows(&[(20_001, 2)]));
    let one = row(&[Some(&"x".repeat(10_000))]);
    let mut fed = 0;
    while pair.session.wants_server() {
        pair.session.server_in().extend_from_slice(&one);
        pair.session.advance(pair.now());
        fed += one.len();
        assert!(fed < 2 << 20, "the server is read on and on");
    }
    assert!(pair.session.to_client().len() < 1 << 20);

    let mut pair = Pair::running(&masked());
    pair.client(&query("COPY orders FROM STDIN"));
    pair.server(&copy_response(b'G', 2));
    let one = copy_data(&"x".repeat(10_000));
    let mut fed = 0;
    while pair.session.wants_client() {
        pair.session.client_in().extend_from_slice(&one);
        pair.session.advance(pair.now());
        fed += one.len();
        assert!(fed < 2 << 20, "the client is read on and on");
    }
    assert!(pair.session.to_server().len() < 1 << 20);
    // The client's side being blocked does not stop what the server says.
    pair.session
        .server_in()
        .extend_from_slice(&[error("22P04", "bad"), ready(b'I')].concat());
    pair.session.advance(pair.now());
    assert_eq!(kinds(pair.session.to_client()), "EZ");
}

/// A pipeline without end, while the server says nothing.
#[test]
fn a_client_that_never_listens_waits() {
    let mut pair = Pair::running(&masked());
    let one = [parse("", "SELECT 1"), bind("", ""), execute(""), sync()].concat();
    let mut fed = 0;
    while pair.session.wants_client() {
        pair.client(&one);
        fed += one.len();
        assert!(fed < 8 << 20, "the client is read on and on");
    }
}

#[test]
fn a_client_that_says_nothing_is_sent_away() {
    for (phase, mut pair) in phases() {
        if !matches!(phase, "new" | "authenticating" | "preparing") {
            continue;
        }
        pair.wait(59);
        assert_ne!(pair.session.state(), "closed");
        pair.wait(2);
        assert_eq!(pair.session.state(), "closed", "{phase}");
    }
}

/// Half a message, and then the end.
#[test]
fn half_a_message_is_a_violation() {
    let whole = query("INSERT INTO orders VALUES (1)");
    for size in 1..whole.len() {
        let mut pair = Pair::running(&masked());
        pair.client(&whole[..size]);
        pair.session.handle_client_closed();
        pair.pump();
        assert!(!holds(&pair.to_server, "INSERT"));
        assert!(pair.logged(&["Close", "violation: true"]), "{size}");
    }
    // Settings come whole or not at all, too.
    let mut pair = Pair::new(&masked());
    pair.client(&startup());
    pair.server(&settings()[..7]);
    pair.session.handle_server_closed();
    assert_eq!(pair.session.state(), "closed");
}
