//! The client proves itself to the gateway, which has a credential for the server.

use super::*;

#[test]
fn the_client_proves_itself_and_the_gateway_too() {
    for (client, server) in [
        (None, None),
        (None, Some(1)),
        (Some(2), None),
        (Some(2), Some(1)),
    ] {
        let mut pair = pair(GATEWAY, client.map(tls), server.map(tls));
        let (header, end_point, mechanism) = match client {
            None => ("n,,", vec![], SCRAM),
            Some(byte) => ("p=tls-server-end-point,,", vec![byte; 32], PLUS),
        };
        let exchange = with_client(header, &end_point);
        pair.client(&startup());
        let names: &[&str] = match client {
            None => &[SCRAM],
            Some(_) => &[PLUS, SCRAM],
        };
        client_hears(&mut pair, &sasl(names));
        pair.client(&chooses(mechanism, &exchange.client_first));
        client_hears(
            &mut pair,
            &authentication(11, exchange.server_first.as_bytes()),
        );
        assert!(!pair.logged(&["connect"]), "dialled before the proof");
        pair.client(&password(exchange.client_final.as_bytes()));
        let (client_heard, server_heard) = heard(&mut pair);
        assert_eq!(server_heard, startup());
        assert!(
            client_heard.is_empty(),
            "let in before the server had its say"
        );
        let (header, end_point, mechanism) = match server {
            None => ("n,,", vec![], SCRAM),
            Some(byte) => ("p=tls-server-end-point,,", vec![byte; 32], PLUS),
        };
        let upstream = with_server(&servers(), header, &end_point);
        let offered: &[&str] = match server {
            None => &[SCRAM],
            Some(_) => &[PLUS, SCRAM],
        };
        pair.server(&sasl(offered));
        server_hears(&mut pair, &chooses(mechanism, &upstream.client_first));
        pair.server(&authentication(11, upstream.server_first.as_bytes()));
        server_hears(&mut pair, &password(upstream.client_final.as_bytes()));
        pair.server(&authentication(12, upstream.server_final.as_bytes()));
        assert!(pair.to_client.is_empty());
        is_let_in(
            &mut pair,
            &authentication(12, exchange.server_final.as_bytes()),
        );
        assert!(pair.logged(&["Identity", "login: \"gateway\"", "scram-sha-256"]));
    }
}

/// Whatever happens, the password is in nothing that leaves.
#[test]
fn the_password_stays() {
    let mut pair = pair(GATEWAY, None, None);
    proves(&mut pair, &with_client("n,,", &[]), SCRAM);
    answers(&mut pair, &with_server(&servers(), "n,,", &[]), &[SCRAM]);
    is_let_in(
        &mut pair,
        &authentication(12, with_client("n,,", &[]).server_final.as_bytes()),
    );
    for text in ["server-password", "client-password"] {
        assert!(!holds(&pair.to_client, text));
        assert!(!pair.log.iter().any(|line| line.contains(text)));
    }
}

#[test]
fn a_wrong_password_reaches_nobody() {
    let mut pair = pair(GATEWAY, None, None);
    let wrong = Kept::new("another", &clients().salt);
    let exchange = wrong.exchange("client", &base64(&SERVER_NONCE), "n,,", &[]);
    proves(&mut pair, &exchange, SCRAM);
    refused(
        &pair,
        "28P01",
        "password authentication failed for user \"app\"",
    );
    assert!(!pair.logged(&["connect"]));
}

#[test]
fn a_stranger_looks_like_everybody() {
    let mut pair = pair(GATEWAY, None, None);
    let mock = Kept::new("unknowable", b"fedcba9876543210");
    pair.login.verifier = Verifier::parse(&mock.verifier());
    let exchange = clients().exchange("client", &base64(&SERVER_NONCE), "n,,", &[]);
    proves(&mut pair, &exchange, SCRAM);
    refused(&pair, "28P01", "password authentication failed");
}

#[test]
fn who_has_no_credential_is_told() {
    let mut pair = pair(
        "{gateway: {verifierFile: /v, credentials: [{users: [other], passwordFile: /p}]}}",
        None,
        None,
    );
    proves(&mut pair, &with_client("n,,", &[]), SCRAM);
    refused(&pair, "28000", "no credential");
    assert!(!pair.logged(&["connect"]));
}

#[test]
fn another_user_of_the_server() {
    let login = GATEWAY
        .replace("as: app", "as: owner")
        .replace("alias", "app*");
    let login = login.replace("{users: [app], passwordFile: /p}, ", "");
    let mut pair = pair(&login, None, None);
    proves(&mut pair, &with_client("n,,", &[]), SCRAM);
    let (_, packet) = heard(&mut pair);
    for text in [
        "user\0owner\0",
        "database\0shop\0",
        "application_name\0test\0",
    ] {
        assert!(holds(&packet, text), "{text}");
    }
    assert!(!holds(&packet, "user\0app\0"));
    let length = u32::from_be_bytes(packet[..4].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), packet.len());
    pair.server(&authentication(5, b"salt"));
    // PostgreSQL's own: md5(md5('server-passwordowner') || 'salt')
    let md5 = |parts: &[&[u8]]| {
        use md5::Digest as _;
        hex::encode(md5::Md5::digest(parts.concat()))
    };
    let inner = md5(&[b"server-password", b"owner"]);
    let outer = md5(&[inner.as_bytes(), b"salt"]);
    server_hears(&mut pair, &with_zero(&format!("md5{outer}")));
    pair.forget();
    pair.server(&authentication(0, &[]));
    assert!(pair.logged(&["Identity", "user: \"app\"", "server_user: \"owner\""]));
}

