//! The same expression by the crate's own interpreter.
//!
//! It knows no doubt, so everything is known here. Where it gives a value, ours is the same; where
//! it gives an error, ours is not known, or decided by a part that has none.

use std::collections::HashMap;

use cel::{Context, Program, Value};
use proptest::prelude::*;

use super::*;

fn context(case: &Case) -> Context<'static, 'static> {
    let strings = |list: Vec<String>| Value::from(list);
    let map = |entries: Vec<(&str, Value)>| -> HashMap<String, Value> {
        let owned = entries
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        owned.collect()
    };
    let names = |list: &[Relation]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let columns = |list: &[Column]| strings(list.iter().map(ToString::to_string).collect());
    let text = |text: &str| Value::from(text.to_owned());
    let facts = &case.facts;
    let process = case.subject.process.as_ref().unwrap();
    let mut tables = names(&facts.reads);
    tables.extend(
        names(&facts.writes)
            .into_iter()
            .filter(|name| !names(&facts.reads).contains(name)),
    );
    let groups: Vec<String> = case.who.groups.iter().map(ToString::to_string).collect();
    let mut context = Context::default();
    for (root, entries) in [
        (
            "client",
            vec![
                ("user", text(&case.subject.user)),
                ("database", text(&case.subject.database)),
                ("address", text(&case.subject.client.ip().to_string())),
                ("person", text(case.who.person.as_deref().unwrap())),
                ("groups", strings(groups)),
            ],
        ),
        (
            "process",
            vec![
                ("uid", Value::Int(process.uid.into())),
                ("executable", text(process.executable.as_deref().unwrap())),
            ],
        ),
        ("target", vec![("name", text(&case.target.name))]),
        (
            "statement",
            vec![
                (
                    "kinds",
                    strings(facts.kinds.iter().map(|kind| (*kind).to_owned()).collect()),
                ),
                ("tables", strings(tables)),
                ("reads", strings(names(&facts.reads))),
                ("writes", strings(names(&facts.writes))),
                ("functions", strings(facts.functions.clone())),
                ("columns_read", columns(&facts.columns_read)),
                ("columns_written", columns(&facts.columns_written)),
                ("no_where", Value::Bool(facts.unfiltered)),
                ("incomplete", Value::Bool(facts.incomplete.is_some())),
                ("estimated_rows", Value::Int(10_000)),
                ("text", text(&case.text)),
            ],
        ),
    ] {
        context.add_variable_from_value(root, map(entries));
    }
    context
}

/// What is generated is in these types; `entries` are the names of entries in scope.
fn number(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        (-3_i64..4).prop_map(|n| format!("({n})")),
        Just("9223372036854775807".to_owned()),
        proptest::sample::select(vec!["process.uid", "statement.estimated_rows"])
            .prop_map(str::to_owned),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    prop_oneof![
        leaf,
        (
            number(depth - 1),
            proptest::sample::select(vec!["+", "-", "*", "/", "%"]),
            number(depth - 1)
        )
            .prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
        number(depth - 1).prop_map(|a| format!("-({a})")),
        string(depth - 1).prop_map(|a| format!("size({a})")),
        list(depth - 1).prop_map(|a| format!("{a}.size()")),
        (condition(depth - 1), number(depth - 1), number(depth - 1))
            .prop_map(|(c, a, b)| format!("({c} ? {a} : {b})")),
    ]
    .boxed()
}

fn string(depth: u32) -> BoxedStrategy<String> {
    let leaf = proptest::sample::select(vec![
        "''",
        "'app'",
        "'a'",
        "'orders'",
        "'sales.customers'",
        "'s'",
        "'Grüße'",
        "client.user",
        "client.person",
        "client.address",
        "process.executable",
        "target.name",
        "statement.text",
        "'.'",
        "'sales.customers.card'",
    ])
    .prop_map(str::to_owned);
    if depth == 0 {
        return leaf.boxed();
    }
    prop_oneof![
        4 => leaf,
        1 => (string(depth - 1), string(depth - 1)).prop_map(|(a, b)| format!("({a} + {b})")),
        1 => (condition(depth - 1), string(depth - 1), string(depth - 1)).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})")),
    ]
    .boxed()
}

