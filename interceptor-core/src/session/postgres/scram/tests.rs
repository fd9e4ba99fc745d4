use alloc::vec;

use super::*;

/// `ALTER ROLE … PASSWORD 'pencil'` with the salt of RFC 7677, as PostgreSQL would keep it; the keys
/// follow from that RFC's own figures.
fn pencil() -> (Keys, Verifier) {
    derived(b"pencil", "W22ZaJ0SNY7soEsUEjb6gQ==", 4096)
}

fn derived(password: &[u8], salt: &str, iterations: u32) -> (Keys, Verifier) {
    let salt = scram::decode(salt).unwrap();
    let keys = Derivation {
        password: Zeroizing::new(password.to_vec()),
        salt: salt.clone(),
        iterations,
    }
    .run();
    let verifier = Verifier {
        iterations,
        salt,
        stored_key: sha256(&*keys.client),
        server_key: *keys.server,
    };
    (keys, verifier)
}

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

/// The exchange of RFC 7677, section 3, from the server's end.
#[test]
fn a_server_by_the_vectors_of_rfc_7677() {
    let (_, verifier) = pencil();
    let mut challenger = Challenger::new(verifier, &[0; NONCE_BYTES], None);
    challenger.nonce = SERVER_NONCE.into();
    let first = format!("n,,n=user,r={CLIENT_NONCE}");
    let (challenged, reply) = challenger.first(false, first.as_bytes()).unwrap();
    let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
    assert_eq!(
        reply,
        format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    );
    let last = format!("c=biws,r={nonce},p={PROOF}");
    let proven = challenged.last(last.as_bytes());
    let proven = proven.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(proven.server_final, SIGNATURE);
    assert_eq!(*proven.keys.client, *pencil().0.client);
}

/// The same from the client's end; the user is PostgreSQL's, so that the proof is another.
#[test]
fn a_client_meets_a_server() {
    let (keys, verifier) = pencil();
    for end_point in [None, Some(vec![7; 32])] {
        let binding = match end_point {
            None => ChannelBinding::Unable,
            Some(_) => ChannelBinding::EndPoint,
        };
        let prover = Prover::new(&[1; NONCE_BYTES], binding, end_point.as_deref());
        let challenger = Challenger::new(verifier.clone(), &[2; NONCE_BYTES], end_point.clone());
        assert_eq!(challenger.binds(), end_point.is_some());
        let first = prover.first();
        let bound = end_point.is_some();
        let (challenged, reply) = challenger.first(bound, first.as_bytes()).unwrap();
        let asked = prover.asked(reply.as_bytes()).unwrap();
        assert_eq!((asked.iterations, asked.salt.len()), (4096, 16));
        let (awaiting, last) = asked.prove(&keys);
        let proven = challenged.last(last.as_bytes());
        let proven = proven.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(awaiting.verify(proven.server_final.as_bytes()), Ok(()));
        // What the server learnt is enough to log in with.
        assert_eq!(*proven.keys.client, *keys.client);
    }
}

