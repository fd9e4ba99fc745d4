//! The session machine under scripts: both peers say anything at any time, people answer, clocks
//! run, peers go.
//!
//! Asserted: no text that policy refuses reaches the server, and none that it holds before somebody
//! approves; nothing goes up after the end but a goodbye; nothing panics and nothing spins.
#![no_main]
#![allow(
    dead_code,
    reason = "the tests' scripts have more words than are used here"
)]

#[path = "../../interceptor-core/tests/postgres_session/pair.rs"]
mod pair;
#[path = "../../interceptor-core/tests/postgres_session/text.rs"]
mod text;

use interceptor_core::sql;
use libfuzzer_sys::fuzz_target;

use pair::{Pair, masked, settings};
use text::*;

/// Messages of both sides' types, and none's.
const KINDS: &[u8] = b"QPBDECSHXdcfFpTZKRSAN123tnsIGWVv\0\xff";

const TEXTS: &[&str] = &[
    "SELECT 1",
    "SELECT email FROM customers",
    "DROP TABLE orders",
    "DELETE FROM orders",
    "BEGIN",
    "COMMIT",
    "PREPARE a AS DELETE FROM orders",
    "PREPARE a AS SELECT 1",
    "EXECUTE a",
    "DEALLOCATE a",
    "DISCARD ALL",
    "COPY orders FROM STDIN",
    "COPY customers TO STDOUT",
    "COPY customers TO STDOUT (FORMAT binary)",
    "COPY customers TO STDOUT (FORMAT csv)",
    "DECLARE a CURSOR FOR SELECT email FROM customers",
    "FETCH a",
    "CLOSE a",
    "SELEC",
    "",
];

/// What a script is read from.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let at = usize::from(self.byte()?);
        of.get(at % of.len()).copied()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::from(self.byte()?).min(self.0.len());
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(taken)
    }

    fn from_client(&mut self) -> Option<Vec<u8>> {
        let names = ["", "a", "b"];
        Some(match self.byte()? % 10 {
            0 => query(self.one(TEXTS)?),
            1 => parse(self.one(&names)?, self.one(TEXTS)?),
            2 => bind(self.one(&names)?, self.one(&names)?),
            3 => execute(self.one(&names)?),
            4 => describe_portal(self.one(&names)?),
            5 => close_statement(self.one(&names)?),
            6 => sync(),
            7 => copy_done(),
            8 => message(self.one(KINDS)?, self.bytes()?),
            _ => self.bytes()?.to_vec(),
        })
    }

    fn from_server(&mut self) -> Option<Vec<u8>> {
        let tags = ["SELECT 1", "PREPARE", "DEALLOCATE", "BEGIN", "COPY 1"];
        Some(match self.byte()? % 12 {
            0 => ready(self.one(b"ITE")?),
            1 => complete(self.one(&tags)?),
            2 => parse_complete(),
            3 => bind_complete(),
            4 => rows(&[(pair::CUSTOMERS, 3)]),
            5 => row(&[Some("x")]),
            6 => error(self.one(&["42601", "22012", "57014"])?, "an error"),
            7 => copy_response(self.one(b"GHW")?, self.byte()?.into()),
            8 => message(b'd', self.bytes()?),
            9 => copy_done(),
            10 => message(self.one(KINDS)?, self.bytes()?),
            _ => self.bytes()?.to_vec(),
        })
    }
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let Some(first) = script.byte() else { return };
    let mut pair = match first % 4 {
        0 => Pair::new(&masked()),
        1 => {
            let mut pair = Pair::new(&masked());
            pair.client(&startup());
            pair.server(&[authentication(0, &[]), settings()].concat());
            pair
        }
        _ => Pair::running(&masked()),
    };
    pair.to_server.clear();
    let starts = first % 4 == 0;
    let mut approved = false;
    while let Some(()) = step(&mut pair, &mut script, &mut approved) {
        check(&pair, starts, approved);
    }
});

fn step(pair: &mut Pair, script: &mut Script<'_>, approved: &mut bool) -> Option<()> {
    let before = (pair.session.is_closed(), pair.to_server.len());
    match script.byte()? % 12 {
        0..=3 => pair.client(&script.from_client()?),
        4..=6 => pair.server(&script.from_server()?),
        7 => {
            let yes = script.byte()? % 2 == 0;
            *approved |= yes;
            pair.resolve(yes);
        }
        8 => pair.cancel(),
        9 => pair.wait(u64::from(script.byte()?)),
        10 => {
            pair.withhold = !pair.withhold;
            pair.confirm();
        }
        _ => {
            match script.byte()? % 4 {
                0 => pair.session.handle_client_closed(),
                1 => pair.session.handle_server_closed(),
                2 => pair.session.drain(),
                _ => pair.session.kill("somebody ends it"),
            }
            pair.pump();
        }
    }
    if before.0 {
        assert_eq!(
            pair.to_server.len(),
            before.1,
            "something went up after the end"
        );
    }
    Some(())
}

/// What reached the server is what policy lets pass.
fn check(pair: &Pair, starts: bool, approved: bool) {
    // A startup packet has no type; what a client says before it is let in is no command.
    if starts {
        return;
    }
    let mut rest = &pair.to_server[..];
    while let [kind, a, b, c, d, ..] = rest {
        let size = 1 + usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        // Data of COPY passes as it comes.
        let Some(message) = rest.get(..size) else {
            return;
        };
        rest = &rest[size..];
        let body = &message[5..];
        let text = match kind {
            b'Q' => body.split(|byte| *byte == 0).next(),
            b'P' => body.split(|byte| *byte == 0).nth(1),
            _ => None,
        };
        let Some(text) = text.and_then(|text| std::str::from_utf8(text).ok()) else {
            continue;
        };
        let Ok(analysis) = sql::analyze(text) else {
            assert_eq!(text, "refused_by_interceptor", "it was not understood");
            continue;
        };
        for kind in &analysis.facts.kinds {
            assert!(!kind.starts_with("DROP"), "{text}");
            let is_query = message[0] == b'Q';
            assert!(!(is_query && *kind == "DELETE" && !approved), "{text}");
        }
    }
}