fn list(depth: u32) -> BoxedStrategy<String> {
    let leaf = proptest::sample::select(vec![
        "client.groups",
        "statement.kinds",
        "statement.tables",
        "statement.reads",
        "statement.writes",
        "statement.functions",
        "statement.columns_read",
        "statement.columns_written",
        "['a']",
    ])
    .prop_map(str::to_owned);
    if depth == 0 {
        return leaf.boxed();
    }
    prop_oneof![
        3 => leaf,
        1 => proptest::collection::vec(string(depth - 1), 1..4).prop_map(|all| format!("[{}]", all.join(", "))),
    ]
    .boxed()
}

fn condition(depth: u32) -> BoxedStrategy<String> {
    let leaf = proptest::sample::select(vec![
        "true",
        "false",
        "statement.no_where",
        "statement.incomplete",
    ])
    .prop_map(str::to_owned);
    if depth == 0 {
        return leaf.boxed();
    }
    let relation = || proptest::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let entry = || {
        (
            list(depth - 1),
            proptest::sample::select(vec!["exists", "all", "exists_one"]),
            string(depth - 1),
            condition(depth - 1),
            proptest::sample::select(vec![
                "e == {}",
                "e.startsWith({})",
                "{}.contains(e)",
                "e < {}",
                "e.endsWith({})",
                "e + 'a' != {}",
                "e.contains({})",
            ]),
            any::<bool>(),
        )
            .prop_map(|(list, which, text, other, test, both)| {
                let test = test.replace("{}", &text);
                let sign = if both { "&&" } else { "||" };
                format!("{list}.{which}(e, ({test}) {sign} ({other}))")
            })
    };
    prop_oneof![
        1 => leaf,
        2 => (number(depth - 1), relation(), number(depth - 1)).prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
        2 => (string(depth - 1), relation(), string(depth - 1)).prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
        2 => (condition(depth - 1), proptest::sample::select(vec!["&&", "||", "==", "!="]), condition(depth - 1))
            .prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
        1 => condition(depth - 1).prop_map(|a| format!("!{a}")),
        1 => (string(depth - 1), list(depth - 1)).prop_map(|(a, b)| format!("({a} in {b})")),
        1 => (list(depth - 1), list(depth - 1)).prop_map(|(a, b)| format!("({a} == {b})")),
        1 => (number(depth - 1), proptest::collection::vec(number(depth - 1), 1..4))
            .prop_map(|(a, all)| format!("({a} in [{}])", all.join(", "))),
        1 => (string(depth - 1), proptest::sample::select(vec!["startsWith", "endsWith", "contains"]), string(depth - 1))
            .prop_map(|(a, name, b)| format!("{a}.{name}({b})")),
        // The name of an entry must not be taken twice: lists are gone through at the top alone.
        3 => entry().prop_filter("one inside another", |text| text.matches("(e,").count() == 1),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn both_say_the_same(text in condition(3).prop_filter("too long", |text| text.len() <= 2_000)) {
        let case = Case::known();
        let Ok(ours) = Expression::compile(&text) else {
            // Only for what it may cost or how deep it is: types are right by construction.
            let message = Expression::compile(&text).unwrap_err().message;
            prop_assert!(message.contains("steps") || message.contains("nested deeper"), "{text}: {message}");
            return Ok(());
        };
        let theirs = Program::compile(&text).unwrap().execute(&context(&case));
        match theirs {
            Ok(Value::Bool(value)) => {
                let expected = if value { Truth::Yes } else { Truth::No };
                prop_assert_eq!(case.says(&ours), expected, "{}", text);
            }
            Ok(other) => prop_assert!(false, "{text} is {other:?}"),
            Err(_) => {}
        }
    }
}