/// What PostgreSQL 15 keeps of two passwords, the second with a soft hyphen in it.
#[test]
fn verifiers_of_postgresql() {
    const ALICE: &str = "SCRAM-SHA-256$4096:rFgDR7xZNFpPn1B6/2k6Kw==$abnM0AYNzIjq4c6dq/3LQWNAVXDQQZhKi4OVrnv8YQw=:NWi8hK1bFDfgnMViepkM6bn4k3hFzgjLs2a61bpTC1A=";
    const HYPHEN: &str = "SCRAM-SHA-256$4096:qAaZkf6qwWQX6GUbGFr2Ew==$6PQ8bR+K8J0kW///C0zb5z4BOC1DaKijQWQf58lyX60=:VB2PJAEB1jQ7fUlcQT5oNm7ivwtmDWtGWPT/yNODiiQ=";
    for (text, password, salt) in [
        (ALICE, "alice-password", "rFgDR7xZNFpPn1B6/2k6Kw=="),
        (HYPHEN, "I\u{ad}X", "qAaZkf6qwWQX6GUbGFr2Ew=="),
    ] {
        let (_, expected) = derived(password.as_bytes(), salt, 4096);
        assert!(Verifier::parse(text).is_some_and(|parsed| parsed == expected));
    }
    for iterations in ["4095", "1000001", "-1", ""] {
        let text = ALICE.replace("4096", iterations);
        assert!(Verifier::parse(&text).is_none(), "{iterations}");
    }
    for text in ["", "md5abc", "SCRAM-SHA-256$4096:YQ==$YQ==:YQ=="] {
        assert!(Verifier::parse(text).is_none(), "{text}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (keys, verifier) = pencil();
    let exchange = |change: fn(String) -> String, end_point: Option<Vec<u8>>| {
        let prover = Prover::new(&[1; NONCE_BYTES], ChannelBinding::Unable, None);
        let challenger = Challenger::new(verifier.clone(), &[2; NONCE_BYTES], end_point);
        let first = prover.first();
        let (challenged, reply) = challenger.first(false, first.as_bytes())?;
        let (_, last) = prover.asked(reply.as_bytes())?.prove(&keys);
        challenged.last(change(last.as_str().into()).as_bytes())
    };
    let error = |change, end_point| exchange(change, end_point).err();
    assert_eq!(error(|last| last, None), None);
    // Who cannot bind may come unbound.
    assert_eq!(error(|last| last, Some(vec![1; 32])), None);
    let wrong = |last: String| {
        let at = last.rfind(",p=").unwrap() + 3;
        format!("{}{}", &last[..at], scram::encode(&[9; 32]))
    };
    assert_eq!(error(wrong, None), Some(ScramError::Proof));
    let other = |last: String| last.replace("c=biws", "c=eSws");
    assert_eq!(error(other, None), Some(ScramError::Channel));
    let nonce = |last: String| last.replacen("r=AQ", "r=BQ", 1);
    assert_eq!(error(nonce, None), Some(ScramError::Nonce));
}

#[test]
fn a_downgrade_is_seen() {
    let (_, verifier) = pencil();
    let challenger = |end_point| Challenger::new(verifier.clone(), &[2; NONCE_BYTES], end_point);
    let first = |end_point: Option<Vec<u8>>, bound, message: &str| {
        let challenger = challenger(end_point);
        challenger
            .first(bound, message.as_bytes())
            .map(|_| ())
            .err()
    };
    let end_point = || Some(vec![1; 32]);
    assert_eq!(
        first(end_point(), false, "y,,n=,r=a"),
        Some(ScramError::Downgrade)
    );
    assert_eq!(first(None, false, "y,,n=,r=a"), None);
    assert_eq!(
        first(end_point(), true, "n,,n=,r=a"),
        Some(ScramError::Mechanism)
    );
    assert_eq!(
        first(end_point(), false, "p=tls-server-end-point,,n=,r=a"),
        Some(ScramError::Mechanism)
    );
    assert_eq!(
        first(end_point(), true, "p=tls-server-end-point,,n=,r=a"),
        None
    );
}

#[test]
fn a_server_that_wants_too_much_or_too_little() {
    for (iterations, refused) in [(1, true), (4095, true), (4096, false), (1_000_001, true)] {
        let prover = Prover::new(&[1; NONCE_BYTES], ChannelBinding::Unable, None);
        let first = format!("r={}x,s=YQ==,i={iterations}", prover.nonce);
        assert_eq!(
            prover.asked(first.as_bytes()).is_err(),
            refused,
            "{iterations}"
        );
    }
    let prover = Prover::new(&[1; NONCE_BYTES], ChannelBinding::Unable, None);
    let own = format!("r={},s=YQ==,i=4096", prover.nonce);
    assert_eq!(prover.asked(own.as_bytes()).err(), Some(ScramError::Nonce));
}

#[test]
fn a_server_that_does_not_know_the_password() {
    for (message, expected) in [
        (SIGNATURE, ScramError::Impostor),
        ("e=other-error", ScramError::Refused),
    ] {
        let awaiting = Awaiting { signature: [3; 32] };
        assert_eq!(awaiting.verify(message.as_bytes()), Err(expected));
    }
}

#[test]
fn nobody_can_tell_who_is_known() {
    let (_, like) = derived(b"x", "W22ZaJ0SNY7soEsUEjb6gW22ZaJ0SNY7", 10_000);
    let mock = Verifier::mock(&[1; 32], "nobody", Some(&like));
    assert_eq!(mock.salt.len(), like.salt.len());
    assert_eq!(mock.iterations, 10_000);
    assert!(mock == Verifier::mock(&[1; 32], "nobody", Some(&like)));
    assert_ne!(mock.salt, Verifier::mock(&[1; 32], "other", None).salt);
    assert_ne!(
        mock.salt,
        Verifier::mock(&[2; 32], "nobody", Some(&like)).salt
    );
    assert_eq!(Verifier::mock(&[1; 32], "nobody", None).salt.len(), 16);
}

#[test]
fn passwords_are_prepared_as_postgresql_does() {
    for (password, expected) in [
        (&b"pencil"[..], &b"pencil"[..]),
        // RFC 4013: a soft hyphen is nothing, a no-break space is a space, a roman nine is IX.
        ("I\u{ad}X".as_bytes(), b"IX"),
        ("a\u{a0}b".as_bytes(), b"a b"),
        ("\u{2168}".as_bytes(), b"IX"),
        // What is prohibited, or no UTF-8, is taken as it is.
        ("a\u{7}b".as_bytes(), "a\u{7}b".as_bytes()),
        (b"\xff\xfe", b"\xff\xfe"),
    ] {
        assert_eq!(&prepared(password)[..], expected);
    }
}
