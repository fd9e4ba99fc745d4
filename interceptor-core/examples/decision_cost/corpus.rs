//! The policy and the commands that are measured: 1,000 rules and 10,000 column masks over one target.

use std::fmt::Write as _;
use std::sync::Arc;

use interceptor_core::command::{Column, Facts, Process, Relation, Subject};
use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, DOCUMENTS_MAX, Input, Snapshot, Source, View};

/// Rules of the measured policy.
pub(crate) const RULES: usize = 1_000;
/// Columns that its masks name.
const MASKED_COLUMNS: usize = 10_000;
/// Columns of one document.
const COLUMNS_A_MASK: usize = 1_000;

/// 2030-01-02 09:30 UTC, a Wednesday.
const NOW_UNIX_NS: u64 = 1_893_576_600_000_000_000;

const HEAD: &str = "
kind: Target
name: orders
spec: {protocol: postgres, endpoints: ['10.0.0.5:5432'], catalog: {user: catalog}}
---
kind: Identity
name: alice
spec: {groups: [team-1, oncall], is: [{users: [app]}]}
---
kind: Identity
name: bob
spec: {groups: [team-2, team-3, team-4, team-5, team-6, team-7, team-8, team-9, dba], is: [{users: [bob]}]}
";

/// A mix as one finds it in a large company: most rules are about some tables, users, teams or
/// functions; a few about anything.
fn mixed_rule(n: usize) -> String {
    let team = n % 9 + 1;
    match n % 100 {
        // About tables.
        0..30 => format!(
            "{{match: {{statements: [DELETE, TRUNCATE, DROP], tables: [app.table_{n}, other_{n}]}}, then: hold}}"
        ),
        30..40 => format!(
            "{{match: {{writes: [ledger_{n}], groups: [team-{team}]}}, then: {{deny: not for this team}}}}"
        ),
        40..50 => format!("{{match: {{tables: [archive_{n}]}}, then: {{readOnly: true}}}}"),
        50..58 => format!(
            "{{match: {{columnsRead: [customers.secret_{n}, staff.salary_{n}]}}, then: hold}}"
        ),
        // About who.
        58..70 => format!(
            "{{match: {{users: [app_{n}, batch_{n}], statements: [UPDATE, DELETE], noWhere: true}}, then: deny}}"
        ),
        70..76 => "{match: {persons: [bob], statements: [ALTER, CREATE, DROP]}, then: hold}".into(),
        76..80 => format!(
            "{{match: {{clientNetworks: [10.{n}.0.0/24], tables: ['*']}}, then: deny}}",
            n = n % 200
        ),
        80..84 => format!(
            "{{match: {{process: {{uids: [{n}], executables: ['/opt/app_{n}/*']}}}}, then: deny}}"
        ),
        // About functions.
        84..90 => format!("{{match: {{functions: [f_{n}, ext.g_{n}]}}, then: deny}}"),
        90 | 91 => format!("{{match: {{functions: ['dblink_{n}*']}}, then: deny}}"),
        // Patterns.
        92..95 => format!(
            "{{match: {{statements: [UPDATE, DELETE], tables: ['audit_{n}_*', '*_log_{n}']}}, then: deny}}"
        ),
        // Conditions of the other kinds.
        95 => format!(
            "{{match: {{statements: [DELETE], tables: [big_{n}], estimatedRows: {{over: 10000}}}}, then: hold}}"
        ),
        96 => format!(
            "{{match: {{statements: [DROP], times: [{{days: [mon-fri], from: '09:00', to: '17:00', zone: Europe/Berlin}}]}}, then: {{hold: office hours {n}}}}}"
        ),
        97 => format!(
            "{{match: {{statements: [UPDATE], tables: [price_{n}], when: \"statement.writes.exists(t, t.startsWith('price')) && client.user != 'etl'\"}}, then: hold}}"
        ),
        98 if n % 200 == 98 => format!(
            "{{match: {{when: \"statement.functions.exists(f, f.startsWith('dblink_{n}')) && client.user != 'etl'\"}}, then: deny}}"
        ),
        98 => {
            format!("{{match: {{statements: [COPY], text: '(?i)program\\s+.*{n}'}}, then: deny}}")
        }
        _ => format!(
            "{{match: {{statements: [SELECT], groups: [team-{team}]}}, then: {{limit: {{rows: {n}000, duration: 30s}}}}}}"
        ),
    }
}

/// Nothing can be left out: each rule is about tables by patterns, and every command is looked at
/// with each of them.
fn pattern_rule(n: usize) -> String {
    format!("{{match: {{tables: ['*_{n}_*', 'audit*{n}']}}, then: deny}}")
}

fn rules(count: usize, rule: fn(usize) -> String) -> String {
    let mut text = String::new();
    for n in 0..count {
        let _ = writeln!(text, "---\nkind: Rule\nname: rule-{n}\nspec: {}", rule(n));
    }
    text
}

