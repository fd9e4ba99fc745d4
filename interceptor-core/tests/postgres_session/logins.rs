//! Who proves what to whom: every way to log in, on every kind of leg, and what each refuses.

mod by_the_gateway;
mod relayed;

use interceptor_core::command::Process;
use interceptor_core::session::postgres::Tls;
use interceptor_core::session::postgres::login::Verifier;
use proptest::prelude::*;

use crate::pair::{Pair, relation, settings};
use crate::scram::{Exchange, Kept, base64};
use crate::text::*;

const SCRAM: &str = "SCRAM-SHA-256";
const PLUS: &str = "SCRAM-SHA-256-PLUS";
/// What the driver of these tests calls random.
const SERVER_NONCE: [u8; 18] = [7; 18];
const CLIENT_NONCE: [u8; 18] = [8; 18];

fn policy(login: &str) -> String {
    format!(
        "kind: Target\nname: shop\nspec:\n  protocol: postgres\n  endpoints: [\"10.0.0.5:5432\"]\n  login: {login}\n---\n{PEOPLE}"
    )
}

const PEOPLE: &str = "kind: Identity
name: alice
spec: {uids: [1000]}
---
kind: Identity
name: bob
spec: {is: [{users: [app]}]}
";

const GATEWAY: &str = "{gateway: {verifierFile: /v, credentials: [{users: [app], passwordFile: /p}, {users: [alias], as: app, passwordFile: /p}]}}";
const TRUST: &str = "{gateway: {trust: process, credentials: [{persons: [alice, bob], as: app, passwordFile: /p}]}}";
const RECOVER: &str = "{recover: {verifierFile: /v}}";

fn tls(end_point: u8) -> Tls {
    Tls {
        version: "TLSv1.3",
        end_point: vec![end_point; 32],
        ..Tls::default()
    }
}

/// What the client knows, and what the gateway's file has.
fn clients() -> Kept {
    Kept::new("client-password", b"0123456789abcdef")
}

/// What the server has of the gateway's password.
fn servers() -> Kept {
    Kept::new("server-password", b"fedcba9876543210")
}

/// A session of a client on such legs, with what the gateway knows.
fn pair(login: &str, client: Option<Tls>, server: Option<Tls>) -> Pair {
    let mut pair = Pair::new(&policy(login));
    pair.login.verifier = Verifier::parse(&clients().verifier());
    pair.login.password = "server-password".into();
    pair.server_tls = server;
    if client.is_some() {
        pair.client_tls = client;
        pair.session.offer_tls();
        pair.client(&ssl_request());
        pair.forget();
    }
    pair
}

fn sasl(names: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for name in names {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
    }
    body.push(0);
    authentication(10, &body)
}

fn chooses(mechanism: &str, first: &str) -> Vec<u8> {
    let mut body = mechanism.as_bytes().to_vec();
    body.push(0);
    body.extend_from_slice(&u32::try_from(first.len()).unwrap().to_be_bytes());
    body.extend_from_slice(first.as_bytes());
    password(&body)
}

fn with_zero(text: &str) -> Vec<u8> {
    password(format!("{text}\0").as_bytes())
}

/// The client's exchange with the gateway.
fn with_client(header: &str, end_point: &[u8]) -> Exchange {
    clients().exchange("client", &base64(&SERVER_NONCE), header, end_point)
}

/// The gateway's exchange with the server.
fn with_server(kept: &Kept, header: &str, end_point: &[u8]) -> Exchange {
    kept.exchange(&base64(&CLIENT_NONCE), "server", header, end_point)
}

/// What each side has heard by now.
fn heard(pair: &mut Pair) -> (Vec<u8>, Vec<u8>) {
    let heard = (
        std::mem::take(&mut pair.to_client),
        std::mem::take(&mut pair.to_server),
    );
    (heard.0, heard.1)
}

#[track_caller]
fn client_hears(pair: &mut Pair, expected: &[u8]) {
    let (client, _) = heard(pair);
    let shown = String::from_utf8_lossy(&client);
    assert_eq!(client, expected, "{shown}");
}

#[track_caller]
fn server_hears(pair: &mut Pair, expected: &[u8]) {
    let (_, server) = heard(pair);
    let shown = String::from_utf8_lossy(&server);
    assert_eq!(server, expected, "{shown}");
}

#[track_caller]
fn refused(pair: &Pair, code: &str, text: &str) {
    let shown = String::from_utf8_lossy(&pair.to_client);
    assert!(holds(&pair.to_client, code), "{code}: {shown}");
    assert!(holds(&pair.to_client, text), "{text}: {shown}");
    assert_eq!(pair.session.state(), "closed");
    assert!(!pair.logged(&["Identity", "authenticated: true"]));
    assert!(pair.logged(&["Identity", code]), "{:?}", pair.log);
}

