//! What policy refuses or holds in the middle of a pipeline: what came before arrives, and what comes
//! after behaves as after an error of the server's.

use std::time::Duration;

use anyhow::Result;
use interceptor_tests::messages::{bind, execute, parse};
use interceptor_tests::policies::SHOP;
use interceptor_tests::wire::{Reply, Wire, extended, query, sync};
use interceptor_tests::with_gateway;
use interceptor_tests::world::TARGET_V4;

fn tags(replies: &[Reply]) -> String {
    replies.iter().map(|reply| char::from(reply.tag)).collect()
}

#[test]
fn a_refusal_in_a_pipeline() -> Result<()> {
    with_gateway("flow-refused", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        wire.query("CREATE TEMP TABLE kept (a int)")?;
        let insert = "INSERT INTO kept VALUES (1)";
        // One implicit transaction up to Sync: the refusal rolls back what came before it.
        wire.send(
            &[
                extended(insert),
                extended("DROP TABLE orders"),
                extended(insert),
                query("SELECT 'skipped'"),
                sync(),
                extended("SELECT count(*) FROM kept"),
                sync(),
            ]
            .concat(),
        )?;
        let first = wire.until(b'Z')?;
        assert_eq!(tags(&first), "12nCEZ", "{first:?}");
        assert_eq!(first[4].field(b'C').as_deref(), Some("42501"));
        let second = wire.until(b'Z')?;
        assert_eq!(tags(&second), "12TDCZ", "{second:?}");
        assert!(second[3].text().ends_with('0'), "{second:?}");

        // In a transaction block it aborts the block.
        wire.send(&[extended("BEGIN"), extended(insert), sync()].concat())?;
        wire.until(b'Z')?;
        let refused = wire.query("SELECT 1; DROP TABLE orders; SELECT 2")?;
        assert_eq!(tags(&refused), "EZ", "{refused:?}");
        assert_eq!(refused[1].body, b"E");
        let failed = wire.query("SELECT 1")?;
        assert_eq!(failed[0].field(b'C').as_deref(), Some("25P02"));
        assert_eq!(wire.query("COMMIT")?[0].text(), "ROLLBACK\0");
        assert!(!world.postgres.has_seen("DROP TABLE orders")?);
        Ok(())
    })
}

#[test]
fn a_hold_in_a_pipeline() -> Result<()> {
    with_gateway("flow-held", SHOP, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let delete = "DELETE FROM orders WHERE id = 60";
        let pipeline = [
            extended("SELECT 'before'"),
            extended(delete),
            extended("SELECT 'after'"),
            sync(),
        ]
        .concat();
        for approved in [true, false] {
            wire.send(&pipeline)?;
            // What came before arrives while it waits, though nobody sent Sync for it.
            let before = wire.until(b'C')?;
            assert!(tags(&before).ends_with("TDC"), "{before:?}");
            let number = gateway.held_request()?.to_string();
            let answer = if approved { "approve" } else { "deny" };
            gateway.cli(&["approvals", answer, &number])?.success()?;
            let rest = wire.until(b'Z')?;
            let shown = tags(&rest).replace('N', "");
            match approved {
                true => assert_eq!(shown, "12nC12TDCZ", "{rest:?}"),
                false => assert_eq!(shown, "1EZ", "{rest:?}"),
            }
            assert_eq!(wire.query("SELECT 1")?.len(), 4);
        }
        Ok(())
    })
}

/// asyncpg and pgjdbc remember what a statement's rows look like, and describe nothing.
#[test]
fn cached_statements_are_masked_without_describe() -> Result<()> {
    with_gateway("flow-cached", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.limit(Duration::from_secs(20))?;
        wire.log_in()?;
        let select = "SELECT id, email FROM customers ORDER BY id";
        wire.send(&[parse("cached", select, &[]), sync()].concat())?;
        wire.until(b'Z')?;
        for formats in [&[][..], &[1], &[1, 0], &[0, 1]] {
            let bound = bind("p", "cached", &[], &[], formats);
            let some = [bound, execute("p", 2), execute("p", 2), execute("p", 0)].concat();
            wire.send(&[some, sync()].concat())?;
            let replies = wire.until(b'Z')?;
            assert_eq!(tags(&replies), "2DDsDDsDDCZ", "{replies:?}");
            let rows = replies.iter().filter(|reply| reply.tag == b'D');
            for row in rows {
                assert!(row.text().ends_with("****"), "{row:?}");
            }
        }
        Ok(())
    })
}