fn masks() -> String {
    let mut text = String::new();
    for mask in 0..MASKED_COLUMNS / COLUMNS_A_MASK {
        let columns: Vec<String> = (0..COLUMNS_A_MASK)
            .map(|n| match n % 100 {
                0 => format!("'*.secret_{mask}_{n}'"),
                1 => format!("'table_{mask}_*.password'"),
                2..50 => format!("app.table_{mask}_{n}.column_{n}"),
                _ => format!("customers.column_{mask}_{n}"),
            })
            .collect();
        let columns = columns.join(", ");
        let _ = writeln!(
            text,
            "---\nkind: Mask\nname: mask-{mask}\nspec: {{with: partial, columns: [{columns}]}}"
        );
    }
    text
}

fn load(files: &[String]) -> Arc<Snapshot> {
    let named: Vec<(String, &String)> =
        (0..).map(|n: u32| format!("{n}.yaml")).zip(files).collect();
    let sources: Vec<Source<'_>> = named
        .iter()
        .map(|(file, text)| Source { file, text })
        .collect();
    match policy::load(&sources, &HashKey::new([0; 32])) {
        Ok(snapshot) => Arc::new(snapshot),
        Err(errors) => {
            eprintln!("{errors}");
            std::process::exit(1);
        }
    }
}

pub(crate) fn mixed() -> Arc<Snapshot> {
    load(&[HEAD.into(), rules(RULES, mixed_rule), masks()])
}

pub(crate) fn patterns() -> Arc<Snapshot> {
    load(&[HEAD.into(), rules(RULES, pattern_rule), masks()])
}

/// As many rules as there can be beside three other documents, in files within their limit.
pub(crate) fn full() -> (Arc<Snapshot>, usize) {
    let count = DOCUMENTS_MAX - 3;
    let all = rules(count, mixed_rule);
    let half = all
        .match_indices("---\n")
        .nth(count / 2)
        .map_or(0, |(at, _)| at);
    let (first, second) = all.split_at(half);
    (load(&[HEAD.into(), first.into(), second.into()]), count)
}

/// A local client that is a person.
pub(crate) fn view(snapshot: &Arc<Snapshot>) -> View {
    let subject = Subject {
        client: std::net::SocketAddr::from(([10, 250, 0, 9], 40_000)),
        process: Some(Process {
            uid: 1000,
            executable: Some("/usr/bin/psql".into()),
            cgroup: Some("/user.slice/user-1000.slice".into()),
            ..Process::default()
        }),
        user: "app".into(),
        database: "shop".into(),
    };
    match View::new(Arc::clone(snapshot), "orders", subject) {
        Some(view) => view,
        None => unreachable!("the policy has the target"),
    }
}

/// A command whose facts are at hand, as they are for a statement that was prepared.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) facts: Facts,
    pub(crate) text: &'static str,
}

impl Shape {
    pub(crate) const fn input(&self) -> Input<'_> {
        Input {
            facts: &self.facts,
            text: self.text,
            now_unix_ns: NOW_UNIX_NS,
        }
    }
}

fn relation(name: &str) -> Relation {
    Relation {
        schema: None,
        name: name.into(),
    }
}

fn columns(table: &str, names: &[&str]) -> Vec<Column> {
    let column = |name: &&str| Column {
        relation: Some(relation(table)),
        name: Some((*name).into()),
    };
    names.iter().map(column).collect()
}

pub(crate) fn shapes() -> Vec<Shape> {
    let joined = ["customers", "invoices", "lines", "products", "table_0"];
    vec![
        Shape {
            name: "select",
            facts: Facts {
                kinds: vec!["SELECT"],
                reads: vec![relation("customers")],
                columns_read: columns("customers", &["id", "name"]),
                estimated_rows: Some(120_000),
                ..Facts::default()
            },
            text: "SELECT name FROM customers WHERE id = $1",
        },
        Shape {
            name: "update",
            facts: Facts {
                kinds: vec!["UPDATE"],
                reads: vec![relation("invoices")],
                writes: vec![relation("invoices")],
                columns_read: columns("invoices", &["id"]),
                columns_written: columns("invoices", &["paid"]),
                estimated_rows: Some(900_000),
                ..Facts::default()
            },
            text: "UPDATE invoices SET paid = true WHERE id = $1",
        },
        Shape {
            name: "join",
            facts: Facts {
                kinds: vec!["SELECT"],
                reads: joined.iter().map(|name| relation(name)).collect(),
                columns_read: joined
                    .iter()
                    .flat_map(|table| columns(table, &["id", "name"]))
                    .collect(),
                functions: vec!["lower".into(), "date_trunc".into()],
                estimated_rows: Some(5_000_000),
                ..Facts::default()
            },
            text: "SELECT lower(c.name) FROM customers c JOIN invoices i USING (id) JOIN lines l USING (id) JOIN products p USING (id) JOIN table_0 t USING (id)",
        },
    ]
}
