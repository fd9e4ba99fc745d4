//! The keys of `match` beside those of statements and tables: both readings of doubt, and what an allow
//! rule has to cover.

use interceptor_core::command::Column;

use super::*;

/// `table.column`, or a column of whatever table.
fn column(text: &str) -> Column {
    let (relation_name, name) = match text.rsplit_once('.') {
        Some((relation_name, name)) => (Some(relation(relation_name)), name),
        None => (None, text),
    };
    Column {
        relation: relation_name,
        name: (name != "*").then(|| name.into()),
    }
}

fn reading(reads: &[&str], columns: &[&str]) -> Facts {
    Facts {
        columns_read: columns.iter().map(|text| column(text)).collect(),
        ..facts(&["SELECT"], reads, &[])
    }
}

fn writing(writes: &[&str], columns: &[&str]) -> Facts {
    Facts {
        columns_written: columns.iter().map(|text| column(text)).collect(),
        ..facts(&["UPDATE"], &[], writes)
    }
}

#[test]
fn columns_match_and_cover() {
    let orders = |columns: &[&str]| reading(&["orders"], columns);
    let both = |columns: &[&str]| reading(&["orders", "customers"], columns);
    for (conditions, facts, expected) in [
        ("{columnsRead: [orders.id]}", orders(&["orders.id"]), BOTH),
        (
            "{columnsRead: [orders.ID]}",
            orders(&["orders.id"]),
            ONLY_DENY,
        ),
        (
            "{columnsRead: [public.orders.id]}",
            orders(&["orders.id"]),
            ONLY_DENY,
        ),
        (
            "{columnsRead: ['*.orders.id']}",
            orders(&["orders.id"]),
            BOTH,
        ),
        ("{columnsRead: ['*.id']}", orders(&["orders.id"]), BOTH),
        (
            "{columnsRead: [customers.id]}",
            orders(&["orders.id"]),
            NEITHER,
        ),
        (
            "{columnsRead: [orders.card]}",
            orders(&["orders.id"]),
            NEITHER,
        ),
        ("{columnsRead: [orders.id]}", orders(&[]), NEITHER),
        // Any for what restricts, all for what permits.
        (
            "{columnsRead: [orders.id]}",
            orders(&["orders.id", "orders.card"]),
            ONLY_DENY,
        ),
        (
            "{columnsRead: [orders.id, orders.card]}",
            orders(&["orders.id", "orders.card"]),
            BOTH,
        ),
        // Every column of a table has each of them in it.
        (
            "{columnsRead: [orders.card]}",
            orders(&["orders.*"]),
            ONLY_DENY,
        ),
        ("{columnsRead: ['orders.*']}", orders(&["orders.*"]), BOTH),
        (
            "{columnsRead: [customers.card]}",
            orders(&["orders.*"]),
            NEITHER,
        ),
        // A column of whatever table may be of any, and is for certain of one that is alone.
        ("{columnsRead: [orders.id]}", orders(&["id"]), BOTH),
        ("{columnsRead: [customers.id]}", orders(&["id"]), NEITHER),
        ("{columnsRead: [customers.id]}", both(&["id"]), ONLY_DENY),
        (
            "{columnsRead: [customers.id, orders.id]}",
            both(&["id"]),
            BOTH,
        ),
        (
            "{columnsRead: [orders.id]}",
            reading(&[], &["id"]),
            ONLY_DENY,
        ),
        (
            "{columnsRead: [orders.id]}",
            reading(&[], &["*"]),
            ONLY_DENY,
        ),
        (
            "{columnsRead: [orders.id]}",
            reading(&[], &["card"]),
            NEITHER,
        ),
        // Naming columns names their tables, and no others.
        (
            "{columnsRead: [orders.id]}",
            both(&["orders.id"]),
            ONLY_DENY,
        ),
        (
            "{columnsRead: [orders.id], reads: [customers, orders]}",
            both(&["orders.id"]),
            BOTH,
        ),
        (
            "{columnsRead: [orders.id]}",
            writing(&["orders"], &["orders.id"]),
            NEITHER,
        ),
        (
            "{columnsWritten: [orders.id]}",
            writing(&["orders"], &["orders.id"]),
            BOTH,
        ),
        (
            "{columnsWritten: [orders.id]}",
            writing(&["orders"], &["id"]),
            BOTH,
        ),
        (
            "{columnsWritten: [orders.id]}",
            writing(&["orders"], &["orders.id", "orders.card"]),
            ONLY_DENY,
        ),
        (
            "{columnsWritten: [orders.id]}",
            Facts {
                columns_read: vec![column("orders.card")],
                ..writing(&["orders"], &["orders.id"])
            },
            ONLY_DENY,
        ),
        (
            "{columnsWritten: [orders.id], columnsRead: [orders.card]}",
            Facts {
                columns_read: vec![column("orders.card")],
                ..writing(&["orders"], &["orders.id"])
            },
            BOTH,
        ),
    ] {
        assert_eq!(
            matches(conditions, &subject(), &facts),
            expected,
            "{conditions} on {facts:?}"
        );
    }
}

