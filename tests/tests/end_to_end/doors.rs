//! No door: whatever a client asks, what a mask hides is in no byte that it gets.
//!
//! `sql/vault.sql` puts recognisable values behind masks, `sql/doors.txt` holds the ways to them. Each
//! is gone twice through the gateway, in text and in binary; and before that once without a gateway,
//! where it has to lead to a value, so that the list cannot rot.

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::wire::{Reply, Wire, bind, describe, execute, message, parse, query, sync};
use interceptor_tests::world::{TARGET_V4, World};
use interceptor_tests::{Gateway, with_world};

const VAULT: &str = include_str!("../../sql/vault.sql");
const DOORS: &str = include_str!("../../sql/doors.txt");

/// Doors that have to be open without a gateway. The others are those that only a server of another
/// version, or another right of the role, opens.
const OPEN_MIN: usize = 300;

const POLICY: &str = r#"
kind: Target
name: vault
spec:
  protocol: postgres
  endpoints: ["10.77.2.2:5432"]
  catalog: {user: interceptor_catalog, passwordFile: PASSWORD_FILE}
---
kind: Mask
name: vault
spec:
  columns: [public.vault.s, public.vault.v, public.vault.c, public.vault.nm, public.vault.j, public.vault.jb,
    public.vault.x, public.vault.a, public.vault.n, public.vault.i, public.vault.u, public.vault.ip, public.vault.b,
    public.vault.r, public.vault.part, public.vault.e, public.vault.dm, public.vault.tv, public.parted.s]
  with: full
"#;

/// What the vault's values look like in bytes, in lower case.
const MARKS: &[&[u8]] = &[
    b"zqx7wkv9",
    b"2yj9vkw7",
    // In hexadecimal and in base64.
    b"5a71783757",
    b"wnf4n1dr",
    b"918273645",
    // The number in eight bytes, in the groups of a numeric, and in hexadecimal.
    &[0x0c, 0xbe, 0x5d, 0x03, 0xf1],
    &[0x00, 0x5b, 0x20, 0x51, 0x19, 0x37],
    b"d00df00d",
    &[0xd0, 0x0d, 0xf0, 0x0d, 0x5c, 0xa1],
    b"203.0.113.77",
    &[0x20, 0x00, 0x04, 0xcb, 0x00, 0x71, 0x4d],
    b"dec0adde",
    &[0xde, 0xc0, 0xad, 0xde, 0x0f],
];

#[test]
fn none_is_open() -> Result<()> {
    with_world("doors", |world| {
        let doors: Vec<&str> = DOORS
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        world.postgres.directly(VAULT)?;
        let open = opened_without_gateway(world, &doors)?;
        ensure!(
            open >= OPEN_MIN,
            "of {} doors only {open} are doors at all",
            doors.len()
        );
        world.postgres.directly(
            "DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION wire; GRANT USAGE ON SCHEMA public TO PUBLIC",
        )?;
        world.postgres.directly(VAULT)?;
        let policies = world.write_policy(POLICY)?;
        let _gateway = Gateway::start(world, &policies)?;
        let _bystander = bystander(world)?;
        let mut found = Vec::new();
        for (number, door) in doors.iter().enumerate() {
            for binary in [false, true] {
                let suffix = format!("g{number}{}", if binary { "b" } else { "t" });
                let replies = go(world, door, &suffix, binary, false)
                    .with_context(|| format!("binary {binary}: {door}"))?;
                if let Some(leak) = leak(&replies) {
                    found.push(format!("binary {binary}: {door}\n    {leak}"));
                }
            }
        }
        ensure!(
            found.is_empty(),
            "{} of {} doors are open:\n{}",
            found.len(),
            doors.len(),
            found.join("\n")
        );
        Ok(())
    })
}

/// How many of the doors lead to a value where no gateway is in the way.
fn opened_without_gateway(world: &World, doors: &[&str]) -> Result<usize> {
    let _bystander = bystander(world)?;
    let mut open = 0;
    for (number, door) in doors.iter().enumerate() {
        let replies = go(world, door, &format!("c{number}"), false, true)
            .with_context(|| format!("without a gateway: {door}"))?;
        match leak(&replies) {
            Some(_) => open += 1,
            None => println!(
                "closed without a gateway: {door}\n    {}",
                last_error(&replies)
            ),
        }
    }
    Ok(open)
}

/// Another session whose last statement holds a value.
fn bystander(world: &World) -> Result<Wire> {
    let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
    wire.log_in()?;
    wire.query("SELECT 'Zqx7Wkv9Jy2Hb' = 'x'")?;
    Ok(wire)
}

/// Goes one way in a session of its own. `undone`: nothing of it stays.
fn go(world: &World, door: &str, suffix: &str, binary: bool, undone: bool) -> Result<Vec<Reply>> {
    let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
    wire.log_in()?;
    let mut replies = Vec::new();
    if undone && !door.contains("COMMIT") && !door.contains("LISTEN") {
        wire.query("BEGIN")?;
    }
    for sql in door.split(" ;; ") {
        let sql = sql
            .replace("%%", "\u{1}")
            .replace('%', suffix)
            .replace('\u{1}', "%");
        let bytes = match binary {
            true => [parse(&sql), bind(true), describe(), execute(), sync()].concat(),
            false => query(&sql),
        };
        if wire.send(&bytes).is_err() {
            break;
        }
        match replies_to(&mut wire) {
            Ok(more) => replies.extend(more),
            // The session is over: a masked row that cannot be sent ends it.
            Err(error) if error.to_string().contains("the stream ended") => break,
            Err(error) => return Err(error),
        }
    }
    Ok(replies)
}

fn replies_to(wire: &mut Wire) -> Result<Vec<Reply>> {
    let mut replies = Vec::new();
    loop {
        let Some(reply) = wire.reply()? else {
            return Ok(replies);
        };
        let over = reply.tag == b'Z'
            || (reply.tag == b'E' && reply.field(b'S').as_deref() == Some("FATAL"));
        if reply.tag == b'G' {
            wire.send(&[message(b'f', b"no\0"), sync()].concat())?;
        }
        replies.push(reply);
        if over {
            return Ok(replies);
        }
    }
}

fn last_error(replies: &[Reply]) -> String {
    let error = replies.iter().rev().find(|reply| reply.tag == b'E');
    error.map_or_else(String::new, Reply::text)
}

/// The message that holds a value, as text.
fn leak(replies: &[Reply]) -> Option<String> {
    let leaks = |reply: &&Reply| {
        let lower = reply.body.to_ascii_lowercase();
        MARKS.iter().any(|mark| {
            [&reply.body, &lower]
                .iter()
                .any(|bytes| bytes.windows(mark.len()).any(|window| window == *mark))
        })
    };
    replies
        .iter()
        .find(leaks)
        .map(|reply| format!("{}: {}", char::from(reply.tag), reply.text().escape_debug()))
}
