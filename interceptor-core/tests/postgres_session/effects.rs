//! Nothing takes effect before it is written down, and nothing that was refused takes effect.

use proptest::prelude::*;

use crate::pair::{Pair, RULES, masked};
use crate::text::*;

/// Messages with a command in them, and the word that shows that it went.
fn commands() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (query("INSERT INTO orders VALUES (1)"), "INSERT"),
        (query("SELECT marker"), "marker"),
        (query("COPY orders FROM STDIN"), "COPY"),
        (
            [parse("", "SELECT 1"), bind("portal", ""), sync()].concat(),
            "portal",
        ),
    ]
}

#[test]
fn no_command_goes_before_its_record_is_durable() {
    for (message, marker) in commands() {
        let mut pair = Pair::running(RULES);
        pair.withhold = true;
        pair.client(&message);
        assert_eq!(pair.tickets.len(), 1);
        assert!(!holds(&pair.to_server, marker), "{marker}");
        pair.wait(600);
        assert!(!holds(&pair.to_server, marker), "{marker}");
        pair.confirm();
        assert!(holds(&pair.to_server, marker), "{marker}");
    }
}

/// What comes behind a command waits with it, whatever it is.
#[test]
fn nothing_overtakes_a_command_that_waits() {
    let mut pair = Pair::running(RULES);
    pair.withhold = true;
    pair.client(&query("INSERT INTO orders VALUES (1)"));
    pair.client(
        &[
            parse("", "SELECT 2"),
            flush(),
            bind("", ""),
            execute(""),
            sync(),
        ]
        .concat(),
    );
    pair.client(&query("DROP TABLE orders"));
    assert!(pair.to_server.is_empty());
    // One ticket after the other.
    let tickets = std::mem::take(&mut pair.tickets);
    pair.session.handle_recorded(tickets[0]);
    pair.pump();
    assert_eq!(kinds(&pair.to_server), "QPH");
    pair.session.handle_recorded(tickets[1]);
    pair.pump();
    assert_eq!(kinds(&pair.to_server), "QPHBESQ");
    assert!(!holds(&pair.to_server, "DROP"));
}

#[test]
fn an_approval_is_durable_before_its_command_goes() {
    let mut pair = Pair::running(RULES);
    pair.withhold = true;
    pair.client(&query("DELETE FROM orders"));
    assert!(pair.tickets.is_empty());
    pair.resolve(true);
    assert_eq!(pair.tickets.len(), 1);
    assert!(pair.to_server.is_empty());
    pair.confirm();
    assert!(holds(&pair.to_server, "DELETE"));
    // The permit is used up.
    pair.forget();
    pair.resolve(true);
    assert!(pair.to_server.is_empty());
}

#[test]
fn a_log_that_takes_nothing_lets_nothing_through() {
    let mut pair = Pair::running(RULES);
    pair.withhold = true;
    pair.client(&query("INSERT INTO orders VALUES (1)"));
    pair.session.handle_not_recorded("the disk is full");
    pair.pump();
    assert!(!holds(&pair.to_server, "INSERT"));
    assert_eq!(kinds(&pair.to_client), "E");
    assert_eq!(pair.session.state(), "closed");
    pair.confirm();
    assert!(!holds(&pair.to_server, "INSERT"));
}

/// A client that is gone, a shutdown, a dead server: none of them lets go what waits.
#[test]
fn an_end_lets_go_nothing_that_waits() {
    type End = fn(&mut Pair);
    let ends: [End; 4] = [
        |pair| pair.session.terminate("going down"),
        |pair| pair.session.handle_server_closed(),
        |pair| pair.session.handle_broken("it broke"),
        |pair| pair.client(&[0xff; 16]),
    ];
    for end in ends {
        let mut pair = Pair::running(RULES);
        pair.withhold = true;
        pair.client(&query("INSERT INTO orders VALUES (1)"));
        end(&mut pair);
        pair.pump();
        pair.confirm();
        assert!(!holds(&pair.to_server, "INSERT"));

        let mut pair = Pair::running(RULES);
        pair.client(&query("DELETE FROM orders"));
        end(&mut pair);
        pair.pump();
        pair.resolve(true);
        assert!(!holds(&pair.to_server, "DELETE"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any order of commands and confirmations: what is upstream was confirmed.
    #[test]
    fn confirmations_gate_every_prefix(script in prop::collection::vec((0usize..4, any::<bool>()), 1..30)) {
        let mut pair = Pair::running(&masked());
        pair.withhold = true;
        let (mut sent, mut confirmed) = (0usize, 0usize);
        for (_, confirm) in script {
            pair.client(&query(&format!("SELECT 'marker{sent}'")));
            sent += 1;
            if confirm && !pair.tickets.is_empty() {
                let ticket = pair.tickets.remove(0);
                pair.session.handle_recorded(ticket);
                pair.pump();
                confirmed += 1;
            }
            for index in 0..sent {
                let went = holds(&pair.to_server, &format!("'marker{index}'"));
                prop_assert_eq!(went, index < confirmed);
            }
        }
    }
}
