//! Which of several rules speaks: priority, strictness, names, joined holds; grants and bypasses.

use interceptor_core::policy::Outcome;

use super::*;

const SELECT: &str = "{statements: [SELECT]}";

/// The outcome, the rule and what was lifted.
fn said(snapshot: &Arc<Snapshot>, subject: &Subject, facts: &Facts, time: &str) -> [String; 3] {
    let view = View::new(Arc::clone(snapshot), "orders", subject.clone()).unwrap();
    let decision = view.decide(&Input {
        facts,
        text: "",
        now_unix_ns: at(time),
    });
    let lift = decision
        .lift
        .map(|lift| format!("{} {} {}", lift.kind, lift.by.name, lift.rule));
    [
        decision.outcome.word().into(),
        decision
            .rule
            .map_or("none".into(), |rule| rule.name.clone()),
        lift.unwrap_or_default(),
    ]
}

#[test]
fn the_highest_priority_speaks_and_then_the_strictest() {
    let rule =
        |priority: i32, then: &str| format!("{{priority: {priority}, match: {{}}, then: {then}}}");
    for (specs, outcome, speaks) in [
        (vec![(0, "deny"), (1, "allow")], "allow", "r1"),
        (vec![(0, "allow"), (-1, "terminate")], "allow", "r0"),
        (vec![(5, "hold"), (5, "deny"), (5, "allow")], "deny", "r1"),
        (vec![(5, "terminate"), (5, "deny")], "terminate", "r0"),
        (
            vec![(1000, "{limit: {rows: 1}}"), (-1000, "deny")],
            "deny",
            "r1",
        ),
        (vec![(0, "deny"), (0, "deny")], "deny", "r0"),
    ] {
        let specs: Vec<(String, String)> = specs
            .iter()
            .enumerate()
            .map(|(number, (priority, then))| (format!("r{number}"), rule(*priority, then)))
            .collect();
        let named: Vec<(&str, &str)> = specs
            .iter()
            .map(|(name, spec)| (name.as_str(), spec.as_str()))
            .collect();
        let snapshot = rules(&named);
        let found = said(&snapshot, &subject(), &facts(&["SELECT"], &[], &[]), NOON);
        assert_eq!(found, [outcome, speaks, ""], "{specs:?}");
    }
}

#[test]
fn holds_of_one_priority_join() {
    let snapshot = load(&format!(
        "{TARGET}---
{{kind: ApproverGroup, name: dba, spec: {{uids: [1, 2, 3]}}}}
---
{{kind: ApproverGroup, name: sec, spec: {{uids: [4, 5]}}}}
---
{{kind: Rule, name: b, spec: {{match: {{}}, then: {{hold: {{group: dba, quorum: 2, timeout: 20m}}}}}}}}
---
{{kind: Rule, name: a, spec: {{match: {{}}, then: {{hold: {{groups: [dba, sec], timeout: 30m, message: first, onTimeout: {{automatic: 'true'}}}}}}}}}}
---
{{kind: Rule, name: later, spec: {{priority: -1, match: {{}}, then: {{hold: {{timeout: 1m}}}}}}}}
"
    ));
    let decision = decide(&snapshot, &subject(), &facts(&["SELECT"], &[], &[]));
    let Outcome::Hold(plan) = &decision.outcome else {
        panic!("{decision:?}");
    };
    assert_eq!(plan.required(), ["2 of dba", "1 of sec"]);
    assert_eq!(plan.timeout.as_secs(), 20 * 60);
    assert_eq!(
        plan.on_timeout,
        policy::OnTimeout::Deny,
        "ends that differ are a refusal"
    );
    assert_eq!(
        (decision.rule.unwrap().name.as_str(), &*decision.reason),
        ("a", "first")
    );
}

const NOON: &str = "2026-11-20T12:00:00Z";

/// Rules with a grant, as YAML flow mappings.
fn granted(default: &str, rules: &[(&str, &str)], lifters: &[(&str, &str, &str)]) -> Arc<Snapshot> {
    let mut text = format!("{TARGET}  default: {default}\n  incomplete: {default}\n");
    for (name, spec) in rules {
        text += &format!("---\n{{kind: Rule, name: {name}, spec: {spec}}}\n");
    }
    for (kind, name, spec) in lifters {
        text += &format!("---\n{{kind: {kind}, name: {name}, spec: {spec}}}\n");
    }
    load(&text)
}

