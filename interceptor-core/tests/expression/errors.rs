//! What is no expression, and what is said of it.

use super::*;

/// Each `text`, with its place marked by `§`, and the message.
#[rustfmt::skip]
const ERRORS: &[(&str, &str)] = &[
    ("§", "the expression is empty; write a condition such as `statement.no_where`"),
    ("§  ", "the expression is empty; write a condition such as `statement.no_where`"),
    ("§client.user", "the expression is a string, but it has to say yes or no; compare it with something"),
    ("§statement.tables", "the expression is a list of strings, but it has to say yes or no; compare it with something"),
    ("1 §+ 2", "the expression is an int, but it has to say yes or no; compare it with something"),
    ("§client.usr == 'app'", "there is no variable `client.usr`; did you mean `client.user`?"),
    ("true && §statment.no_where", "there is no variable `statment.no_where`; did you mean `statement`?"),
    ("§user == 'app'", "there is no variable `user`; did you mean `client.user`?; texts stand in quotes"),
    ("client.user == §app", "there is no variable `app`; there is `client`, `process`, `target`, `statement`, `now`; texts stand in quotes"),
    ("§client == 'app'", "`client` is no value; name a part of it: `client.user`, `client.database`, `client.address`, `client.person`, `client.groups`"),
    ("§client.user.name == 'app'", "a string has no part `name`; a call needs brackets: `.name(…)`"),
    ("client.user §== 1", "`==` cannot compare a string with an int"),
    ("statement.tables §== 'orders'", "`==` cannot compare a list of strings with a string; write `… in …`"),
    ("now §> '2030-01-01T00:00:00Z'", "`>` cannot compare a timestamp with a string; write `timestamp('…')`"),
    ("true §< false", "`<` cannot compare a bool with a bool"),
    ("'a' in §client.user", "`in` takes a list; to look for a text within a text write `….contains(…)`"),
    ("1 in §client.groups", "`in` cannot find an int in a list of strings"),
    ("§client.user && true", "`&&` takes a bool, and this is a string"),
    ("!§client.user", "`!` takes a bool, and this is a string"),
    ("-§client.user == 1", "`-` takes an int, and this is a string"),
    ("client.user + §1 == 'a'", "`+` after a string takes a string, and this is an int"),
    ("§true + 1 == 2", "`+` takes ints, and this is a bool"),
    ("1 - §'a' == 2", "`-` takes an int, and this is a string"),
    ("size(§1) == 1", "`size` takes a string or a list of strings, and this is an int"),
    ("client.user.startsWith(§1)", "`startsWith` takes a string, and this is an int"),
    ("client.user.§startWith('a')", "there is no function `startWith`; did you mean `startsWith`?"),
    ("client.user.§startsWith()", "write `startsWith` as in `client.user.startsWith('app')`"),
    ("§int('1') == 1", "there is no function `int`"),
    ("statement.tables.§exists(t)", "write `exists` as in `statement.tables.exists(t, t == 'orders')`"),
    ("statement.tables.exists(§'t', true)", "the first argument names the entry, as in `statement.tables.exists(t, t == 'orders')`"),
    ("statement.tables.exists§(now, true)", "the name `now` is taken; choose another for the entry"),
    ("client.groups.exists(g, client.groups.exists§(g, true))", "the name `g` is taken; choose another for the entry"),
    ("statement.tables.exists(t, §t)", "the second argument takes a bool, and this is a string"),
    ("§client.user.exists(t, true)", "this goes through a list of strings such as `statement.tables`, and not through a string"),
    ("§[1, 2].exists(n, true)", "this goes through a list of strings such as `statement.tables`, and not through a list of ints"),
    ("size(statement.tables.map§(t, t)) == 1", "`map` and `filter` make lists, which nothing here needs; write `list.exists(x, …)` or `list.all(x, …)`"),
    ("size(statement.tables.filter§(t, true)) == 1", "`map` and `filter` make lists, which nothing here needs; write `list.exists(x, …)` or `list.all(x, …)`"),
    ("statement.tables§[0] == 'a'", "`[…]` takes one entry of a list, whose order means nothing; write `list.exists(x, x == …)`"),
    ("has(§now)", "`has` takes a variable, as in `has(process.executable)`"),
    ("has(§process.exe)", "there is no variable `process.exe`; did you mean `process.executable`?"),
    ("§[] == statement.tables", "an empty list has no type; write `size(…) == 0` to ask whether a list is empty"),
    ("1 in [1, §'a']", "a list that begins with an int takes an int, and this is a string"),
    ("'a' in ['a', §1]", "a list that begins with a string takes a string, and this is an int"),
    ("'a' in [§true]", "lists hold strings or ints, and this is a bool"),
    ("1 == §1u", "numbers are ints here; leave the `u` out"),
    ("1 == §1.5", "numbers are ints here; write a whole number"),
    ("client.user == §b'a'", "texts are strings here; leave the `b` out"),
    ("client.user == §null", "nothing is null here; ask whether a variable is known with `has(…)`"),
    ("§{'a': 1} == {'a': 1}", "maps and messages mean nothing here; compare variables"),
    ("(true ? 1 : §'a') == 1", "both values of `?` have to be of one type; here are an int and a string"),
    ("(§1 ? 1 : 2) == 1", "`?` takes a bool, and this is an int"),
    ("now.§getHours() == 1", "`getHours` takes a time zone, as in `now.getHours('Europe/Berlin')` or `now.getHours('UTC')`"),
    ("now.getHours(§'Europe/Berlim') == 1", "there is no such time zone; write a name in quotes, such as 'Europe/Berlin' or 'UTC'"),
    ("now.getHours(§client.user) == 1", "there is no such time zone; write a name in quotes, such as 'Europe/Berlin' or 'UTC'"),
    ("§client.user.getHours('UTC') == 1", "`getHours` takes a timestamp, and this is a string"),
    ("now > timestamp(§'tomorrow')", "`timestamp` takes a time of RFC 3339 in quotes, as in `timestamp('2030-01-31T09:00:00Z')`"),
    ("client.user.matches(§client.database)", "`matches` takes a pattern in quotes, so that it can be checked when the policy is loaded"),
    ("client.user.matches(§'(')", "this is no pattern: unclosed group"),
    ("client.user.matches(§'((a{1000}){1000}){1000}')", "the pattern takes more than 1048576 bytes when compiled; repeat less"),
    ("client.user §= 'a'", "write `==` to compare"),
    ("true §& false", "write `&&` for and"),
    ("true §| false", "write `||` for or"),
    ("true §and false", "`and` cannot stand here; an operator such as `==`, `&&` or `in` may be missing before it"),
    ("client.user == §'a", "the string has no end; close it with the quote that it began with"),
    ("client.user == §\"a", "the string has no end; close it with the quote that it began with"),
    ("client.user == §'\\d'", "this text has a `\\` that means nothing; write `\\\\`, or a raw text as in r'\\d+'"),
    ("client.user == §ä", "CEL has no sign `ä`; texts stand in quotes"),
    ("client.user == §`a`", "names stand without quotes, texts in ' or \""),
    ("(true && false§", "the expression ends too early: a value or a closing bracket is missing"),
    ("true &&§", "the expression ends too early: a value or a closing bracket is missing"),
    ("client.user in ['a'§)", "`)` stands where ']' is missing"),
    ("§if == 1", "`if` is a word that CEL keeps for itself; choose another name"),
    ("1 == §9223372036854775808", "this whole number is too large for 64 bits"),
    ("true ? 1 §", "the expression ends too early: a value or a closing bracket is missing"),
];

#[test]
fn they_say_what_to_write_and_where() {
    let mut wrong = String::new();
    for (marked, expected) in ERRORS {
        let offset = marked.find('§').unwrap();
        let text = marked.replacen('§', "", 1);
        match Expression::compile(&text) {
            Ok(_) => wrong += &format!("{text}\n  is no error\n"),
            Err(error) => {
                if error.message != *expected {
                    wrong += &format!("{text}\n  {expected}\n  {}\n", error.message);
                }
                if error.offset != offset {
                    wrong += &format!("{text}\n  at {offset}, not {}\n", error.offset);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn places_in_several_lines_are_bytes() {
    let text = "statement.text.contains('ä') &&\r\n  client.usr == 'a'";
    let error = Expression::compile(text).unwrap_err();
    assert_eq!(error.offset, text.find("client").unwrap());
}
