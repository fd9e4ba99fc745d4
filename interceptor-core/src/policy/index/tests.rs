//! What the index leaves out could not have matched.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::command::{Process, Relation, Subject};
use crate::mask::HashKey;
use crate::policy::{self, Input, Source, View};

const KEYS: &[(&str, &[&str])] = &[
    ("targets", &["orders", "o*", "passed"]),
    ("users", &["app", "a*", "etl"]),
    ("databases", &["shop", "*"]),
    (
        "statements",
        &["SELECT", "DROP", "UPDATE", "CONNECT", "CREATE"],
    ),
    (
        "tables",
        &[
            "a", "A", "s.a", "b", "a*", "*.b", "t.b", "lon*", "s.LONG*", "lo*", "long",
        ],
    ),
    ("reads", &["a", "s.b", "b*"]),
    ("writes", &["a", "B", "*"]),
    (
        "functions",
        &["f", "s.f", "F", "g*", "dbl*", "s.dblink*", "db*"],
    ),
    (
        "columnsRead",
        &["a.x", "s.a.x", "b.*", "*.y", "a*.x", "a*.*"],
    ),
    ("columnsWritten", &["a.x", "B.y", "b.x"]),
    ("clientNetworks", &["10.0.0.0/8", "192.168.0.0/16"]),
    ("persons", &["alice", "b*"]),
    ("groups", &["dba"]),
];

const WHOLE_KEYS: &[&str] = &[
    "noWhere: true",
    "noWhere: false",
    "incomplete: true",
    "estimatedRows: {over: 100}",
    "text: 'x+'",
    "when: 'client.user == \"app\" || size(statement.tables) > 1'",
    "process: {uids: [1000]}",
    "process: {executables: ['/usr/*'], cgroups: ['*.slice']}",
];

const THENS: &[&str] = &[
    "allow",
    "allow",
    "deny",
    "hold",
    "terminate",
    "{hold: {message: wait, timeout: 1m}}",
    "{limit: {rows: 10}}",
    "{allow: fine, limit: {rows: 5, rate: 3/m}}",
    "{readOnly: true}",
    "{deny: no, limit: {bytes: 1KiB}}",
];