#[test]
fn estimates_match_and_unknown_is_doubt() {
    let rows = |estimated_rows| Facts {
        estimated_rows,
        ..facts(&["SELECT"], &["orders"], &[])
    };
    let nothing = facts(&["BEGIN"], &[], &[]);
    let hidden = Facts {
        incomplete: Some("a DO block"),
        ..facts(&["DO"], &[], &[])
    };
    for (conditions, facts, expected) in [
        ("{estimatedRows: {over: 1000}}", rows(Some(1001)), BOTH),
        ("{estimatedRows: {over: 1000}}", rows(Some(1000)), NEITHER),
        ("{estimatedRows: {over: 1000}}", rows(None), ONLY_DENY),
        // What names no table touches no rows, unless it hides what it does.
        ("{estimatedRows: {over: 1000}}", nothing, NEITHER),
        ("{estimatedRows: {over: 1000}}", hidden, ONLY_DENY),
        (
            "{when: 'statement.estimated_rows > 1000'}",
            rows(Some(1001)),
            BOTH,
        ),
        (
            "{when: 'statement.estimated_rows > 1000'}",
            rows(None),
            ONLY_DENY,
        ),
    ] {
        assert_eq!(
            matches(conditions, &subject(), &facts),
            expected,
            "{conditions} on {facts:?}"
        );
    }
}

/// As [`matches`], for a text and a time.
fn matches_at(conditions: &str, text: &str, time: &str) -> (bool, bool) {
    let decides = |then: &str| {
        let snapshot = rules(&[("r", &format!("{{match: {conditions}, then: {then}}}"))]);
        let view = View::new(snapshot, "orders", subject()).unwrap();
        let input = Input {
            facts: &facts(&["SELECT"], &["orders"], &[]),
            text,
            now_unix_ns: at(time),
        };
        view.decide(&input).rule.is_some()
    };
    (decides("deny"), decides("allow"))
}