/// `"$user"` in a search_path is the server's user.
#[test]
fn names_are_found_as_the_servers_user_finds_them() {
    const RULE: &str = "---\nkind: Rule\nname: stays\nspec: {match: {writes: [owner.orders]}, then: {deny: it stays}}\n";
    let login = "{gateway: {trust: process, credentials: [{persons: [alice], as: owner, passwordFile: /p}]}}";
    let policy = policy(login).replace("  login:", "  catalog: {user: reader}\n  login:");
    let process = Process {
        uid: 1000,
        ..Process::default()
    };
    let mut pair = Pair::of(&(policy + RULE), Some(process));
    pair.relations = vec![
        relation(20_010, "someone", "orders", &["id"]),
        relation(20_011, "owner", "orders", &["id"]),
    ];
    pair.client(&packet(
        3 << 16,
        b"user\0someone\0database\0shop\0search_path\0\"$user\"\0\0",
    ));
    pair.server(&authentication(0, &[]));
    pair.server(&settings());
    pair.forget();
    pair.client(&query("DELETE FROM orders"));
    assert!(
        holds(&pair.to_server, "refused_by_interceptor"),
        "{:?}",
        pair.log
    );
}

#[test]
fn its_own_credential_is_blamed() {
    let mut pair = pair(GATEWAY, None, None);
    proves(&mut pair, &with_client("n,,", &[]), SCRAM);
    pair.forget();
    pair.server(&error(
        "28P01",
        "password authentication failed for user \"app\"",
    ));
    refused(
        &pair,
        "28P01",
        "interceptor could not log in to target \"shop\": password",
    );
    assert_eq!(kinds(&pair.to_client), "E");
}

#[test]
fn what_is_not_at_hand_lets_nobody_in() {
    let mut pair = pair(GATEWAY, None, None);
    pair.login.fails = true;
    pair.client(&startup());
    refused(&pair, "58000", "cannot get at what logging in");
    assert!(!holds(&pair.to_client, "no such thing"));
    assert!(pair.logged(&["Close", "no such thing"]));
}

#[test]
fn a_password_does_not_go_in_clear() {
    let verified = format!("{GATEWAY}\n  tls: {{upstream: verify-full, ca: system}}");
    for (login, server, refusal) in [
        (
            GATEWAY,
            None,
            "in clear on a connection that is not encrypted",
        ),
        (GATEWAY, Some(tls(1)), "its certificate is not checked"),
        (&verified, Some(tls(1)), ""),
    ] {
        let mut pair = pair(login, None, server);
        proves(&mut pair, &with_client("n,,", &[]), SCRAM);
        pair.forget();
        pair.server(&authentication(3, &[]));
        if refusal.is_empty() {
            server_hears(&mut pair, &with_zero("server-password"));
        } else {
            refused(&pair, "28000", refusal);
            assert!(pair.to_server.is_empty());
        }
    }
}

#[test]
fn a_server_that_does_not_know_the_password_is_not_believed() {
    let upstream = with_server(&servers(), "n,,", &[]);
    for last in [
        authentication(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        authentication(12, b"e=other"),
        // It says nothing at all.
        authentication(0, &[]),
    ] {
        let mut pair = pair(GATEWAY, None, None);
        proves(&mut pair, &with_client("n,,", &[]), SCRAM);
        pair.server(&sasl(&[SCRAM]));
        pair.server(&authentication(11, upstream.server_first.as_bytes()));
        pair.forget();
        pair.server(&last);
        assert_eq!(pair.session.state(), "closed");
        assert_eq!(kinds(&pair.to_client), "E");
    }
}

#[test]
fn a_server_that_asks_out_of_order() {
    for request in [
        authentication(11, b"r=x"),
        authentication(12, b"v=x"),
        authentication(7, &[]),
    ] {
        let mut pair = pair(GATEWAY, None, None);
        proves(&mut pair, &with_client("n,,", &[]), SCRAM);
        pair.forget();
        pair.server(&request);
        assert_eq!(pair.session.state(), "closed");
        assert!(pair.to_server.is_empty());
    }
}

#[test]
fn a_client_that_was_kept_from_binding() {
    let mut pair = pair(GATEWAY, Some(tls(2)), None);
    pair.client(&startup());
    pair.client(&chooses(SCRAM, "y,,n=,r=client"));
    refused(&pair, "28000", "kept from channel binding");
}

#[test]
fn a_proof_for_another_channel() {
    let mut pair = pair(GATEWAY, Some(tls(2)), None);
    let exchange = with_client("p=tls-server-end-point,,", &[3; 32]);
    proves(&mut pair, &exchange, PLUS);
    refused(&pair, "28000", "another channel");
}
