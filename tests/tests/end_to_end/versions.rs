//! Versions of the protocol, and of the server.

use std::time::Duration;

use anyhow::{Result, ensure};
use interceptor_tests::policies::SHOP;
use interceptor_tests::postgres::Version;
use interceptor_tests::world::UNNAMED_V4;
use interceptor_tests::{From, wait_until, with_gateway_of};
use nix::sys::signal::Signal;

/// Both versions of the protocol carry the same rows, are refused alike and can be cancelled.
#[test]
fn eighteen_speaks_both_protocols() -> Result<()> {
    with_gateway_of(Version::Eighteen, "ver-18", SHOP, |world, _| {
        for protocol in ["3.0", "3.2"] {
            let psql = world.psql(From::Client).speaking(protocol);
            let row = psql
                .clone()
                .bare()
                .run("SELECT current_setting('server_version_num')::int / 10000, email FROM customers WHERE id = 1")?
                .success()?;
            assert_eq!(row, "18|****\n");
            let direct = psql.clone().host(UNNAMED_V4);
            let script = "\\d orders\nSELECT * FROM orders ORDER BY id;\nSELECT 1 / 0;\n";
            assert_eq!(psql.script(script)?.stdout, direct.script(script)?.stdout);
            let refused = psql.run("DROP TABLE orders")?.failure()?;
            assert!(refused.contains("interceptor"), "{refused}");

            let seconds = if protocol == "3.0" { 61 } else { 62 };
            let sleep = format!("SELECT pg_sleep({seconds})");
            let running = psql.start(&sleep)?;
            wait_until("the query runs", Duration::from_secs(20), || {
                world.postgres.has_seen(&sleep)
            })?;
            running.signal(Signal::SIGINT)?;
            let error = running.wait(Duration::from_secs(20))?.failure()?;
            ensure!(error.contains("due to user request"), "{error}");
        }
        Ok(())
    })
}