#[test]
fn a_grant_takes_out_what_it_names_while_it_is_in_time() {
    let grant = "{match: {users: [app]}, from: 2026-11-20T12:00:00Z, until: 2026-11-20T13:00:00+01:00, lifts: [no-*], reason: INC-7}";
    // 13:00 at +01:00 is noon: never in force.
    let text = format!(
        "{TARGET}---\n{{kind: Rule, name: no-x, spec: {{match: {{}}, then: deny}}}}\n---\n{{kind: Grant, name: g, spec: {grant}}}\n"
    );
    let never = policy::load(
        &[Source {
            file: "p.yaml",
            text: &text,
        }],
        &HashKey::new([0; 32]),
    );
    assert!(
        never
            .unwrap_err()
            .to_string()
            .contains("`until` is not after `from`")
    );

    let grant = "{match: {users: [app]}, from: 2026-11-20T12:00:00Z, until: 2026-11-20T13:00:00Z, lifts: ['no-*'], reason: INC-7}";
    let deny = format!("{{match: {SELECT}, then: deny}}");
    let snapshot = granted(
        "allow",
        &[("no-reads", &deny)],
        &[("Grant", "inc-7", grant)],
    );
    let select = facts(&["SELECT"], &["orders"], &[]);
    let other = Subject {
        user: "etl".into(),
        ..subject()
    };
    for (subject, time, expected) in [
        (subject(), "2026-11-20T11:59:59Z", ["deny", "no-reads", ""]),
        (
            subject(),
            "2026-11-20T12:00:00Z",
            ["allow", "none", "Grant inc-7 no-reads"],
        ),
        (
            subject(),
            "2026-11-20T12:59:59Z",
            ["allow", "none", "Grant inc-7 no-reads"],
        ),
        (subject(), "2026-11-20T13:00:00Z", ["deny", "no-reads", ""]),
        (other, "2026-11-20T12:00:00Z", ["deny", "no-reads", ""]),
    ] {
        assert_eq!(said(&snapshot, &subject, &select, time), expected, "{time}");
    }
    // What it does not cover, it does not lift.
    let hidden = Facts {
        incomplete: Some("dynamic"),
        ..select.clone()
    };
    assert_eq!(
        said(&snapshot, &subject(), &hidden, NOON),
        ["deny", "no-reads", ""]
    );
}

#[test]
fn lifting_counts_for_what_is_named_alone() {
    let until = "until: 2027-01-01T00:00:00Z, reason: why";
    let grant =
        |conditions: &str, lifts: &str| format!("{{match: {conditions}, lifts: {lifts}, {until}}}");
    let hold = "{match: {}, then: hold}";
    let deny = "{match: {}, then: deny}";
    let local = "{clientNetworks: [10.9.0.0/16]}";
    for (default, rules, lifters, expected) in [
        // Another rule still speaks; what was lifted and would not have spoken is no lift.
        (
            "allow",
            vec![("a", hold), ("b", deny)],
            vec![("Grant", "g", grant(local, "[a]"))],
            ["deny", "b", ""],
        ),
        (
            "allow",
            vec![("a", deny), ("b", hold)],
            vec![("Grant", "g", grant(local, "[a]"))],
            ["hold", "b", "Grant g a"],
        ),
        // The target's own action.
        (
            "deny",
            vec![],
            vec![("Grant", "g", grant(local, "[default]"))],
            ["allow", "none", "Grant g default"],
        ),
        (
            "deny",
            vec![("a", hold)],
            vec![("Grant", "g", grant(local, "[a]"))],
            ["deny", "none", "Grant g a"],
        ),
        (
            "deny",
            vec![("a", hold)],
            vec![("Grant", "g", grant(local, "[a, default]"))],
            ["allow", "none", "Grant g a"],
        ),
        // A pattern is about rules, not about the default.
        (
            "deny",
            vec![("a", deny)],
            vec![("Grant", "g", grant(local, "['*']"))],
            ["deny", "none", "Grant g a"],
        ),
        // Doubt about whom it is for is no match.
        (
            "allow",
            vec![("a", deny)],
            vec![("Grant", "g", grant("{process: {uids: [0]}}", "[a]"))],
            ["deny", "a", ""],
        ),
        // A bypass lifts holds, whoever asks for them, and nothing else.
        (
            "allow",
            vec![("a", hold)],
            vec![("Bypass", "p", format!("{{match: {local}}}"))],
            ["allow", "none", "Bypass p a"],
        ),
        (
            "hold",
            vec![],
            vec![("Bypass", "p", format!("{{match: {local}}}"))],
            ["allow", "none", "Bypass p default"],
        ),
        (
            "allow",
            vec![("a", deny)],
            vec![("Bypass", "p", format!("{{match: {local}}}"))],
            ["deny", "a", ""],
        ),
        (
            "deny",
            vec![],
            vec![("Bypass", "p", format!("{{match: {local}}}"))],
            ["deny", "none", ""],
        ),
        (
            "hold",
            vec![("a", hold)],
            vec![("Bypass", "p", format!("{{match: {local}, lifts: [a]}}"))],
            ["hold", "none", "Bypass p a"],
        ),
        (
            "allow",
            vec![("a", hold), ("b", hold)],
            vec![("Bypass", "p", format!("{{match: {local}, lifts: [a]}}"))],
            ["hold", "b", "Bypass p a"],
        ),
        // What allows is never lifted.
        (
            "deny",
            vec![("a", "{match: {}, then: allow}")],
            vec![("Grant", "g", grant(local, "[a]"))],
            ["allow", "a", ""],
        ),
    ] {
        let lifters: Vec<(&str, &str, &str)> = lifters
            .iter()
            .map(|(kind, name, spec)| (*kind, *name, spec.as_str()))
            .collect();
        let snapshot = granted(default, &rules, &lifters);
        let found = said(
            &snapshot,
            &subject(),
            &facts(&["SELECT"], &["orders"], &[]),
            NOON,
        );
        assert_eq!(found, expected, "{default} {rules:?} {lifters:?}");
    }
}

