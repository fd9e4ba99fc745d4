//! Random policies and commands: the order of documents means nothing, and an explanation agrees with its
//! decision.

use interceptor_core::policy::{Explanation, Met};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

/// Conditions of every kind, of which some are met, some not, and some in doubt.
const CONDITIONS: [&str; 26] = [
    "targets: [orders]",
    "targets: ['bill*', orders]",
    "users: [app]",
    "users: ['e*']",
    "databases: [shop]",
    "clientNetworks: [10.9.0.0/16]",
    "persons: [alice]",
    "persons: [bob]",
    "groups: [dba]",
    "process: {uids: [1000]}",
    "process: {containers: ['docker://*']}",
    "statements: [SELECT]",
    "statements: [SELECT, INSERT, UPDATE]",
    "tables: [orders]",
    "reads: [public.orders, customers]",
    "writes: ['*']",
    "functions: [lower]",
    "columnsRead: [orders.id, customers.card]",
    "columnsWritten: ['*.*']",
    "noWhere: false",
    "incomplete: true",
    "estimatedRows: {over: 100}",
    "times: [{days: [fri], from: '08:00', to: '18:00', zone: Europe/Berlin}]",
    "text: '(?i)secret'",
    "when: \"client.user == 'app'\"",
    "when: \"client.person == 'alice' || 'orders' in statement.tables\"",
];

const THENS: [&str; 12] = [
    "allow",
    "hold",
    "deny",
    "terminate",
    "{hold: {group: dba, quorum: 2, timeout: 1m}}",
    "{hold: {group: sec, timeout: 2m, onTimeout: {escalate: {group: dba}}}}",
    "{allow: fine, limit: {rows: 10}}",
    "{deny: no, mask: [mail]}",
    "{limit: {rows: 5, rate: 1/s}}",
    "{readOnly: true}",
    "{mask: [mail, card], notify: [dba]}",
    "{hold: please, readOnly: true, limit: {bytes: 1KiB}}",
];

const FRAME: &str = "kind: Target
name: orders
spec: {protocol: postgres, endpoints: ['10.0.0.5:5432'], catalog: {user: reader}, default: hold, incomplete: deny}
---
{kind: Target, name: billing, spec: {protocol: postgres, endpoints: ['10.0.0.6:5432'], catalog: {user: reader}}}
---
{kind: Identity, name: alice, spec: {groups: [dba], is: [{users: [app]}]}}
---
{kind: Identity, name: bob, spec: {groups: [dba, sec], is: [{databases: [shop2]}], uids: [1000]}}
---
{kind: ApproverGroup, name: dba, spec: {uids: [1, 2]}}
---
{kind: ApproverGroup, name: sec, spec: {groups: [dba], uids: [3]}}
---
{kind: Mask, name: mail, spec: {columns: [customers.mail], when: named}}
---
{kind: Mask, name: card, spec: {patterns: [payment_card], when: named}}
";

fn conditions() -> impl Strategy<Value = String> {
    subsequence(CONDITIONS.to_vec(), 0..4).prop_map(|keys| {
        // A key can stand in a `match` once.
        let mut kept: Vec<&str> = Vec::new();
        for key in keys {
            let name = key.split(':').next();
            if kept.iter().all(|other| other.split(':').next() != name) {
                kept.push(key);
            }
        }
        format!("{{{}}}", kept.join(", "))
    })
}

/// Documents, without the frame that all share.
fn documents() -> impl Strategy<Value = Vec<String>> {
    let rule = (conditions(), select(THENS.to_vec()), -1..2_i16).prop_map(
        |(conditions, then, priority)| {
            (
                String::from("Rule"),
                format!("{{priority: {priority}, match: {conditions}, then: {then}}}"),
            )
        },
    );
    let until = select(vec!["2026-11-20T12:00:00Z", "2099-01-01T00:00:00Z"]);
    let lifts = select(vec!["['r*']", "[r0]", "[default, r1]"]);
    let grant = (conditions(), until, lifts).prop_map(|(conditions, until, lifts)| {
        let conditions = named(&conditions);
        (String::from("Grant"), format!("{{match: {conditions}, until: {until}, lifts: {lifts}, reason: why, notify: [sec]}}"))
    });
    let bypass = conditions().prop_map(|conditions| {
        (
            String::from("Bypass"),
            format!("{{match: {}}}", named(&conditions)),
        )
    });
    let rules = prop::collection::vec(rule, 2..6);
    let lifters = prop::collection::vec(prop_oneof![grant, bypass], 0..3);
    (rules, lifters).prop_map(|(rules, lifters)| {
        let numbered = |(prefix, documents): (&str, Vec<(String, String)>)| {
            let documents = documents.into_iter().enumerate();
            let document = |(number, (kind, spec)): (usize, (String, String))| {
                format!("{{kind: {kind}, name: {prefix}{number}, spec: {spec}}}\n")
            };
            documents.map(document).collect::<Vec<String>>()
        };
        [numbered(("r", rules)), numbered(("l", lifters))].concat()
    })
}

