//! What stands for a masked value is a value of its type: the server itself takes it back, in the
//! format that it came in.

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::wire::{Reply, Wire, bind, describe, execute, message, parse, sync};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{Gateway, World, with_world};

/// Every built-in type that a column can have, and a value of it.
const VALUES: &[(&str, &str)] = &[
    ("boolean", "true"),
    ("bytea", "\\xdeadbeef0102"),
    ("\"char\"", "x"),
    ("name", "a secret name"),
    ("bigint", "912345678901"),
    ("smallint", "12345"),
    ("integer", "123456789"),
    ("text", "jane.doe@example.com"),
    ("oid", "54321"),
    ("tid", "(3,4)"),
    ("xid", "77"),
    ("cid", "5"),
    ("json", "{\"a\": \"secret\"}"),
    ("xml", "<a>secret</a>"),
    ("point", "(1,2)"),
    ("lseg", "[(1,2),(3,4)]"),
    ("path", "((1,2),(3,4))"),
    ("box", "(3,4),(1,2)"),
    ("polygon", "((1,2),(3,4),(5,6))"),
    ("line", "{1,2,3}"),
    ("circle", "<(1,2),3>"),
    ("cidr", "10.1.0.0/16"),
    ("inet", "10.1.2.3/24"),
    ("macaddr", "08:00:2b:01:02:03"),
    ("macaddr8", "08:00:2b:01:02:03:04:05"),
    ("real", "1.5"),
    ("double precision", "2.5"),
    ("money", "12.34"),
    ("character(14)", "padded"),
    ("character varying", "some <text> & more"),
    ("date", "1999-03-04"),
    ("time", "12:34:56"),
    ("timetz", "12:34:56+02"),
    ("timestamp", "1999-03-04 12:34:56"),
    ("timestamptz", "1999-03-04 12:34:56+00"),
    ("interval", "3 days 04:00:00"),
    ("bit(9)", "101010101"),
    ("varbit", "1011"),
    ("numeric", "1234567.891"),
    ("uuid", "d00df00d-5ca1-4b1e-8bad-cafe00c0ffee"),
    ("tsvector", "'a' 'b'"),
    ("tsquery", "'a' & 'b'"),
    ("jsonb", "{\"a\": 1}"),
    ("jsonpath", "$.a"),
    ("pg_lsn", "1/2"),
    ("xid8", "88"),
    ("regclass", "pg_class"),
    ("regtype", "integer"),
    ("regproc", "now"),
    ("regprocedure", "now()"),
    ("regoper", "||/"),
    ("regoperator", "+(integer,integer)"),
    ("regrole", "wire"),
    ("regnamespace", "public"),
    ("regconfig", "english"),
    ("regdictionary", "simple"),
    ("regcollation", "\"C\""),
    ("int4range", "[1,5)"),
    ("int8range", "[1,5)"),
    ("numrange", "[1,5)"),
    ("daterange", "[1999-01-01,1999-02-01)"),
    ("tsrange", "[1999-01-01,1999-02-01)"),
    ("tstzrange", "[1999-01-01,1999-02-01)"),
    ("int4multirange", "{[1,5)}"),
    ("int8multirange", "{[1,5)}"),
    ("nummultirange", "{[1,5)}"),
    ("datemultirange", "{[1999-01-01,1999-02-01)}"),
    ("tsmultirange", "{[1999-01-01,1999-02-01)}"),
    ("tstzmultirange", "{[1999-01-01,1999-02-01)}"),
];

/// Types in which the method has something to show; in all others the cell is null.
const SHOWN: &[(&str, &[&str])] = &[
    (
        "full",
        &[
            "\"char\"",
            "name",
            "text",
            "json",
            "xml",
            "character(14)",
            "character varying",
            "jsonb",
        ],
    ),
    (
        "token",
        &[
            "\"char\"",
            "name",
            "text",
            "json",
            "xml",
            "character(14)",
            "character varying",
            "jsonb",
            "bytea",
            "bigint",
            "integer",
            "numeric",
            "uuid",
        ],
    ),
    (
        "preserve",
        &[
            "\"char\"",
            "name",
            "text",
            "json",
            "xml",
            "character(14)",
            "character varying",
            "jsonb",
            "bigint",
            "integer",
            "numeric",
            "uuid",
        ],
    ),
];

const POLICY: &str = r#"
kind: Target
name: types
spec:
  protocol: postgres
  endpoints: ["10.77.2.2:5432"]
  catalog: {user: interceptor_catalog, passwordFile: PASSWORD_FILE}
---
{kind: Mask, name: full, spec: {columns: ["of_full.c*"], with: full}}
---
{kind: Mask, name: placeholder, spec: {columns: ["of_placeholder.c*"], with: placeholder, placeholder: <email>}}
---
{kind: Mask, name: token, spec: {columns: ["of_token.c*", "again.c*"], with: token, key: {file: KEY_FILE}}}
---
{kind: Mask, name: preserve, spec: {columns: ["of_preserve.c*"], with: preserve, key: {file: KEY_FILE}}}
"#;

/// The types and their arrays, with a value each.
fn values() -> Vec<(String, String)> {
    let plain = VALUES
        .iter()
        .map(|(of, value)| ((*of).to_owned(), (*value).to_owned()));
    let arrays = VALUES.iter().map(|(of, value)| {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        (format!("{of}[]"), format!("{{\"{quoted}\"}}"))
    });
    plain.chain(arrays).collect()
}

