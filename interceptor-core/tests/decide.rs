//! What a rule matches, key by key, and which of several matching rules decides.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

#[path = "decide/keys.rs"]
mod keys;
#[path = "decide/obligations.rs"]
mod obligations;
#[path = "decide/order.rs"]
mod order;
#[path = "decide/people.rs"]
mod people;
#[path = "decide/properties.rs"]
mod properties;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use interceptor_core::command::{Facts, Process, Relation, Subject};
use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, Decision, HoldPlan, Input, Outcome, Snapshot, Source, View};

const TARGET: &str = "
kind: Target
name: orders
spec:
  protocol: postgres
  endpoints: ['10.0.0.5:5432', '10.1.0.0/16:5432', '10.1.2.0/24:5432', '[fd00::5]:5432']
";

fn load(text: &str) -> Arc<Snapshot> {
    let sources = [Source {
        file: "policy.yaml",
        text,
    }];
    let loaded = policy::load(&sources, &HashKey::new([0; 32]));
    Arc::new(loaded.unwrap_or_else(|errors| panic!("\n{errors}")))
}

/// The target and rules, each as `name: {match: …, then: …}`.
fn rules(rules: &[(&str, &str)]) -> Arc<Snapshot> {
    let rules = rules
        .iter()
        .map(|(name, spec)| format!("---\nkind: Rule\nname: {name}\nspec: {spec}\n"));
    load(&(TARGET.to_owned() + &rules.collect::<String>()))
}

fn relation(name: &str) -> Relation {
    match name.split_once('.') {
        Some((schema, name)) => Relation {
            schema: Some(schema.into()),
            name: name.into(),
        },
        None => Relation {
            schema: None,
            name: name.into(),
        },
    }
}

