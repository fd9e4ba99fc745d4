//! Versions of the protocol and its extensions: what the gateway does not understand goes to nobody,
//! and the client hears of it once.

use crate::pair::{Pair, RULES};
use crate::text::*;

const PROBE: &[&str] = &["_pq_.test_protocol_negotiation", ""];

/// What reached the server after a client asked for this, and what the client hears when the server
/// answers with that.
fn asked(minor: u16, parameters: &[&str], answer: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut pair = Pair::new(RULES);
    pair.client(&startup_of(minor, parameters));
    let sent = pair.to_server.clone();
    pair.server(&[answer, &authentication(3, &[])].concat());
    (sent, pair.to_client)
}

fn challenge() -> Vec<u8> {
    authentication(3, &[])
}

#[test]
fn what_is_understood_passes_as_it_is() {
    for minor in [0, 1, 2] {
        let (sent, heard) = asked(minor, &["application_name", "x"], &[]);
        assert_eq!(sent, startup_of(minor, &["application_name", "x"]));
        assert_eq!(heard, challenge());
    }
}

#[test]
fn a_probe_is_answered_once_whatever_the_server_is() {
    for server in [&negotiate(0, &[])[..], &negotiate(2, &[]), &[]] {
        let parameters = [PROBE, &["application_name", "x"]].concat();
        let (sent, heard) = asked(9999, &parameters, server);
        assert_eq!(sent, startup_of(2, &["application_name", "x"]));
        let minor = if server == negotiate(0, &[]) { 0 } else { 2 };
        let answer = negotiate(minor, &["_pq_.test_protocol_negotiation"]);
        assert_eq!(heard, [answer, challenge()].concat());
    }
}

#[test]
fn an_extension_goes_to_no_server_and_is_reported() {
    let (sent, heard) = asked(0, &["_pq_.command_progress", "on", "_pq_.x", "1"], &[]);
    assert_eq!(sent, startup_of(0, &[]));
    let answer = negotiate(0, &["_pq_.command_progress", "_pq_.x"]);
    assert_eq!(heard, [answer, challenge()].concat());
}

#[test]
fn an_older_server_is_heard() {
    let (sent, heard) = asked(2, &[], &negotiate(0, &[]));
    assert_eq!(sent, startup_of(2, &[]));
    assert_eq!(heard, [negotiate(0, &[]), challenge()].concat());
}

#[test]
fn a_server_that_negotiates_upwards_or_twice_is_sent_away() {
    let twice = [negotiate(0, &[]), negotiate(0, &[])].concat();
    for answer in [
        negotiate(3, &[]),
        twice,
        message(b'v', &[0, 4, 0, 0, 0, 0, 0, 0]),
    ] {
        let (_, heard) = asked(2, &[], &answer);
        assert!(holds(&heard, "08P01"), "{heard:?}");
    }
}
