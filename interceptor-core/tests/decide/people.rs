//! Who a session's person is, what doubt about it means, and who is in a group.

use interceptor_core::policy::{Approver, Outcome};

use super::*;

const PEOPLE: &str = "---
kind: Identity
name: alice
spec: {groups: [dba, oncall], is: [{users: [alice], clientNetworks: [10.9.0.0/16]}, {databases: [alices]}], localUsers: [alice], uids: [1000]}
---
kind: Identity
name: ci
spec: {groups: [bots], is: [{process: {units: ['ci-*.service']}}]}
---
kind: Identity
name: intern
spec: {is: [{users: [alice], databases: [sandbox]}]}
";

fn people(rules: &str) -> Arc<Snapshot> {
    load(&format!("{TARGET}{PEOPLE}{rules}"))
}

fn alice() -> Subject {
    Subject {
        user: "alice".into(),
        ..subject()
    }
}

fn process(uid: u32, unit: Option<&str>) -> Option<Process> {
    Some(Process {
        uid,
        unit: unit.map(Into::into),
        ..Process::default()
    })
}

#[test]
fn exactly_one_identity_is_the_person() {
    let snapshot = people("");
    let sandbox = |subject| Subject {
        database: "sandbox".into(),
        ..subject
    };
    for (subject, person, groups) in [
        (alice(), Some("alice"), "dba oncall"),
        (subject(), None, ""),
        // All keys of an entry have to fit.
        (
            Subject {
                client: ([192, 0, 2, 1], 1).into(),
                ..alice()
            },
            None,
            "",
        ),
        (
            Subject {
                database: "alices".into(),
                ..subject()
            },
            Some("alice"),
            "dba oncall",
        ),
        // Two fit: nobody knows.
        (sandbox(alice()), None, ""),
        // A local process of the person's user.
        (
            Subject {
                process: process(1000, None),
                ..subject()
            },
            Some("alice"),
            "dba oncall",
        ),
        (
            Subject {
                process: process(1, Some("ci-build.service")),
                ..subject()
            },
            Some("ci"),
            "bots",
        ),
        // What is not known of a process identifies nobody.
        (
            Subject {
                process: process(1, None),
                ..subject()
            },
            None,
            "",
        ),
    ] {
        let view = View::new(Arc::clone(&snapshot), "orders", subject.clone()).unwrap();
        assert_eq!(view.who().person.as_deref(), person, "{subject:?}");
        assert_eq!(view.who().groups.join(" "), groups, "{subject:?}");
    }
    let view = View::new(snapshot, "orders", sandbox(alice())).unwrap();
    let select = facts(&["SELECT"], &[], &[]);
    let input = Input {
        facts: &select,
        text: "",
        now_unix_ns: 0,
    };
    let identities = view.explain(&input).identities;
    let names: Vec<&str> = identities.iter().map(|name| &**name).collect();
    assert_eq!(names, ["alice", "intern"]);
}

#[test]
fn an_unknown_person_is_doubt() {
    let select = facts(&["SELECT"], &[], &[]);
    for (conditions, subject, expected) in [
        ("{persons: [alice]}", alice(), BOTH),
        ("{persons: ['a*', ci]}", alice(), BOTH),
        ("{persons: [ci]}", alice(), NEITHER),
        ("{persons: [ci]}", subject(), ONLY_DENY),
        ("{groups: [dba]}", alice(), BOTH),
        ("{groups: ['on*']}", alice(), BOTH),
        ("{groups: [bots]}", alice(), NEITHER),
        ("{groups: [bots]}", subject(), ONLY_DENY),
        ("{when: \"client.person == 'alice'\"}", alice(), BOTH),
        ("{when: \"client.person == 'alice'\"}", subject(), ONLY_DENY),
        ("{when: \"'dba' in client.groups\"}", alice(), BOTH),
        ("{when: \"'bots' in client.groups\"}", alice(), NEITHER),
    ] {
        let decides = |then: &str| {
            let rule = format!(
                "---\n{{kind: Rule, name: r, spec: {{match: {conditions}, then: {then}}}}}\n"
            );
            decide(&people(&rule), &subject, &select).rule.is_some()
        };
        let found = (decides("deny"), decides("allow"));
        assert_eq!(found, expected, "{conditions} for {}", subject.user);
    }
}