/// The server lets the session in, and the client hears it with `words` before.
#[track_caller]
fn is_let_in(pair: &mut Pair, words: &[u8]) {
    pair.forget();
    pair.server(&authentication(0, &[]));
    client_hears(pair, &[words, &authentication(0, &[])].concat());
    pair.server(&settings());
    assert_eq!(pair.session.state(), "idle");
}

/// Up to the proof's last message.
fn proves(pair: &mut Pair, exchange: &Exchange, mechanism: &str) {
    pair.client(&startup());
    pair.client(&chooses(mechanism, &exchange.client_first));
    pair.client(&password(exchange.client_final.as_bytes()));
}

/// The server asks for SCRAM, and the gateway proves itself.
fn answers(pair: &mut Pair, exchange: &Exchange, names: &[&str]) {
    pair.server(&sasl(names));
    pair.server(&authentication(11, exchange.server_first.as_bytes()));
    pair.server(&authentication(12, exchange.server_final.as_bytes()));
}

mod by_process {
    use super::*;

    fn of(uid: Option<u32>) -> Pair {
        let process = uid.map(|uid| Process {
            uid,
            ..Process::default()
        });
        let mut pair = Pair::of(&policy(TRUST), process);
        pair.login.password = "server-password".into();
        pair
    }

    #[test]
    fn one_that_the_kernel_knows_needs_no_proof() {
        // `alice` fits by her process alone if the user is another than bob's.
        let mut pair = of(Some(1000));
        pair.client(&packet(3 << 16, b"user\0someone\0database\0shop\0\0"));
        let (client, server) = heard(&mut pair);
        assert!(client.is_empty());
        assert!(holds(&server, "user\0app\0"));
        is_let_in(&mut pair, &[]);
        assert!(pair.logged(&["Identity", "method: \"process\""]));
    }

    /// `bob` is believed by the user that the server let in, and nobody has let in anybody yet; with
    /// alice's process two people fit.
    #[test]
    fn what_a_client_says_of_itself_is_no_proof() {
        for uid in [None, Some(1000), Some(1001)] {
            let mut pair = of(uid);
            pair.client(&startup());
            refused(&pair, "28000", "does not know for certain");
            assert!(!pair.logged(&["connect"]));
        }
    }

    #[test]
    fn a_stranger_is_refused() {
        let mut pair = of(Some(1001));
        pair.client(&packet(3 << 16, b"user\0someone\0database\0shop\0\0"));
        refused(&pair, "28000", "does not know for certain");
    }
}

mod recovered {
    use super::*;

    #[test]
    fn the_clients_own_proof_is_enough() {
        for server in [None, Some(1)] {
            let mut pair = pair(RECOVER, None, server.map(tls));
            let exchange = with_client("n,,", &[]);
            proves(&mut pair, &exchange, SCRAM);
            let (header, end_point, mechanism) = match server {
                None => ("n,,", vec![], SCRAM),
                Some(byte) => ("p=tls-server-end-point,,", vec![byte; 32], PLUS),
            };
            let upstream = with_server(&clients(), header, &end_point);
            pair.forget();
            pair.server(&sasl(&[PLUS, SCRAM]));
            server_hears(&mut pair, &chooses(mechanism, &upstream.client_first));
            pair.server(&authentication(11, upstream.server_first.as_bytes()));
            server_hears(&mut pair, &password(upstream.client_final.as_bytes()));
            pair.server(&authentication(12, upstream.server_final.as_bytes()));
            is_let_in(
                &mut pair,
                &authentication(12, exchange.server_final.as_bytes()),
            );
        }
    }

    /// CVE-2025-2291 of another gateway: who is let in is the server's to say, each time.
    #[test]
    fn what_the_server_refuses_is_refused() {
        let mut pair = pair(RECOVER, None, None);
        proves(&mut pair, &with_client("n,,", &[]), SCRAM);
        let upstream = with_server(&clients(), "n,,", &[]);
        pair.server(&sasl(&[SCRAM]));
        pair.server(&authentication(11, upstream.server_first.as_bytes()));
        pair.forget();
        let refusal = error("28P01", "password authentication failed for user \"app\"");
        pair.server(&refusal);
        client_hears(&mut pair, &refusal);
        assert!(pair.logged(&["Identity", "authenticated: false", "28P01"]));
    }