fn facts(kinds: &[&'static str], reads: &[&str], writes: &[&str]) -> Facts {
    Facts {
        kinds: kinds.to_vec(),
        reads: reads.iter().map(|name| relation(name)).collect(),
        writes: writes.iter().map(|name| relation(name)).collect(),
        ..Facts::default()
    }
}

fn subject() -> Subject {
    Subject {
        client: SocketAddr::from(([10, 9, 0, 1], 50_000)),
        process: None,
        user: "app".into(),
        database: "shop".into(),
    }
}

/// Nanoseconds since the Unix epoch.
fn at(time: &str) -> u64 {
    let time: jiff::Timestamp = time.parse().unwrap();
    u64::try_from(time.as_nanosecond()).unwrap()
}

fn decide(snapshot: &Arc<Snapshot>, subject: &Subject, facts: &Facts) -> Decision {
    decide_on("orders", snapshot, subject, facts)
}

fn decide_on(target: &str, snapshot: &Arc<Snapshot>, subject: &Subject, facts: &Facts) -> Decision {
    let view = View::new(Arc::clone(snapshot), target, subject.clone()).unwrap();
    view.decide(&Input {
        facts,
        text: "",
        now_unix_ns: 0,
    })
}

/// Whether a rule with this `match` decides, once as a rule that denies and once as one that
/// allows.
fn matches(conditions: &str, subject: &Subject, facts: &Facts) -> (bool, bool) {
    let decides = |then: &str| {
        let snapshot = rules(&[("r", &format!("{{match: {conditions}, then: {then}}}"))]);
        decide(&snapshot, subject, facts).rule.is_some()
    };
    (decides("deny"), decides("allow"))
}

const BOTH: (bool, bool) = (true, true);
const NEITHER: (bool, bool) = (false, false);
const ONLY_DENY: (bool, bool) = (true, false);

#[test]
fn facts_match_key_by_key() {
    let select = || facts(&["SELECT"], &["orders"], &[]);
    let insert_select = || facts(&["INSERT"], &["secret.keys"], &["public.orders"]);
    let calls = |names: &[&str]| Facts {
        functions: names.iter().map(|name| (*name).into()).collect(),
        ..facts(&["SELECT"], &[], &[])
    };
    for (conditions, facts, expected) in [
        ("{}", select(), BOTH),
        ("{statements: [SELECT]}", select(), BOTH),
        ("{statements: [select, INSERT]}", select(), BOTH),
        ("{statements: [INSERT]}", select(), NEITHER),
        // Several statements: any for what restricts, all for what permits.
        (
            "{statements: [DROP]}",
            facts(&["SELECT", "DROP TABLE"], &[], &[]),
            ONLY_DENY,
        ),
        (
            "{statements: [DROP, SELECT]}",
            facts(&["SELECT", "DROP TABLE"], &[], &[]),
            BOTH,
        ),
        // A name that is a kind itself and the beginning of others.
        (
            "{statements: [SET]}",
            facts(&["SET ROLE"], &[], &[]),
            ONLY_DENY,
        ),
        ("{statements: [SET]}", facts(&["SET"], &[], &[]), BOTH),
        (
            "{statements: [CREATE]}",
            facts(&["CREATE TABLE AS"], &[], &[]),
            BOTH,
        ),
        ("{statements: [SELECT]}", facts(&[], &[], &[]), NEITHER),
        // Tables.
        ("{tables: [orders]}", select(), BOTH),
        ("{reads: [orders]}", select(), BOTH),
        ("{writes: [orders]}", select(), NEITHER),
        ("{reads: [public.orders]}", select(), ONLY_DENY),
        ("{reads: ['*.orders']}", select(), BOTH),
        ("{reads: ['public.*']}", select(), ONLY_DENY),
        ("{reads: [ORDERS]}", select(), ONLY_DENY),
        (
            "{tables: [orders]}",
            facts(&["SELECT"], &["orders", "keys"], &[]),
            ONLY_DENY,
        ),
        ("{tables: [orders]}", facts(&["SELECT"], &[], &[]), NEITHER),
        ("{writes: [orders]}", insert_select(), ONLY_DENY),
        ("{tables: [orders, keys]}", insert_select(), BOTH),
        ("{reads: [keys], writes: [orders]}", insert_select(), BOTH),
        ("{reads: [keys]}", insert_select(), ONLY_DENY),
        (
            "{writes: ['public.*'], reads: ['secret.*']}",
            insert_select(),
            BOTH,
        ),
        ("{writes: ['secret.*']}", insert_select(), NEITHER),
        // Functions.
        ("{functions: [lower]}", calls(&["lower"]), BOTH),
        (
            "{functions: [lower]}",
            calls(&["lower", "pg_read_file"]),
            ONLY_DENY,
        ),
        (
            "{functions: ['pg_read_*']}",
            calls(&["pg_catalog.pg_read_file"]),
            BOTH,
        ),
        (
            "{functions: [pg_catalog.lower]}",
            calls(&["lower"]),
            ONLY_DENY,
        ),
        ("{functions: [lower]}", calls(&[]), NEITHER),
        // The rest.
        ("{noWhere: true}", select(), NEITHER),
        ("{noWhere: false}", select(), BOTH),
        (
            "{noWhere: true}",
            Facts {
                unfiltered: true,
                ..select()
            },
            BOTH,
        ),
        ("{incomplete: true}", select(), NEITHER),
        (
            "{}",
            Facts {
                incomplete: Some("dynamic"),
                ..select()
            },
            ONLY_DENY,
        ),
        (
            "{incomplete: true}",
            Facts {
                incomplete: Some("dynamic"),
                ..select()
            },
            BOTH,
        ),
        (
            "{incomplete: false}",
            Facts {
                incomplete: Some("dynamic"),
                ..select()
            },
            NEITHER,
        ),
        // Every key that is given has to match.
        ("{statements: [SELECT], reads: [keys]}", select(), NEITHER),
        ("{statements: [SELECT], users: [other]}", select(), NEITHER),
    ] {
        assert_eq!(
            matches(conditions, &subject(), &facts),
            expected,
            "{conditions} on {facts:?}"
        );
    }
}

#[test]
fn subjects_match_key_by_key_and_doubt_restricts() {
    let process = Process {
        uid: 1000,
        gid: 1000,
        pid: 42,
        comm: "psql".into(),
        executable: Some("/usr/bin/psql".into()),
        ..Process::default()
    };
    let local = || Subject {
        process: Some(process.clone()),
        ..subject()
    };
    let mapped = || Subject {
        client: "[::ffff:10.9.0.1]:50000".parse().unwrap(),
        ..subject()
    };
    for (conditions, subject, expected) in [
        ("{targets: [orders]}", subject(), BOTH),
        ("{targets: ['ord*']}", subject(), BOTH),
        ("{users: [app]}", subject(), BOTH),
        ("{users: [App]}", subject(), NEITHER),
        ("{users: ['a*']}", subject(), BOTH),
        ("{databases: [billing, shop]}", subject(), BOTH),
        ("{databases: [billing]}", subject(), NEITHER),
        ("{clientNetworks: [10.9.0.0/16]}", subject(), BOTH),
        ("{clientNetworks: [10.9.0.0/16]}", mapped(), BOTH),
        ("{clientNetworks: ['::ffff:10.9.0.1']}", subject(), BOTH),
        (
            "{clientNetworks: [10.8.0.0/16, 'fd00::/8']}",
            subject(),
            NEITHER,
        ),
        ("{process: {uids: [0, 1000]}}", local(), BOTH),
        ("{process: {uids: [0]}}", local(), NEITHER),
        ("{process: {executables: ['/usr/bin/*']}}", local(), BOTH),
        (
            "{process: {uids: [1000], executables: [/bin/sh]}}",
            local(),
            NEITHER,
        ),
        // What is not known of the process.
        ("{process: {cgroups: [/user.slice]}}", local(), ONLY_DENY),
        ("{process: {uids: [1000]}}", subject(), ONLY_DENY),
    ] {
        let facts = facts(&["SELECT"], &[], &[]);
        assert_eq!(
            matches(conditions, &subject, &facts),
            expected,
            "{conditions}"
        );
    }
}

#[test]
fn the_strictest_rule_decides_and_then_the_first_by_name() {
    let snapshot = rules(&[
        ("allow-all", "{match: {}, then: allow}"),
        (
            "hold-b",
            "{match: {statements: [DELETE]}, then: {hold: {timeout: 5m}}}",
        ),
        (
            "hold-a",
            "{match: {statements: [DELETE]}, then: {hold: {message: slowly}}}",
        ),
        ("deny-z", "{match: {writes: [customers]}, then: deny}"),
        (
            "deny-y",
            "{match: {writes: [customers]}, then: {deny: never}}",
        ),
    ]);
    let decision = decide(
        &snapshot,
        &subject(),
        &facts(&["DELETE"], &[], &["customers"]),
    );
    assert_eq!(decision.outcome, Outcome::Deny);
    assert_eq!(&*decision.reason, "never");
    let rule = decision.rule.unwrap();
    assert_eq!(
        (&*rule.name, &*rule.file, rule.line),
        ("deny-y", "policy.yaml", 24)
    );

    let decision = decide(&snapshot, &subject(), &facts(&["DELETE"], &[], &["orders"]));
    assert_eq!(
        decision.outcome,
        Outcome::Hold(HoldPlan::by_anybody(Duration::from_secs(300)).into()),
        "both holds count, and the shorter time"
    );
    assert_eq!(&*decision.reason, "slowly");

    let decision = decide(&snapshot, &subject(), &facts(&["SELECT"], &["orders"], &[]));
    assert_eq!(decision.outcome, Outcome::Allow);
    assert_eq!(&*decision.reason, "allowed by the rule allow-all");
}

#[test]
fn the_order_of_files_and_documents_means_nothing() {
    let one = "{kind: Rule, name: a, spec: {match: {}, then: {deny: first}}}";
    let two = "{kind: Rule, name: b, spec: {match: {}, then: {deny: second}}}";
    for (one, two) in [(one, two), (two, one)] {
        let sources = [
            Source {
                file: "2.yaml",
                text: one,
            },
            Source {
                file: "3.yaml",
                text: two,
            },
            Source {
                file: "1.yaml",
                text: TARGET,
            },
        ];
        let snapshot = Arc::new(policy::load(&sources, &HashKey::new([0; 32])).unwrap());
        let decision = decide(&snapshot, &subject(), &facts(&["SELECT"], &[], &[]));
        assert_eq!(&*decision.reason, "first");
    }
}

#[test]
fn without_a_rule_the_target_decides() {
    let complete = facts(&["SELECT"], &[], &[]);
    let incomplete = Facts {
        incomplete: Some("a DO block"),
        ..facts(&["DO"], &[], &[])
    };
    for (keys, on_complete, on_incomplete) in [
        ("", "Allow", "Deny"),
        ("  default: deny\n", "Deny", "Deny"),
        ("  incomplete: allow\n", "Allow", "Allow"),
        (
            "  default: {hold: {timeout: 1h}}\n  incomplete: hold\n",
            "Hold",
            "Hold",
        ),
    ] {
        let snapshot = load(&(TARGET.to_owned() + keys));
        for (facts, expected) in [(&complete, on_complete), (&incomplete, on_incomplete)] {
            let decision = decide(&snapshot, &subject(), facts);
            assert!(
                format!("{:?}", decision.outcome).starts_with(expected),
                "{keys}: {decision:?}"
            );
            assert_eq!(decision.rule, None);
        }
    }
    let decision = decide(&load(TARGET), &subject(), &incomplete);
    let reason = "the gateway cannot tell all that this command does (a DO block)";
    assert_eq!(&*decision.reason, reason);
}

#[test]
fn the_hash_is_of_the_texts_alone() {
    let hash = |file: &str, text: &str| {
        let sources = [Source { file, text }];
        policy::load(&sources, &HashKey::new([0; 32])).unwrap().hash
    };
    assert_eq!(hash("a.yaml", TARGET), hash("/etc/b.yaml", TARGET));
    assert_ne!(
        hash("a.yaml", TARGET),
        hash("a.yaml", &(TARGET.to_owned() + "# note\n"))
    );
}

#[test]
fn what_passes_through_has_to_be_named() {
    const CACHE: &str = "---
kind: Target
name: cache
spec: {protocol: tcp, endpoints: ['10.0.0.7:6379']}
---
kind: Target
name: shell
spec: {protocol: tcp, endpoints: ['10.0.0.8:22'], default: hold}
";
    let decides = |rules: &[(&str, &str)], target: &str| {
        let rules = rules
            .iter()
            .map(|(name, spec)| format!("---\nkind: Rule\nname: {name}\nspec: {spec}\n"));
        let snapshot = load(&format!("{TARGET}{CACHE}{}", rules.collect::<String>()));
        let connect = Facts {
            kinds: vec!["CONNECT"],
            ..Facts::default()
        };
        let nobody = Subject {
            user: String::new(),
            database: String::new(),
            ..subject()
        };
        let decision = decide_on(target, &snapshot, &nobody, &connect);
        let rule = decision.rule.map(|rule| rule.name.clone());
        (decision.outcome, rule.unwrap_or_default())
    };
    let default_hold = Outcome::Hold(HoldPlan::by_anybody(policy::HOLD_TIMEOUT_DEFAULT).into());
    assert_eq!(decides(&[], "cache"), (Outcome::Deny, String::new()));
    assert_eq!(decides(&[], "shell"), (default_hold, String::new()));
    for (conditions, allows, denies) in [
        ("{targets: [cache], statements: [CONNECT]}", true, true),
        ("{statements: [CONNECT, SELECT]}", true, true),
        // A rule for everything vouches for nothing that it does not name.
        ("{}", false, true),
        ("{targets: [cache]}", false, true),
        ("{statements: [SELECT]}", false, false),
        ("{targets: [orders], statements: [CONNECT]}", false, false),
        // Who logs in to what is not seen, and what is not known restricts.
        ("{statements: [CONNECT], users: ['*']}", false, true),
        ("{statements: [CONNECT], databases: [shop]}", false, true),
        (
            "{statements: [CONNECT], clientNetworks: [10.9.0.0/16]}",
            true,
            true,
        ),
        (
            "{statements: [CONNECT], clientNetworks: [10.8.0.0/16]}",
            false,
            false,
        ),
        ("{statements: [CONNECT], process: {uids: [0]}}", false, true),
    ] {
        for (then, decided) in [("allow", allows), ("deny", denies)] {
            let spec = format!("{{match: {conditions}, then: {then}}}");
            let (outcome, rule) = decides(&[("r", &spec)], "cache");
            assert_eq!(!rule.is_empty(), decided, "{spec}");
            let allowed = decided && then == "allow";
            assert_eq!(outcome == Outcome::Allow, allowed, "{spec}");
        }
    }
}
