//! What clients ask for before their startup packet, and what they get.

use interceptor_core::session::postgres::Tls;

use crate::pair::{Pair, RULES};
use crate::text::*;

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
/// The begin of a ClientHello.
const HELLO: &[u8] = &[0x16, 3, 1, 0, 200, 1];

fn pair(tls: &str) -> Pair {
    Pair::new(&RULES.replacen(
        "  default: allow\n",
        &format!("  default: allow\n  tls: {tls}\n"),
        1,
    ))
}

fn offering(tls: &str) -> Pair {
    let mut pair = pair(tls);
    pair.session.offer_tls();
    pair
}

fn over() -> Tls {
    Tls {
        version: "TLSv1.3",
        ..Tls::default()
    }
}

#[test]
fn a_request_is_granted_where_there_is_a_certificate_and_the_policy_lets_it() {
    for (mut pair, answer) in [
        (offering("{}"), "S"),
        (offering("{client: require}"), "S"),
        (offering("{client: off}"), "N"),
        (pair("{}"), "N"),
        (pair("{client: require}"), "N"),
    ] {
        pair.client(SSL_REQUEST);
        assert_eq!(pair.to_client, answer.as_bytes());
        assert_eq!(pair.logged(&["encrypt the client"]), answer == "S");
    }
    let mut pair = offering("{}");
    pair.client(GSS_REQUEST);
    assert_eq!(pair.to_client, b"N");
    pair.client(SSL_REQUEST);
    assert_eq!(pair.to_client, b"NS");
}

#[test]
fn nothing_is_read_in_a_handshake() {
    let mut pair = offering("{}");
    pair.client(SSL_REQUEST);
    pair.client(&startup());
    assert!(!pair.logged(&["connect"]));
    assert_eq!(pair.session.client_in().len(), startup().len());
    // The driver takes them for the handshake, and what was encrypted comes instead.
    pair.session.client_in().clear();
    pair.session.handle_client_encrypted(over());
    pair.client(&startup());
    assert!(pair.logged(&["connect"]));
}

#[test]
fn bytes_before_the_answer_are_refused() {
    for request in [SSL_REQUEST, GSS_REQUEST] {
        let mut pair = offering("{}");
        pair.client(&[request, &startup()[..]].concat());
        pair.shows("before its answer");
        assert!(!pair.logged(&["encrypt the client"]) && !pair.logged(&["connect"]));
        assert!(pair.session.is_closed());
    }
}

#[test]
fn nobody_asks_twice() {
    for request in [SSL_REQUEST, GSS_REQUEST] {
        let mut pair = pair("{}");
        pair.client(request);
        pair.client(request);
        pair.shows("came again");
    }
    // Also not from within.
    let mut pair = offering("{}");
    pair.client(SSL_REQUEST);
    pair.session.handle_client_encrypted(over());
    pair.client(SSL_REQUEST);
    pair.shows("came again");
}

#[test]
fn a_client_may_begin_with_tls() {
    let mut pair = offering("{}");
    for byte in HELLO {
        pair.client(&[*byte]);
    }
    assert!(pair.logged(&["encrypt the client"]));
    assert!(pair.to_client.is_empty(), "no answer in plain");
    assert_eq!(pair.session.client_in(), HELLO, "it is the handshake's");
    for mut pair in [pair_without(), offering("{client: off}")] {
        pair.client(HELLO);
        assert!(pair.session.is_closed() && pair.to_client.is_empty());
    }
    // Only as the first thing.
    let mut pair = offering("{}");
    pair.client(GSS_REQUEST);
    pair.client(HELLO);
    assert!(pair.session.is_closed() && !pair.logged(&["encrypt the client"]));
}

fn pair_without() -> Pair {
    pair("{}")
}

#[test]
fn who_has_to_encrypt_is_told() {
    let mut pair = offering("{client: require}");
    pair.client(&startup());
    pair.shows("takes encrypted connections only");
    assert!(!pair.logged(&["connect"]));
    let mut pair = offering("{client: require}");
    pair.client(SSL_REQUEST);
    pair.session.handle_client_encrypted(over());
    pair.client(&startup());
    assert!(pair.logged(&["connect"]));
}

/// A cancel request says nothing of anybody, and older clients cannot encrypt theirs.
#[test]
fn cancel_requests_come_plain_as_well() {
    let mut pair = offering("{client: require}");
    pair.client(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd");
    assert!(pair.logged(&["cancel another"]));
}
