//! CEL expressions: what they come to, what they may not be, and that nothing makes them run away.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may fail by panicking"
)]

mod errors;
mod hostile;
mod oracle;
mod values;

use std::sync::Arc;

use interceptor_core::command::{Column, Facts, Process, Relation, Subject};
use interceptor_core::mask::HashKey;
use interceptor_core::policy::{
    self, Expression, Input, Protocol, Scope, Source, Target, Truth, Who,
};

/// 2030-01-02 is a Wednesday; at 09:30 in UTC it is 10:30 in Berlin and 04:30 in New York.
const NOW_UNIX_NS: u64 = 1_893_576_600_000_000_000;

/// A command with everything that an expression is about.
struct Case {
    target: Arc<Target>,
    subject: Subject,
    who: Who,
    facts: Facts,
    text: String,
    now_unix_ns: u64,
}

impl Case {
    /// Everything is known.
    fn known() -> Self {
        let relation = |name: &str| match name.split_once('.') {
            Some((schema, name)) => Relation {
                schema: Some(schema.into()),
                name: name.into(),
            },
            None => Relation {
                schema: None,
                name: name.into(),
            },
        };
        Self {
            target: target("postgres"),
            subject: Subject {
                client: "10.1.2.3:5555".parse().unwrap(),
                process: Some(Process {
                    uid: 1000,
                    gid: 1001,
                    pid: 77,
                    comm: "psql".into(),
                    executable: Some("/usr/bin/psql".into()),
                    cgroup: Some("/user.slice".into()),
                    container: Some("docker://abc".into()),
                    unit: Some("backup.service".into()),
                    command_line: Some("psql -h orders".into()),
                    ..Process::default()
                }),
                user: "app".into(),
                database: "shop".into(),
            },
            who: Who {
                person: Some("alice".into()),
                groups: vec!["dba".into(), "oncall".into()],
            },
            facts: Facts {
                kinds: vec!["SELECT", "UPDATE"],
                reads: vec![relation("orders"), relation("sales.customers")],
                writes: vec![relation("orders"), relation("audit")],
                columns_read: vec![Column {
                    relation: Some(relation("sales.customers")),
                    name: Some("card".into()),
                }],
                columns_written: vec![Column {
                    relation: Some(relation("orders")),
                    name: None,
                }],
                functions: vec!["now".into(), "dblink.dblink".into()],
                unfiltered: true,
                estimated_rows: Some(10_000),
                incomplete: None,
                ..Facts::default()
            },
            text: "UPDATE orders SET price = 'Grüße'".into(),
            now_unix_ns: NOW_UNIX_NS,
        }
    }

    /// Nothing is known that can be unknown.
    fn unknown() -> Self {
        let mut case = Self::known();
        case.target = target("tcp");
        case.subject.process = None;
        case.who = Who::default();
        case.facts.estimated_rows = None;
        case
    }

    fn says(&self, expression: &Expression) -> Truth {
        expression.evaluate(&Scope {
            target: &self.target,
            subject: &self.subject,
            who: &self.who,
            input: &Input {
                facts: &self.facts,
                text: &self.text,
                now_unix_ns: self.now_unix_ns,
            },
        })
    }
}

fn target(protocol: &str) -> Arc<Target> {
    let text = format!(
        "kind: Target\nname: orders\nspec: {{protocol: {protocol}, endpoints: ['10.0.0.5:5432']}}\n"
    );
    let sources = [Source {
        file: "policy.yaml",
        text: &text,
    }];
    let snapshot = policy::load(&sources, &HashKey::new([0; 32])).unwrap();
    let target = Arc::clone(snapshot.target("orders").unwrap());
    assert_eq!(target.protocol == Protocol::Tcp, protocol == "tcp");
    target
}

fn compile(text: &str) -> Expression {
    Expression::compile(text).unwrap_or_else(|error| panic!("{text}: {error} at {}", error.offset))
}
