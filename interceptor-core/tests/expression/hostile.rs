//! Texts and commands that are made to be expensive.

use interceptor_core::policy::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX};
use proptest::prelude::*;

use super::*;

/// A quarter of what a thread is given by default; a build without optimisation needs it.
const STACK_BYTES: usize = 512 * 1024;

fn on_a_small_stack<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, run).unwrap().join().unwrap()
    })
}

#[test]
fn a_text_has_a_limit() {
    let text = format!("client.user == '{}'", "a".repeat(EXPRESSION_BYTES_MAX));
    let error = Expression::compile(&text).unwrap_err();
    assert_eq!(error.offset, EXPRESSION_BYTES_MAX);
    assert!(error.message.contains("longer than 2000 bytes"), "{error}");
    let longest = format!("client.user == '{}'", "a".repeat(EXPRESSION_BYTES_MAX - 17));
    assert_eq!(longest.len(), EXPRESSION_BYTES_MAX);
    compile(&longest);
}

#[test]
fn a_thousand_of_anything_overflows_no_stack() {
    let long = |start: &str, again: &str, end: &str, close: &str| {
        let room = EXPRESSION_BYTES_MAX - start.len() - end.len();
        let times = room / (again.len() + close.len());
        format!("{start}{}{end}{}", again.repeat(times), close.repeat(times))
    };
    for text in [
        long("", "(", "true", ")"),
        long("", "((", "", ""),
        long("", "[", "1", "]"),
        long("", "[[", "", ""),
        long("", "{1:", "1", "}"),
        long("", "!", "true", ""),
        long("", "!(", "true", ")"),
        long("", "-", "1 == 1", ""),
        long("", "-!", "1 == 1", ""),
        long("", "- -", "1 == 1", ""),
        long("1", "+1", " == 1", ""),
        long("1", "==1", "", ""),
        long("true", "?true:true", "", ""),
        long("", "true?", "true", ":true"),
        long("(", "true?true&&true:", "true)", ""),
        long("client", ".a", "", ""),
        long("client", ".a()", "", ""),
        long("client", "[0]", "", ""),
        long("client", "{}", "", ""),
        long("1 in ", "[1] in ", "[1]", ""),
        long("", "size(", "client.user", ")"),
        long("", "has(", "client.user", ")"),
        long("", "f(", "", ""),
        long("", "client.groups.exists(a,", "true", ")"),
        long("", "(1+1+", "1", ")"),
        long("", "(", "1", "+1+1)"),
        long("", "(true&&", "true", ")"),
        long("", "(!", "true", "&&true)"),
    ] {
        assert!(
            on_a_small_stack(|| Expression::compile(&text)).is_err(),
            "{text}"
        );
    }
    // What is long and flat is fine.
    for text in [
        long("true", "&&true", "", ""),
        long("true", "||1==1", "", ""),
        long("1 in [1", ",1", "]", ""),
        long("true ", " ", "", ""),
    ] {
        let result = on_a_small_stack(|| Expression::compile(&text));
        assert!(result.is_ok(), "{text}: {result:?}");
    }
}

#[test]
fn brackets_nest_up_to_a_limit() {
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    compile(&nested(EXPRESSION_DEPTH_MAX));
    let error = Expression::compile(&nested(EXPRESSION_DEPTH_MAX + 1)).unwrap_err();
    assert_eq!(error.offset, EXPRESSION_DEPTH_MAX);
    assert!(error.message.contains("nested deeper than 32"), "{error}");
}

#[test]
fn the_deepest_that_is_allowed_is_computed_on_a_small_stack() {
    for text in [
        format!("{}true{}", "(true && !".repeat(31), ")".repeat(31)),
        format!("{}1{} > 0", "(1 + ".repeat(31), ")".repeat(31)),
        format!("({}'a').size() > 0", "'a' + ".repeat(60)),
        format!("{}true", "!".repeat(60)),
    ] {
        let case = Case::known();
        let says = on_a_small_stack(|| case.says(&compile(&text)));
        assert_ne!(says, Truth::Unknown, "{text}");
    }
}

#[test]
fn what_could_cost_too_much_is_refused() {
    compile("statement.tables.exists(t, client.groups.exists(g, t.startsWith(g)))");
    let text = "statement.tables.exists(a, statement.reads.exists(b, statement.writes.exists(c, a + b == c)))";
    let error = Expression::compile(text).unwrap_err();
    assert!(
        error
            .message
            .contains("more than 10000; go through fewer lists"),
        "{error}"
    );
}

/// A command with more entries than the estimate took it to have, and texts without end.
#[test]
fn a_command_that_costs_too_much_is_not_known() {
    let mut case = Case::known();
    case.facts.reads = (0..2_000)
        .map(|n| Relation {
            schema: None,
            name: format!("t{n}").into(),
        })
        .collect();
    let quick = compile("statement.reads.exists(t, t == 't0')");
    assert_eq!(case.says(&quick), Truth::Yes);
    let nested = compile("statement.reads.exists(a, statement.reads.exists(b, a + 'x' == b))");
    assert_eq!(case.says(&nested), Truth::Unknown);
    // What was found before the budget ran out stands; the rest is a doubt in either direction.
    assert_eq!(
        case.says(&compile(&format!("!({})", nested.text()))),
        Truth::Unknown
    );
    case.text = "x".repeat(16 * 1024 * 1024);
    let searched = compile("statement.text.contains('y')");
    assert_eq!(case.says(&searched), Truth::No);
    let thrice = compile(
        "statement.text.contains('y') || statement.text.contains('z') || statement.text.matches('[yz]')",
    );
    assert_eq!(case.says(&thrice), Truth::Unknown);
    let joined = compile("(statement.text + statement.text).contains('y')");
    assert_eq!(case.says(&joined), Truth::Unknown);
}

fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "client.user",
            "client.groups",
            "statement.tables",
            "process.uid",
            "now",
            "true",
            "1",
            "'a'",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "?",
            ":",
            ",",
            ".",
            "!",
            "-",
            "+",
            "*",
            "/",
            "%",
            "&&",
            "||",
            "==",
            "!=",
            "<",
            ">=",
            " in ",
            ".exists(x,",
            ".all(x,",
            ".map(x,",
            ".filter(x,",
            ".exists_one(x,",
            "has(",
            "size(",
            "x",
            ".matches(",
            "timestamp(",
            "getHours",
            "'''",
            "\"",
            "r'",
            "b'",
            "\\",
            "`",
            "//",
            "\n",
            "0x",
            "1u",
            "1e9",
            "é",
            "\u{10ffff}",
            "\0",
            "&",
            "|",
            "=",
            "@",
            "#",
            "null",
            "if",
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is written, there is an answer, its place is one in the text, and it is the same twice.
    #[test]
    fn no_text_breaks_it(parts in proptest::collection::vec(fragment(), 0..40)) {
        let text = parts.concat();
        match Expression::compile(&text) {
            Err(error) => {
                prop_assert!(text.is_char_boundary(error.offset), "{} in {text:?}", error.offset);
                prop_assert!(!error.message.is_empty());
                prop_assert_eq!(Expression::compile(&text).unwrap_err(), error);
            }
            Ok(expression) => {
                Case::known().says(&expression);
                Case::unknown().says(&expression);
            }
        }
    }
}