#[test]
fn texts_and_times_match() {
    let friday_noon = "2026-11-20T12:00:00Z";
    for (conditions, text, time, expected) in [
        (
            "{text: '(?i)drop\\s+table'}",
            "DROP  TABLE x",
            friday_noon,
            BOTH,
        ),
        (
            "{text: '(?i)drop\\s+table'}",
            "drop index x",
            friday_noon,
            NEITHER,
        ),
        ("{text: '^select'}", "", friday_noon, NEITHER),
        ("{times: [{days: [fri], zone: UTC}]}", "", friday_noon, BOTH),
        (
            "{times: [{days: [mon-thu], zone: UTC}]}",
            "",
            friday_noon,
            NEITHER,
        ),
        (
            "{times: [{days: [mon-thu], zone: UTC}, {from: '12:00', to: '12:01', zone: UTC}]}",
            "",
            friday_noon,
            BOTH,
        ),
        (
            "{times: [{from: '12:30', to: '13:30', zone: Europe/Berlin}]}",
            "",
            friday_noon,
            BOTH,
        ),
        (
            "{times: [{from: '12:30', to: '13:30', zone: UTC}]}",
            "",
            friday_noon,
            NEITHER,
        ),
        // Past midnight, on the day that it began.
        (
            "{times: [{days: [thu], from: '18:00', to: '12:01', zone: UTC}]}",
            "",
            friday_noon,
            BOTH,
        ),
        (
            "{times: [{days: [fri], from: '18:00', to: '12:01', zone: UTC}]}",
            "",
            friday_noon,
            NEITHER,
        ),
        (
            "{when: \"now < timestamp('2026-12-01T00:00:00Z')\"}",
            "",
            friday_noon,
            BOTH,
        ),
        (
            "{when: \"statement.text.contains('drop')\"}",
            "drop",
            friday_noon,
            BOTH,
        ),
        (
            "{when: \"statement.text.contains('drop')\"}",
            "",
            friday_noon,
            NEITHER,
        ),
    ] {
        assert_eq!(
            matches_at(conditions, text, time),
            expected,
            "{conditions} on {text:?}"
        );
    }
}

#[test]
fn what_a_process_does_not_say_is_doubt() {
    let local = Subject {
        process: Some(Process {
            uid: 1000,
            container: Some("docker://0123".into()),
            unit: Some("backup.service".into()),
            ..Process::default()
        }),
        ..subject()
    };
    for (conditions, subject, expected) in [
        (
            "{process: {containers: ['docker://*']}}",
            local.clone(),
            BOTH,
        ),
        (
            "{process: {containers: ['podman://*']}}",
            local.clone(),
            NEITHER,
        ),
        (
            "{process: {containers: ['docker://*']}}",
            subject(),
            ONLY_DENY,
        ),
        ("{process: {units: [backup.service]}}", local.clone(), BOTH),
        ("{process: {units: [ssh.service]}}", local.clone(), NEITHER),
        (
            "{process: {units: [backup.service], cgroups: ['*']}}",
            local.clone(),
            ONLY_DENY,
        ),
        (
            "{when: \"process.unit == 'backup.service'\"}",
            local.clone(),
            BOTH,
        ),
        (
            "{when: \"process.cgroup == '/x'\"}",
            local.clone(),
            ONLY_DENY,
        ),
        ("{when: \"process.uid == 7\"}", local, NEITHER),
        ("{when: \"process.uid == 7\"}", subject(), ONLY_DENY),
    ] {
        let facts = facts(&["SELECT"], &[], &[]);
        assert_eq!(
            matches(conditions, &subject, &facts),
            expected,
            "{conditions}"
        );
    }
}

/// A pass-through shows neither text nor login, so a text is doubt there.
#[test]
fn a_connection_that_passes_has_no_text() {
    let cache = "---\n{kind: Target, name: cache, spec: {protocol: tcp, endpoints: ['10.0.0.7:6379'], default: hold}}\n";
    let connect = facts(&["CONNECT"], &[], &[]);
    for (conditions, then, expected) in [
        ("{text: FLUSHALL}", "deny", "deny"),
        ("{text: FLUSHALL, statements: [CONNECT]}", "allow", "hold"),
        (
            "{statements: [CONNECT], times: [{zone: UTC}]}",
            "allow",
            "allow",
        ),
        ("{columnsRead: ['*.id']}", "deny", "hold"),
        ("{estimatedRows: {over: 5}}", "deny", "deny"),
    ] {
        let text = format!(
            "{TARGET}{cache}---\n{{kind: Rule, name: r, spec: {{match: {conditions}, then: {then}}}}}\n"
        );
        let decision = decide_on("cache", &load(&text), &subject(), &connect);
        assert_eq!(decision.outcome.word(), expected, "{conditions} {then}");
    }
}
