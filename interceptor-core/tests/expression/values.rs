//! What expressions come to, with everything known and with what is not.

use super::*;

#[test]
fn every_variable_has_its_value() {
    let case = Case::known();
    for text in [
        "client.user == 'app'",
        "client.database == 'shop'",
        "client.address == '10.1.2.3'",
        "client.person == 'alice'",
        "client.groups == ['dba', 'oncall']",
        "process.uid == 1000 && process.gid == 1001 && process.pid == 77",
        "process.comm == 'psql'",
        "process.executable == '/usr/bin/psql'",
        "process.cgroup == '/user.slice'",
        "process.container == 'docker://abc'",
        "process.unit == 'backup.service'",
        "process.command_line == 'psql -h orders'",
        "target.name == 'orders' && target.protocol == 'postgres'",
        "statement.kinds == ['SELECT', 'UPDATE']",
        "statement.reads == ['orders', 'sales.customers']",
        "statement.writes == ['orders', 'audit']",
        // What is read and written is one table.
        "statement.tables == ['orders', 'sales.customers', 'audit']",
        "statement.functions == ['now', 'dblink.dblink']",
        "statement.columns_read == ['sales.customers.card']",
        "statement.columns_written == ['orders.*']",
        "statement.no_where && !statement.incomplete",
        "statement.estimated_rows == 10000",
        "statement.text.startsWith('UPDATE')",
        "now == timestamp('2030-01-02T09:30:00Z')",
    ] {
        assert_eq!(case.says(&compile(text)), Truth::Yes, "{text}");
        let not = format!("!({text})");
        assert_eq!(case.says(&compile(&not)), Truth::No, "{not}");
    }
}

#[test]
fn a_mapped_address_is_the_address() {
    let mut case = Case::known();
    case.subject.client = "[::ffff:10.1.2.3]:5555".parse().unwrap();
    assert_eq!(
        case.says(&compile("client.address == '10.1.2.3'")),
        Truth::Yes
    );
}

#[test]
fn functions_and_operators() {
    let case = Case::known();
    for text in [
        "1 + 2 * 3 - 4 / 2 == 5 && -7 % 4 == -3 && 7 / -2 == -3 && -(-3) == 3",
        "1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3 && 1 != 2",
        "'a' < 'b' && 'a' <= 'a' && 'Z' < 'a' && 'ab' > 'a'",
        "true == true && true != false",
        "'a' + 'b' == 'ab' && client.user + '@' + client.database == 'app@shop'",
        "'app' in ['etl', 'app'] && !('x' in client.groups) && 1000 in [0, 1000]",
        "'sales.customers' in statement.reads",
        "client.user.startsWith('a') && client.user.endsWith('pp') && client.user.contains('p')",
        "statement.columns_read.exists(c, c.startsWith('sales.cu') && c.endsWith('s.card') && c.contains('customers.c'))",
        "statement.columns_read.exists(c, c.matches('^sales[.].*card$') && size(c) == 20 && c > 'sales.customer')",
        "!statement.columns_read.exists(c, c.startsWith('sales.customers.card.x') || c.endsWith('x.sales.customers.card'))",
        "statement.text.matches('(?i)update\\\\s+ORDERS') && statement.text.matches(r'price\\s')",
        "size(client.user) == 3 && client.groups.size() == 2 && size('Grüße') == 5",
        "statement.tables.all(t, t != 'customers') && statement.tables.exists_one(t, t == 'orders')",
        "!statement.tables.exists_one(t, t != 'orders')",
        "statement.kinds.exists(k, client.groups.exists(g, g == 'dba' && k == 'SELECT'))",
        "client.groups.exists(g, ['d', 'x'].exists(p, g.startsWith(p)))",
        "(statement.no_where ? 'yes' : 'no') == 'yes' && (statement.incomplete ? 1 : 2) == 2",
        "(statement.no_where ? statement.reads : statement.writes) == statement.reads",
        "(true ? now : timestamp('2000-01-01T00:00:00Z')) > timestamp('2030-01-01T00:00:00+01:00')",
        "has(process.executable) && has(client.person) && has(statement.tables) && has(client.groups)",
        "true || false // a comment",
        "true\n&& true",
    ] {
        assert_eq!(case.says(&compile(text)), Truth::Yes, "{text}");
    }
}

