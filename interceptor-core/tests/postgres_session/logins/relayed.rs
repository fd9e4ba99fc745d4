//! The server asks, the client answers.

use super::*;

const N: &str = "n,,n=,r=client";
const Y: &str = "y,,n=,r=client";
const P: &str = "p=tls-server-end-point,,n=,r=client";

/// The table of what can be relayed.
#[test]
fn scram_by_legs() {
    let both: &[&str] = &[PLUS, SCRAM];
    let one: &[&str] = &[SCRAM];
    for (client, server, offered, shown, mechanism, first, relayed) in [
        (None, None, one, one, SCRAM, N, true),
        (None, Some(1), both, one, SCRAM, N, true),
        (Some(2), None, one, one, SCRAM, Y, true),
        (Some(2), None, one, one, SCRAM, N, true),
        (Some(2), Some(1), both, one, SCRAM, N, true),
        (Some(2), Some(1), both, one, SCRAM, Y, false),
        (Some(2), Some(1), both, one, PLUS, P, false),
        (Some(1), Some(1), both, both, PLUS, P, true),
        (Some(1), Some(1), both, both, SCRAM, N, true),
        // A server that cannot bind sees no downgrade.
        (Some(2), Some(1), one, one, SCRAM, Y, true),
    ] {
        let case = format!("{client:?} {server:?} {offered:?} {first}");
        let mut pair = pair("relay", client.map(tls), server.map(tls));
        pair.client(&startup());
        server_hears(&mut pair, &startup());
        pair.server(&sasl(offered));
        client_hears(&mut pair, &sasl(shown));
        let choice = chooses(mechanism, first);
        pair.client(&choice);
        if !relayed {
            refused(&pair, "28000", "different certificates");
            assert!(pair.to_server.is_empty(), "{case}");
            continue;
        }
        server_hears(&mut pair, &choice);
        pair.server(&authentication(11, b"r=x,s=YQ==,i=4096"));
        client_hears(&mut pair, &authentication(11, b"r=x,s=YQ==,i=4096"));
        pair.client(&password(b"c=biws,r=x,p=YQ=="));
        server_hears(&mut pair, &password(b"c=biws,r=x,p=YQ=="));
        pair.server(&authentication(12, b"v=YQ=="));
        client_hears(&mut pair, &authentication(12, b"v=YQ=="));
        is_let_in(&mut pair, &[]);
        let method = mechanism.to_lowercase();
        assert!(pair.logged(&["login: \"relay\"", &format!("method: \"{method}\"")]));
    }
}

#[test]
fn others() {
    for (code, data, answer, method) in [
        (3, &b""[..], "secret\0", "password"),
        (5, b"salt", "md5abc\0", "md5"),
    ] {
        for legs in [
            (None, None),
            (None, Some(1)),
            (Some(2), None),
            (Some(2), Some(1)),
        ] {
            let mut pair = pair("relay", legs.0.map(tls), legs.1.map(tls));
            pair.client(&startup());
            pair.forget();
            pair.server(&authentication(code, data));
            client_hears(&mut pair, &authentication(code, data));
            pair.client(&password(answer.as_bytes()));
            server_hears(&mut pair, &password(answer.as_bytes()));
            is_let_in(&mut pair, &[]);
            assert!(pair.logged(&["Identity", &format!("method: \"{method}\"")]));
            assert!(!pair.log.iter().any(|line| line.contains("secret")));
        }
    }
    let mut pair = pair("relay", None, None);
    pair.client(&startup());
    is_let_in(&mut pair, &[]);
    assert!(pair.logged(&["Identity", "method: \"trust\""]));
}

#[test]
fn tickets_are_not_carried() {
    for code in [7, 8, 9] {
        let mut pair = pair("relay", None, None);
        pair.client(&startup());
        pair.server(&authentication(code, b"ticket"));
        refused(&pair, "28000", "GSSAPI");
    }
}

/// Credentials wait until they are asked for.
#[test]
fn nothing_goes_unasked() {
    let mut pair = pair("relay", None, None);
    pair.client(&[startup(), with_zero("secret")].concat());
    server_hears(&mut pair, &startup());
    pair.server(&authentication(3, &[]));
    server_hears(&mut pair, &with_zero("secret"));
}

#[test]
fn a_client_that_insists_on_binding_leaves_a_reason() {
    let mut pair = pair("relay", Some(tls(2)), Some(tls(1)));
    pair.client(&startup());
    pair.server(&sasl(&[PLUS, SCRAM]));
    pair.session.handle_client_closed();
    pair.pump();
    assert!(
        pair.logged(&["Close", "channel_binding=require"]),
        "{:?}",
        pair.log
    );
}