/// A match that names somebody, as grants and bypasses need.
fn named(conditions: &str) -> String {
    let who = ["persons:", "groups:", "process:", "clientNetworks:"];
    match who.iter().any(|key| conditions.contains(key)) {
        true => conditions.into(),
        false => conditions.replacen('{', "{clientNetworks: [10.0.0.0/8], ", 1),
    }
}

fn commands() -> impl Strategy<Value = (Facts, &'static str)> {
    let kinds = subsequence(vec!["SELECT", "INSERT", "DROP TABLE"], 1..3);
    let reads = subsequence(vec!["orders", "public.customers"], 0..3);
    let writes = subsequence(vec!["orders", "customers"], 0..2);
    let functions = subsequence(vec!["lower", "dblink"], 0..2);
    let text = select(vec!["select 1", "select SECRET"]);
    let columns = subsequence(
        vec![("orders", "id"), ("", "card"), ("customers", "*")],
        0..3,
    );
    (
        kinds,
        reads,
        writes,
        functions,
        columns,
        any::<[bool; 4]>(),
        text,
    )
        .prop_map(
            |(
                kinds,
                reads,
                writes,
                functions,
                columns,
                [hidden, unfiltered, known, large],
                text,
            )| {
                let column = |(of, name): (&str, &str)| interceptor_core::command::Column {
                    relation: (!of.is_empty()).then(|| relation(of)),
                    name: (name != "*").then(|| name.into()),
                };
                let columns: Vec<_> = columns.into_iter().map(column).collect();
                let facts = Facts {
                    functions: functions.into_iter().map(Into::into).collect(),
                    columns_written: if writes.is_empty() {
                        Vec::new()
                    } else {
                        columns.clone()
                    },
                    columns_read: columns,
                    unfiltered,
                    estimated_rows: known.then_some(if large { 1000 } else { 10 }),
                    incomplete: hidden.then_some("hidden"),
                    ..facts(&kinds, &reads, &writes)
                };
                (facts, text)
            },
        )
}

fn subjects() -> impl Strategy<Value = Subject> {
    let process = Process {
        uid: 1000,
        container: Some("docker://1".into()),
        ..Process::default()
    };
    let process = select(vec![None, Some(Process::default()), Some(process)]);
    let (users, databases) = (select(vec!["app", "etl"]), select(vec!["shop", "shop2"]));
    (process, users, databases).prop_map(|(process, user, database)| Subject {
        process,
        user: user.into(),
        database: database.into(),
        ..subject()
    })
}

fn snapshot(files: &[(String, String)]) -> Arc<Snapshot> {
    let sources: Vec<Source<'_>> = files
        .iter()
        .map(|(file, text)| Source { file, text })
        .collect();
    let loaded = policy::load(&sources, &HashKey::new([0; 32]));
    Arc::new(loaded.unwrap_or_else(|errors| panic!("\n{errors}\n{files:?}")))
}

fn explain(snapshot: Arc<Snapshot>, subject: &Subject, facts: &Facts, text: &str) -> Explanation {
    let view = View::new(snapshot, "orders", subject.clone()).unwrap();
    let input = Input {
        facts,
        text,
        now_unix_ns: at("2026-11-20T12:00:00Z"),
    };
    let explanation = view.explain(&input);
    assert_eq!(told(&explanation.decision), told(&view.decide(&input)));
    explanation
}