fn create(world: &World) -> Result<()> {
    let mut sql = String::new();
    for table in [
        "of_full",
        "of_placeholder",
        "of_token",
        "of_preserve",
        "again",
    ] {
        let mut columns = Vec::new();
        let mut literals = Vec::new();
        for (number, (of, value)) in values().iter().enumerate() {
            columns.push(format!("c{number} {of}"));
            literals.push(format!("'{}'", value.replace('\'', "''")));
        }
        sql.push_str(&format!(
            "CREATE TABLE {table} ({}); INSERT INTO {table} VALUES ({}); GRANT ALL ON {table} TO wire;\n",
            columns.join(", "),
            literals.join(", ")
        ));
    }
    world.postgres.directly(&sql).map(|_| ())
}

fn wire(world: &World) -> Result<Wire> {
    let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
    wire.log_in()?;
    Ok(wire)
}

/// The cells of the only row of a table.
fn cells(wire: &mut Wire, table: &str, binary: bool) -> Result<Vec<Option<Vec<u8>>>> {
    let sql = format!("SELECT * FROM {table}");
    wire.send(&[parse(&sql), bind(binary), describe(), execute(), sync()].concat())?;
    let replies = wire.until(b'Z')?;
    let row = replies.iter().find(|reply| reply.tag == b'D');
    let row = row.with_context(|| format!("no row of {table}: {replies:?}"))?;
    row_cells(row)
}

fn row_cells(row: &Reply) -> Result<Vec<Option<Vec<u8>>>> {
    let mut rest = row.body.get(2..).context("an empty row")?;
    let mut cells = Vec::new();
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<4>().context("half a length")?;
        rest = tail;
        cells.push(match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => None,
            Ok(length) => {
                let (cell, tail) = rest.split_at_checked(length).context("half a cell")?;
                rest = tail;
                Some(cell.to_vec())
            }
        });
    }
    Ok(cells)
}

/// What the server reads in a value that it is sent as a parameter.
fn understood(wire: &mut Wire, of: &str, value: &[u8], binary: bool) -> Result<String> {
    let mut body = vec![0, 0, 0, 1, 0, u8::from(binary), 0, 1];
    body.extend(u32::try_from(value.len())?.to_be_bytes());
    body.extend(value);
    body.extend([0, 0]);
    // Not every type can be cast to text; every type can be formatted.
    let sql = format!("SELECT format('%s', $1::{of})");
    wire.send(&[parse(&sql), message(b'B', &body), execute(), sync()].concat())?;
    let replies = wire.until(b'Z')?;
    let row = replies.iter().find(|reply| reply.tag == b'D');
    let row = row.with_context(|| format!("{of} {value:?}: {replies:?}"))?;
    let cell = row_cells(row)?.into_iter().next().flatten();
    Ok(String::from_utf8(cell.context("null")?)?)
}

fn policy(world: &World) -> Result<std::path::PathBuf> {
    let key = world.directory().join("mask-key");
    std::fs::write(&key, [b'k'; 48])?;
    let key = key.to_str().context("a path in UTF-8")?;
    world.write_policy(&POLICY.replace("KEY_FILE", key))
}

#[test]
fn the_server_takes_them_back() -> Result<()> {
    with_world("replacements", |world| {
        create(world)?;
        let mut plain = wire(world)?;
        let before = [false, true].map(|binary| cells(&mut plain, "of_full", binary));
        let [text_before, binary_before] = before;
        let (text_before, binary_before) = (text_before?, binary_before?);
        drop(plain);
        let policies = policy(world)?;
        let _gateway = Gateway::start(world, &policies)?;
        let mut wire = wire(world)?;
        for method in ["full", "placeholder", "token", "preserve"] {
            let table = format!("of_{method}");
            let (text, binary) = (
                cells(&mut wire, &table, false)?,
                cells(&mut wire, &table, true)?,
            );
            for (number, (of, _)) in values().iter().enumerate() {
                let what = format!("{method} of {of}");
                let (text, binary) = (&text[number], &binary[number]);
                ensure!(*text != text_before[number], "{what} shows the value");
                ensure!(
                    *binary != binary_before[number],
                    "{what} shows the value in binary"
                );
                ensure!(
                    text.is_some() == binary.is_some(),
                    "{what}: {text:?} {binary:?}"
                );
                let shown = SHOWN.iter().find(|(known, _)| *known == method);
                let expected = shown.is_none_or(|(_, types)| types.contains(&of.as_str()));
                ensure!(text.is_some() == expected, "{what}: {text:?}");
                let (Some(text), Some(binary)) = (text, binary) else {
                    continue;
                };
                let from_text = understood(&mut wire, of, text, false).context(what.clone())?;
                let from_binary = understood(&mut wire, of, binary, true).context(what.clone())?;
                ensure!(
                    from_text == from_binary,
                    "{what} is {from_text} in text and {from_binary} in binary"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn tokens_agree_everywhere() -> Result<()> {
    with_world("tokens", |world| {
        create(world)?;
        let policies = policy(world)?;
        let mut gateway = Gateway::start(world, &policies)?;
        let first = cells(&mut wire(world)?, "of_token", true)?;
        // In another table, another session, and after a restart.
        gateway.kill()?;
        gateway.restart()?;
        let second = cells(&mut wire(world)?, "again", true)?;
        assert_eq!(first, second);
        let text = VALUES.iter().position(|(of, _)| *of == "text");
        let token = first[text.context("no text")?].clone().context("null")?;
        let token = String::from_utf8(token)?;
        ensure!(token.starts_with("tok_") && token.len() == 28, "{token}");
        // The key's id is on record, and the key is nowhere.
        let loaded = gateway.event("policy-loaded", |event| {
            event.to_string().contains("mask-key")
        })?;
        ensure!(!loaded.to_string().contains("kkkk"), "{loaded}");
        let printed = std::fs::read_to_string(gateway.log())?;
        ensure!(!printed.contains("kkkk"), "the key is in the log");
        Ok(())
    })
}