#[test]
fn hours_are_those_of_the_zone() {
    let mut case = Case::known();
    for text in [
        "now.getHours('UTC') == 9 && now.getMinutes('UTC') == 30 && now.getDayOfWeek('UTC') == 3",
        "now.getHours('Europe/Berlin') == 10 && now.getHours('America/New_York') == 4",
        "now.getHours('Asia/Kolkata') == 15 && now.getMinutes('Asia/Kolkata') == 0",
    ] {
        assert_eq!(case.says(&compile(text)), Truth::Yes, "{text}");
    }
    // 2030-03-31T00:59:59Z: a second later Berlin goes from 2 to 3.
    case.now_unix_ns = 1_901_149_199_000_000_000;
    assert_eq!(
        case.says(&compile("now.getHours('Europe/Berlin') == 1")),
        Truth::Yes
    );
    case.now_unix_ns += 1_000_000_000;
    assert_eq!(
        case.says(&compile("now.getHours('Europe/Berlin') == 3")),
        Truth::Yes
    );
    // Sunday is 0.
    assert_eq!(
        case.says(&compile("now.getDayOfWeek('Europe/Berlin') == 0")),
        Truth::Yes
    );
}

#[test]
fn what_is_not_known_is_not_known() {
    let case = Case::unknown();
    for name in [
        "client.user",
        "client.database",
        "client.person",
        "process.comm",
        "process.executable",
        "process.cgroup",
        "process.container",
        "process.unit",
        "process.command_line",
        "statement.text",
    ] {
        for text in [format!("{name} == 'x'"), format!("{name} != 'x'")] {
            assert_eq!(case.says(&compile(&text)), Truth::Unknown, "{text}");
        }
        assert_eq!(
            case.says(&compile(&format!("has({name})"))),
            Truth::No,
            "{name}"
        );
    }
    for name in [
        "process.uid",
        "process.gid",
        "process.pid",
        "statement.estimated_rows",
    ] {
        for text in [format!("{name} > 5"), format!("{name} <= 5")] {
            assert_eq!(case.says(&compile(&text)), Truth::Unknown, "{text}");
        }
        assert_eq!(
            case.says(&compile(&format!("has({name})"))),
            Truth::No,
            "{name}"
        );
    }
    for text in [
        "'dba' in client.groups",
        "!('dba' in client.groups)",
        "client.groups.exists(g, true)",
        "client.groups.all(g, true)",
        "client.groups.exists_one(g, true)",
        "size(client.groups) == 0",
        "client.groups == ['dba']",
    ] {
        assert_eq!(case.says(&compile(text)), Truth::Unknown, "{text}");
    }
    assert_eq!(case.says(&compile("has(client.groups)")), Truth::No);
    assert_eq!(
        case.says(&compile("has(client.person) && client.person == 'x'")),
        Truth::No
    );
}

#[test]
fn one_part_of_a_process_can_be_unknown() {
    let mut case = Case::known();
    case.subject.process.as_mut().unwrap().executable = None;
    assert_eq!(
        case.says(&compile("process.executable == '/bin/sh'")),
        Truth::Unknown
    );
    assert_eq!(case.says(&compile("process.uid == 1000")), Truth::Yes);
}