    /// It is another password, an expired role or none: the server says so, by refusing what cannot hold.
    #[test]
    fn of_another_verifier_the_server_has_its_say() {
        let upstream = with_server(&servers(), "n,,", &[]);
        let refusal = error("28P01", "password authentication failed for user \"app\"");
        for (says, code) in [
            (refusal.clone(), "28P01"),
            // One that lets a proof pass that nobody made.
            (authentication(0, &[]), "28000"),
            (
                authentication(12, upstream.server_final.as_bytes()),
                "28000",
            ),
        ] {
            let mut pair = pair(RECOVER, None, None);
            proves(&mut pair, &with_client("n,,", &[]), SCRAM);
            pair.server(&sasl(&[SCRAM]));
            pair.forget();
            pair.server(&authentication(11, upstream.server_first.as_bytes()));
            let (_, proof) = heard(&mut pair);
            assert!(holds(&proof, ",p="));
            assert!(!holds(&proof, &upstream.client_final));
            pair.server(&says);
            pair.session.handle_server_closed();
            pair.pump();
            refused(&pair, code, code);
            assert!(
                pair.logged(&["Close", "another verifier"]),
                "{:?}",
                pair.log
            );
        }
    }

    #[test]
    fn it_cannot_answer_what_needs_the_password() {
        for request in [authentication(3, &[]), authentication(5, b"salt")] {
            let mut pair = pair(RECOVER, None, Some(tls(1)));
            proves(&mut pair, &with_client("n,,", &[]), SCRAM);
            pair.forget();
            pair.server(&request);
            refused(&pair, "28000", "only what SCRAM recovers");
        }
    }
}

mod in_clear {
    use super::*;

    #[test]
    fn only_inside_tls() {
        let mut pair = pair("password", None, Some(tls(1)));
        pair.client(&startup());
        refused(&pair, "28000", "in TLS only");
        assert!(!pair.logged(&["connect"]));
    }

    #[test]
    fn the_password_is_asked_for_and_proven() {
        let mut pair = pair("password", Some(tls(2)), Some(tls(1)));
        pair.client(&startup());
        client_hears(&mut pair, &authentication(3, &[]));
        pair.client(&with_zero("server-password"));
        let upstream = with_server(&servers(), "p=tls-server-end-point,,", &[1; 32]);
        pair.forget();
        pair.server(&sasl(&[PLUS, SCRAM]));
        server_hears(&mut pair, &chooses(PLUS, &upstream.client_first));
        pair.server(&authentication(11, upstream.server_first.as_bytes()));
        server_hears(&mut pair, &password(upstream.client_final.as_bytes()));
        pair.server(&authentication(12, upstream.server_final.as_bytes()));
        is_let_in(&mut pair, &[]);
        assert!(pair.logged(&["login: \"password\"", "method: \"password\""]));
    }

    #[test]
    fn an_empty_password_is_wrong() {
        let mut pair = pair("password", Some(tls(2)), None);
        pair.client(&startup());
        pair.client(&with_zero(""));
        refused(&pair, "28P01", "password authentication failed");
    }
}

/// Who says what, in order: a whole login and a first query.
fn transcript() -> Vec<(bool, Vec<u8>)> {
    let exchange = with_client("n,,", &[]);
    let upstream = with_server(&servers(), "n,,", &[]);
    vec![
        (true, startup()),
        (true, chooses(SCRAM, &exchange.client_first)),
        (true, password(exchange.client_final.as_bytes())),
        (false, sasl(&[SCRAM])),
        (false, authentication(11, upstream.server_first.as_bytes())),
        (false, authentication(12, upstream.server_final.as_bytes())),
        (false, authentication(0, &[])),
        (false, settings()),
        (true, query("SELECT 1")),
        (
            false,
            [rows(&[(0, 0)]), complete("SELECT 0"), ready(b'I')].concat(),
        ),
    ]
}

/// What both sides heard and what was recorded, if bytes come in such pieces.
fn play(mut cut: impl FnMut() -> usize) -> (Vec<u8>, Vec<u8>, Vec<String>) {
    let mut pair = pair(GATEWAY, None, None);
    for (from_client, bytes) in transcript() {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(cut().clamp(1, rest.len()));
            match from_client {
                true => pair.client(piece),
                false => pair.server(piece),
            }
            rest = tail;
        }
    }
    assert_eq!(pair.session.state(), "idle");
    (pair.to_client, pair.to_server, pair.log)
}

#[test]
fn one_byte_at_a_time_is_as_all_at_once() {
    assert_eq!(play(|| 1), play(|| usize::MAX));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_split_is_as_all_at_once(cuts in prop::collection::vec(1usize..60, 1..40)) {
        let mut cuts = cuts.iter().cycle();
        prop_assert_eq!(play(|| *cuts.next().unwrap()), play(|| usize::MAX));
    }

    /// Whatever a client sends instead of a proof: nothing is dialled, and nobody is let in.
    #[test]
    fn no_proof_no_entry(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..5)) {
        for login in [GATEWAY, RECOVER] {
            let mut pair = pair(login, None, None);
            pair.client(&startup());
            for message in &messages {
                if pair.session.state() == "closed" { break; }
                pair.client(&password(message));
            }
            prop_assert!(!pair.logged(&["connect"]));
            prop_assert!(pair.to_server.is_empty());
        }
    }
}
