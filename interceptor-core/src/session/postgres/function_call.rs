//! FunctionCall: a function by its number.
//!
//! Numbers of built-in functions never change. Known here are those of large objects, which client
//! libraries call this way (`lo_import`, `lo_export`, `\lo_import`); of any other number nobody tells
//! what it does.

use alloc::format;
use alloc::sync::Arc;

use bytes::Bytes;

use super::Session;
use super::submit::Form;
use crate::command::Facts;
use crate::sql::Analysis;
use crate::wire::{DecodeError, Reader};

/// By `pg_proc.dat`.
const LARGE_OBJECTS: &[(u32, &str)] = &[
    (715, "pg_catalog.lo_create"),
    (952, "pg_catalog.lo_open"),
    (953, "pg_catalog.lo_close"),
    (954, LOREAD),
    (955, "pg_catalog.lowrite"),
    (956, "pg_catalog.lo_lseek"),
    (957, "pg_catalog.lo_creat"),
    (958, "pg_catalog.lo_tell"),
    (964, "pg_catalog.lo_unlink"),
    (1004, "pg_catalog.lo_truncate"),
    (3170, "pg_catalog.lo_lseek64"),
    (3171, "pg_catalog.lo_tell64"),
    (3172, "pg_catalog.lo_truncate64"),
];

/// The only one of them that returns what is in a large object; the others return numbers.
const LOREAD: &str = "pg_catalog.loread";

impl Session {
    pub(super) fn function_call(&mut self, body: &[u8], message: Bytes) -> Result<(), DecodeError> {
        let oid = Reader::new(body).u32()?;
        let known = LARGE_OBJECTS.iter().find(|(number, _)| *number == oid);
        let mut facts = Facts {
            kinds: alloc::vec!["FUNCTION CALL"],
            ..Facts::default()
        };
        let text = match known {
            Some((_, name)) => {
                facts.functions.push((*name).into());
                format!("FUNCTION CALL {name}")
            }
            None => {
                facts.incomplete = Some("it calls a function by its number");
                format!("FUNCTION CALL {oid}")
            }
        };
        let mut analysis = Analysis {
            facts,
            ..Analysis::default()
        };
        analysis.lineage.opaque = true;
        let judged = self.judge(&Arc::new(analysis), &text);
        self.submit(judged, Form::Query, &text, &[body], &[], message);
        Ok(())
    }
}

/// What it returns is a number of the server's own: a descriptor, a position, an object id.
pub(super) fn returns_a_number(facts: &Facts) -> bool {
    facts.incomplete.is_none() && !facts.functions.iter().any(|name| name == LOREAD)
}