#[test]
fn groups_of_groups_become_people() {
    let snapshot = people(
        "---
kind: ApproverGroup
name: dba
spec: {persons: [alice], uids: [7], localUsers: [bob]}
---
kind: ApproverGroup
name: all
spec: {groups: [dba], uids: [8]}
---
kind: Rule
name: r
spec: {match: {}, then: {hold: {groups: [dba, all], quorum: 2, timeout: 5m, onTimeout: {escalate: {group: all, timeout: 1m, onTimeout: {automatic: 'true'}}}}}}
",
    );
    let decision = decide(&snapshot, &subject(), &facts(&["SELECT"], &[], &[]));
    let Outcome::Hold(plan) = decision.outcome else {
        panic!("{decision:?}");
    };
    assert_eq!(plan.required(), ["2 of dba", "2 of all"]);
    assert!(!plan.requester_may_approve, "a group is asked");
    assert_eq!(plan.timeout.as_secs(), 300);
    let admits = |group: usize, uid: u32, user: Option<&str>| {
        plan.requirements[group]
            .group
            .admits(&Approver { uid, user })
    };
    assert!(admits(0, 1000, None) && admits(0, 1, Some("alice")) && admits(0, 7, None));
    assert!(admits(0, 2, Some("bob")) && !admits(0, 8, None) && !admits(0, 0, Some("root")));
    assert!(admits(1, 8, None) && admits(1, 7, None) && admits(1, 1000, None));
    let policy::OnTimeout::Escalate(next) = &plan.on_timeout else {
        panic!("{plan:?}");
    };
    assert_eq!(
        (next.required(), next.timeout.as_secs()),
        (vec!["1 of all".into()], 60)
    );
    assert!(!next.requester_may_approve);
    let policy::OnTimeout::Automatic(expression) = &next.on_timeout else {
        panic!("{next:?}");
    };
    assert_eq!(expression.text(), "true");
    let people = &snapshot.people.0;
    let known: Vec<&str> = people.iter().map(|person| &*person.name).collect();
    assert_eq!(known, ["alice", "ci", "intern"]);
}

#[test]
fn the_requester_may_approve_where_a_document_says_so() {
    let plan = |hold: &str| {
        let rule = format!(
            "---\n{{kind: ApproverGroup, name: dba, spec: {{uids: [1, 2]}}}}\n---\n{{kind: Rule, name: r, spec: {{match: {{}}, then: {{hold: {hold}}}}}}}\n"
        );
        let decision = decide(&people(&rule), &subject(), &facts(&["SELECT"], &[], &[]));
        match decision.outcome {
            Outcome::Hold(plan) => plan,
            other => panic!("{other:?}"),
        }
    };
    for (hold, may) in [
        ("please", true),
        ("{timeout: 1m}", true),
        ("{requesterMayApprove: false}", false),
        ("{group: dba}", false),
        ("{group: dba, requesterMayApprove: true}", true),
    ] {
        assert_eq!(plan(hold).requester_may_approve, may, "{hold}");
    }
    // What the first stage says holds for those after it.
    let escalated = plan("{requesterMayApprove: true, onTimeout: {escalate: {group: dba}}}");
    let policy::OnTimeout::Escalate(next) = &escalated.on_timeout else {
        panic!("{escalated:?}");
    };
    assert!(next.requester_may_approve);
}

#[test]
fn an_automatic_end_is_a_no_in_doubt() {
    let snapshot = people("");
    let expression = |text| policy::Expression::compile(text).unwrap();
    let view = View::new(snapshot, "orders", subject()).unwrap();
    let select = facts(&["SELECT"], &[], &[]);
    let hidden = Facts {
        incomplete: Some("a DO block"),
        ..select.clone()
    };
    for (text, facts, goes) in [
        ("client.user == 'app'", &select, true),
        ("client.user == 'etl'", &select, false),
        ("client.person == 'alice'", &select, false),
        ("client.user == 'app'", &hidden, false),
        (
            "statement.incomplete && client.user == 'app'",
            &hidden,
            true,
        ),
    ] {
        let input = Input {
            facts,
            text: "",
            now_unix_ns: 0,
        };
        assert_eq!(view.automatic(&expression(text), &input), goes, "{text}");
    }
}
