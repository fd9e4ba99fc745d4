//! Sessions that are older than the gateway.

use std::time::Duration;

use anyhow::Result;
use interceptor_tests::policies::SHOP;
use interceptor_tests::{From, Gateway, postgres, wait_until, with_world};

/// What psql says when its socket was ended under it, or had been.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_session_that_is_older_ends_and_is_on_record() -> Result<()> {
    with_world("older-local", |world| {
        let policies = world.write_policy(SHOP)?;
        let psql = || world.psql(From::Local).account(postgres::ACCOUNT);
        let old = psql().start("SELECT 'the old one', pg_sleep(120)")?;
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT ''the old%'";
        wait_until("the old session is there", SOON, || {
            Ok(psql().run(sleeping)?.success()?.contains('1'))
        })?;
        let gateway = Gateway::start(world, &policies)?;
        let error = old.wait(SOON)?.failure()?;
        assert!(error.contains("could not receive data"), "{error}");
        let event = gateway.event("kernel-changed", |_| true)?;
        let detail = event["detail"].as_str().unwrap_or_default();
        assert!(
            detail.starts_with("1 connection that was older than the gateway was severed: ")
                && detail.ends_with(":5432"),
            "{detail}"
        );
        psql().run("SELECT 1")?.success()?;
        Ok(())
    })
}