/// The tables of Kleene's logic, which CEL has for errors.
#[test]
fn truth_tables() {
    use Truth::{No, Unknown, Yes};
    let case = Case::unknown();
    let values = [
        ("true", Yes),
        ("false", No),
        ("client.person == 'a'", Unknown),
    ];
    let not = |truth| match truth {
        Yes => No,
        No => Yes,
        Unknown => Unknown,
    };
    let and = |a, b| match (a, b) {
        (No, _) | (_, No) => No,
        (Yes, Yes) => Yes,
        _ => Unknown,
    };
    for (a, is_a) in values {
        assert_eq!(case.says(&compile(&format!("!({a})"))), not(is_a), "!({a})");
        for (b, is_b) in values {
            let text = format!("({a}) && ({b})");
            assert_eq!(case.says(&compile(&text)), and(is_a, is_b), "{text}");
            let text = format!("({a}) || ({b})");
            assert_eq!(
                case.says(&compile(&text)),
                not(and(not(is_a), not(is_b))),
                "{text}"
            );
            let text = format!("({a}) == ({b})");
            let same = match is_a == Unknown || is_b == Unknown {
                true => Unknown,
                false if is_a == is_b => Yes,
                false => No,
            };
            assert_eq!(case.says(&compile(&text)), same, "{text}");
            let text = format!("({a}) ? ({b}) : false");
            let chosen = match is_a {
                Yes => is_b,
                No => No,
                Unknown => Unknown,
            };
            assert_eq!(case.says(&compile(&text)), chosen, "{text}");
        }
    }
}

/// `exists` is a long `||`, `all` a long `&&`: one entry that is not known does not hide another that
/// decides, whatever their order.
#[test]
fn entries_that_are_not_known() {
    let case = Case::unknown();
    for (text, expected) in [
        (
            "['a', 'b'].exists(x, x == 'b' || client.person == x)",
            Truth::Yes,
        ),
        (
            "['b', 'a'].exists(x, x == 'b' || client.person == x)",
            Truth::Yes,
        ),
        ("['a', 'b'].exists(x, client.person == x)", Truth::Unknown),
        (
            "['a', 'b'].all(x, x != 'b' && client.person != x)",
            Truth::No,
        ),
        (
            "['b', 'a'].all(x, x != 'b' && client.person != x)",
            Truth::No,
        ),
        (
            "['a', 'b'].all(x, x == 'b' || client.person == x)",
            Truth::Unknown,
        ),
        (
            "['a', 'b'].exists_one(x, x == 'b' || client.person == x)",
            Truth::Unknown,
        ),
        ("'a' in ['a', client.person]", Truth::Yes),
        ("'a' in [client.person, 'a']", Truth::Yes),
        ("'a' in [client.person, 'b']", Truth::Unknown),
        ("1 in [process.uid, 1]", Truth::Yes),
        ("1 in [process.uid, 2]", Truth::Unknown),
    ] {
        assert_eq!(case.says(&compile(text)), expected, "{text}");
    }
}

#[test]
fn a_number_that_there_is_not_is_not_known() {
    let case = Case::known();
    for text in [
        "1 / 0 == 1",
        "1 % 0 == 1",
        "9223372036854775807 + 1 > 0",
        "-9223372036854775807 - 2 < 0",
        "9223372036854775807 * 2 > 0",
        "-(-9223372036854775808) > 0",
        "-9223372036854775808 / -1 > 0",
    ] {
        assert_eq!(case.says(&compile(text)), Truth::Unknown, "{text}");
    }
    assert_eq!(case.says(&compile("1 / 0 == 1 || true")), Truth::Yes);
}

#[test]
fn more_rows_than_64_bits_are_many() {
    let mut case = Case::known();
    case.facts.estimated_rows = Some(u64::MAX);
    assert_eq!(
        case.says(&compile("statement.estimated_rows > 1000000")),
        Truth::Yes
    );
}

#[test]
fn it_tells_its_text_and_variables() {
    let expression =
        compile("client.user == 'a' && client.user != 'b' && has(process.unit) && now > now");
    assert_eq!(expression.variables(), ["client.user", "process.unit"]);
    assert_eq!(expression, compile(expression.text()));
    assert_ne!(expression, compile("client.user == 'a'"));
    let printed = format!("{:?}", compile("target.name == 'x'"));
    assert_eq!(printed, r#"Expression("target.name == 'x'")"#);
    fn is_shared<T: Send + Sync>(_: &T) {}
    is_shared(&expression);
}