#[test]
fn tools_see_the_rules_in_their_order() {
    let snapshot = rules(&[
        ("z", "{match: {}, then: allow}"),
        (
            "limits",
            "{priority: 3, match: {}, then: {limit: {rows: 1}}}",
        ),
        (
            "first",
            "{priority: 3, match: {}, then: {hold: please, readOnly: true}}",
        ),
        ("a", "{match: {}, then: deny}"),
    ]);
    let seen: Vec<(String, i16, Option<&str>, bool)> = snapshot
        .rules()
        .map(|rule| {
            (
                rule.reference.name.clone(),
                rule.priority,
                rule.outcome,
                rule.obliges,
            )
        })
        .collect();
    let expected = [
        ("first", 3, Some("hold"), true),
        ("limits", 3, None, true),
        ("a", 0, Some("deny"), false),
        ("z", 0, Some("allow"), false),
    ];
    let expected = expected
        .map(|(name, priority, outcome, obliges)| (String::from(name), priority, outcome, obliges));
    assert_eq!(seen, expected);
    assert_eq!(
        (
            snapshot.counts.rules,
            snapshot.counts.targets,
            snapshot.counts.grants
        ),
        (4, 1, 0)
    );
}

#[test]
fn a_rule_that_matches_in_doubt_takes_the_place_of_nothing_stricter() {
    let person = "---\n{kind: Identity, name: alice, spec: {is: [{users: [alice]}]}}\n";
    let decided = |user: &str, rules: &[(&str, &str)]| {
        let rules = rules
            .iter()
            .map(|(name, spec)| format!("---\n{{kind: Rule, name: {name}, spec: {spec}}}\n"));
        let snapshot = load(&format!("{TARGET}{person}{}", rules.collect::<String>()));
        let subject = Subject {
            user: user.into(),
            ..subject()
        };
        let decision = decide(&snapshot, &subject, &facts(&["DELETE"], &[], &["orders"]));
        let rule = decision.rule.map(|rule| rule.name.clone());
        (decision.outcome.word(), rule.unwrap_or_default())
    };
    let asked = (
        "ask-alice",
        "{priority: 10, match: {persons: [alice]}, then: hold}",
    );
    let nobody = ("nobody", "{match: {}, then: deny}");
    let anybody = ("anybody", "{priority: 5, match: {}, then: allow}");
    let told = |word, rule: &str| (word, String::from(rule));
    assert_eq!(
        decided("alice", &[asked, nobody]),
        told("hold", "ask-alice")
    );
    // Nobody knows who this is: it may not be alice.
    assert_eq!(decided("app", &[asked, nobody]), told("deny", "nobody"));
    // What is laxer does not come in either way.
    assert_eq!(
        decided("app", &[asked, anybody, nobody]),
        told("hold", "ask-alice")
    );
}

#[test]
fn a_rule_that_matches_in_doubt_does_not_take_the_place_of_a_stricter_default() {
    let text = format!(
        "{}  default: deny\n---\n{{kind: Rule, name: ask, spec: {{match: {{writes: [public.orders]}}, then: hold}}}}\n",
        TARGET
    );
    let snapshot = load(&text);
    let decided = |table| {
        let decision = decide(&snapshot, &subject(), &facts(&["DELETE"], &[], &[table]));
        (decision.outcome.word(), decision.rule.is_some())
    };
    assert_eq!(decided("public.orders"), ("hold", true));
    assert_eq!(decided("other.orders"), ("deny", false));
    // Which of the two it is, the session's search_path decides.
    assert_eq!(decided("orders"), ("deny", false));
}