fn document() -> impl Strategy<Value = String> {
    let list = |(key, values): (&'static str, &'static [&'static str])| {
        vec(select(values), 1..3).prop_map(move |names| {
            let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
            (key.to_string(), format!("{key}: [{}]", quoted.join(", ")))
        })
    };
    let whole = select(WHOLE_KEYS).prop_map(|text| {
        let key = text.split(':').next().unwrap_or_default();
        (key.to_string(), text.to_string())
    });
    let key = prop_oneof![4 => select(KEYS).prop_flat_map(list), 1 => whole];
    vec(key, 0..4).prop_map(|mut keys| {
        keys.sort();
        keys.dedup_by(|a, b| a.0 == b.0);
        let texts: Vec<String> = keys.into_iter().map(|(_, text)| text).collect();
        format!("{{{}}}", texts.join(", "))
    })
}

fn policy_text() -> impl Strategy<Value = String> {
    let rule = (document(), select(THENS), -1..2_i32);
    let lifter = (document(), any::<bool>());
    (vec(rule, 0..90), vec(lifter, 0..3)).prop_map(|(rules, lifters)| {
        let mut text = String::from(
            "kind: Target\nname: orders\nspec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}\n---\n\
             kind: Target\nname: passed\nspec: {protocol: tcp, endpoints: ['10.0.0.6:22']}\n---\n\
             kind: Identity\nname: alice\nspec: {groups: [dba], is: [{users: [app]}], uids: [7]}\n---\n\
             kind: Identity\nname: bob\nspec: {is: [{users: [bob]}]}\n---\n\
             kind: Rule\nname: rule-1\nspec: {match: {statements: [VACUUM]}, then: deny}\n",
        );
        for (n, (matches, then, priority)) in (10..).zip(&rules) {
            text += &format!("---\nkind: Rule\nname: rule-{n}\nspec: {{priority: {priority}, match: {matches}, then: {then}}}\n");
        }
        for (n, (matches, bypass)) in lifters.iter().enumerate() {
            // They need a client.
            let matches = match matches.contains("clientNetworks") {
                true => matches.clone(),
                false => matches.replacen('{', "{clientNetworks: [0.0.0.0/0], ", 1),
            };
            text += &match bypass {
                true => format!("---\nkind: Bypass\nname: bypass-{n}\nspec: {{match: {matches}}}\n"),
                false => format!("---\nkind: Grant\nname: grant-{n}\nspec: {{match: {matches}, until: '1970-02-01T00:00:00Z', lifts: ['rule-1*', default], reason: why}}\n"),
            };
        }
        text
    })
}

fn relation() -> impl Strategy<Value = Relation> {
    let names = select(
        &[
            "a", "A", "b", "s.a", "S.B", "c", "ab", "long", "s.Longer", "lo",
        ][..],
    );
    names.prop_map(|name| match name.split_once('.') {
        Some((schema, name)) => Relation {
            schema: Some(schema.into()),
            name: name.into(),
        },
        None => Relation {
            schema: None,
            name: name.into(),
        },
    })
}

fn column() -> impl Strategy<Value = Column> {
    let name = option::of(select(&["x", "y", "X"][..]));
    (option::of(relation()), name).prop_map(|(relation, name)| Column {
        relation,
        name: name.map(Into::into),
    })
}

prop_compose! {
    fn facts()(
        kinds in vec(select(KINDS), 0..12),
        few in vec(select(&["SELECT", "UPDATE", "DROP TABLE", "CONNECT", "no kind"][..]), 0..3),
        many in any::<bool>(),
        reads in vec(relation(), 0..3),
        writes in vec(relation(), 0..2),
        columns_read in vec(column(), 0..3),
        columns_written in vec(column(), 0..2),
        functions in vec(select(&["f", "s.f", "F", "gg", "h", "dblink", "s.DBLINK_exec", "db"][..]), 0..3),
        unfiltered in any::<bool>(),
        estimated_rows in option::of(0..200_u64),
        incomplete in option::weighted(0.2, Just("dynamic SQL")),
    ) -> Facts {
        Facts {
            kinds: if many { kinds } else { few },
            reads,
            writes,
            columns_read,
            columns_written,
            functions: functions.into_iter().map(Into::into).collect(),
            unfiltered,
            estimated_rows,
            incomplete,
            ..Facts::default()
        }
    }
}

fn subject() -> impl Strategy<Value = Subject> {
    let process = option::of((
        select(&[7_u32, 1000][..]),
        option::of(Just("/usr/bin/psql")),
    ));
    let users = select(&["app", "bob", "etl"][..]);
    (users, process, any::<bool>()).prop_map(|(user, process, inside)| Subject {
        client: ([if inside { 10 } else { 172 }, 0, 0, 1], 5555).into(),
        process: process.map(|(uid, executable)| Process {
            uid,
            executable: executable.map(Into::into),
            ..Process::default()
        }),
        user: user.into(),
        database: "shop".into(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same decision as by asking every rule.
    #[test]
    fn the_index_changes_no_decision(
        text in policy_text(),
        target in select(&["orders", "passed"][..]),
        subject in subject(),
        commands in vec(facts(), 1..20),
    ) {
        let sources = [Source { file: "policy.yaml", text: &text }];
        let loaded = policy::load(&sources, &HashKey::new([0; 32]));
        let snapshot = match loaded {
            Ok(snapshot) => Arc::new(snapshot),
            Err(errors) => return Err(TestCaseError::fail(format!("{errors}"))),
        };
        let view = View::new(snapshot, target, subject);
        let Some(view) = view else {
            return Err(TestCaseError::fail("there is no target"));
        };
        for facts in &commands {
            let input = Input { facts, text: "x", now_unix_ns: 1 };
            prop_assert_eq!(
                format!("{:?}", view.decide(&input)),
                format!("{:?}", view.decide_by_all(&input)),
                "{:?}", facts
            );
        }
    }
}

#[test]
fn more_rules_than_fit_in_line() {
    let mut text = String::from(
        "kind: Target\nname: orders\nspec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}\n",
    );
    for n in 0..64 * INLINE_WORDS + 10 {
        text += &format!(
            "---\nkind: Rule\nname: rule-{n}\nspec: {{match: {{tables: [t{n}]}}, then: deny}}\n"
        );
    }
    let sources = [Source {
        file: "policy.yaml",
        text: &text,
    }];
    let snapshot = Arc::new(policy::load(&sources, &HashKey::new([0; 32])).unwrap());
    let subject = Subject {
        client: ([10, 0, 0, 1], 5555).into(),
        process: None,
        user: "app".into(),
        database: "shop".into(),
    };
    let view = View::new(snapshot, "orders", subject).unwrap();
    for n in [0, 63, 64, 2047, 2048, 2057] {
        let facts = Facts {
            kinds: Vec::from(["SELECT"]),
            reads: Vec::from([Relation {
                schema: None,
                name: format!("T{n}").into(),
            }]),
            ..Facts::default()
        };
        let input = Input {
            facts: &facts,
            text: "",
            now_unix_ns: 0,
        };
        let rule = view.decide(&input).rule.unwrap();
        assert_eq!(rule.name, format!("rule-{n}"));
    }
}