/// All that a decision says, without the places of documents.
fn told(decision: &Decision) -> String {
    let name = |rule: &Arc<policy::RuleReference>| rule.name.clone();
    let bound = decision.obligations.as_ref().map(|bound| {
        let rules: Vec<String> = bound.rules.iter().map(name).collect();
        let limits = &bound.limits;
        let rows = limits
            .rows
            .as_ref()
            .map(|limit| (limit.at, name(&limit.rule)));
        let bytes = limits
            .bytes
            .as_ref()
            .map(|limit| (limit.at, name(&limit.rule)));
        let rates: Vec<String> = limits.rates.iter().map(|limit| name(&limit.rule)).collect();
        let masks = bound
            .masks
            .as_ref()
            .map(|masks| (masks.has_columns(), masks.has_patterns()));
        let notify: Vec<String> = bound.notify.iter().map(|(rule, _)| name(rule)).collect();
        format!(
            "{rules:?} {rows:?} {bytes:?} {rates:?} {} {masks:?} {notify:?}",
            bound.read_only
        )
    });
    let lift = decision
        .lift
        .as_ref()
        .map(|lift| (lift.kind, name(&lift.by), lift.rule.clone()));
    format!(
        "{:?} {:?} {} {lift:?} {bound:?}",
        decision.outcome,
        decision.rule.as_ref().map(name),
        decision.reason
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// However documents are spread over files, and in whatever order, the decision is the same.
    #[test]
    fn order_never_changes_a_decision(
        documents in documents(),
        keys in prop::collection::vec(any::<(u8, u8)>(), 10),
        (facts, text) in commands(),
        subject in subjects(),
    ) {
        let together = format!("{FRAME}---\n{}", documents.join("---\n"));
        let one = explain(snapshot(&[("a.yaml".into(), together)]), &subject, &facts, text);
        // Shuffled by random keys, and a file for each document by random names.
        let mut shuffled: Vec<(u8, String, String)> = documents
            .into_iter()
            .zip(keys)
            .enumerate()
            .map(|(number, (text, (order, file)))| (order, format!("{file}-{number}.yaml"), text))
            .collect();
        shuffled.sort();
        let mut files: Vec<(String, String)> = shuffled.into_iter().map(|(_, file, text)| (file, text)).collect();
        files.push(("frame.yaml".into(), FRAME.into()));
        let other = explain(snapshot(&files), &subject, &facts, text);
        prop_assert_eq!(told(&one.decision), told(&other.decision));
    }

    /// What an explanation says of each document is enough to see how the decision came to be.
    #[test]
    fn an_explanation_agrees_with_its_decision(
        documents in documents(),
        (facts, text) in commands(),
        subject in subjects(),
    ) {
        let together = format!("{FRAME}---\n{}", documents.join("---\n"));
        let explained = explain(snapshot(&[("a.yaml".into(), together)]), &subject, &facts, text);
        let decision = &explained.decision;
        let is = |reference: &Option<Arc<policy::RuleReference>>, other: &Arc<policy::RuleReference>| {
            reference.as_ref().is_some_and(|reference| Arc::ptr_eq(reference, other))
        };
        for rule in &explained.rules {
            let least = rule.conditions.iter().map(|condition| condition.met).min();
            prop_assert_eq!(rule.met, least.unwrap_or(Met::Yes), "{:?}", rule);
            let bound = decision.obligations.as_ref();
            let bound = bound.is_some_and(|bound| bound.rules.iter().any(|other| is(&Some(Arc::clone(other)), &rule.reference)));
            let decides = is(&decision.rule, &rule.reference);
            if rule.met == Met::No || (rule.kind == "Rule" && rule.met == Met::Doubt && rule.outcome == Some("allow")) {
                prop_assert!(!decides && (!rule.counts || bound), "{:?} in {:?}", rule, decision);
            }
            if rule.kind == "Rule" {
                prop_assert!(!(decides || bound) || rule.counts, "{:?} in {:?}", rule, decision);
                prop_assert!(!rule.note.is_empty() , "{:?}", rule);
            } else if decision.lift.as_ref().is_some_and(|lift| Arc::ptr_eq(&lift.by, &rule.reference)) {
                prop_assert!(rule.counts && rule.met == Met::Yes, "{:?} in {:?}", rule, decision);
            }
        }
        // The first rule with an outcome that counts is the one that decides, unless it writes where
        // nothing may be written.
        let speaks = explained.rules.iter().find(|rule| rule.kind == "Rule" && is(&decision.rule, &rule.reference));
        if let Some(speaks) = speaks {
            prop_assert!(speaks.outcome.is_none_or(|outcome| outcome == decision.outcome.word()) || decision.reason.contains("lets nothing be written"));
        }
    }
}
