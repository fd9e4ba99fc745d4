//! What is on record when the gateway is killed, and what `--audit-durability` promises.

use anyhow::Result;
use interceptor_tests::policies::SHOP;
use interceptor_tests::{From, Gateway, with_gateway, with_world};

#[test]
fn what_a_killed_gateway_recorded_is_read_from_its_journal() -> Result<()> {
    with_gateway("durable", SHOP, |world, gateway| {
        let row = "SELECT email FROM customers WHERE id = 1";
        world.psql(From::Client).bare().run(row)?.success()?;
        // Too early for all of it to be in the database.
        gateway.kill()?;
        let log = gateway.state_directory().join("audit");
        let verified = gateway.audit_in(&log, &["verify"])?.success()?;
        assert!(verified.ends_with(": intact\n"), "{verified}");
        let tail = gateway.audit_in(&log, &["tail", "-n", "50"])?.success()?;
        assert!(tail.contains(row), "{tail}");
        // Who reads changes nothing: it goes on from there.
        gateway.restart()?;
        let again = gateway.cli(&["audit", "verify"])?.success()?;
        let records = |text: &str| text.split(' ').next().and_then(|n| n.parse::<u64>().ok());
        assert!(records(&again) > records(&verified), "{verified}{again}");
        Ok(())
    })
}

#[test]
fn a_gateway_that_does_not_wait_for_the_disk_says_so() -> Result<()> {
    with_world("durable-process", |world| {
        let policies = world.write_policy(SHOP)?;
        let options = ["--audit-durability", "process"];
        let mut gateway = Gateway::start_with(world, &policies, &options)?;
        let row = "SELECT email FROM customers WHERE id = 1";
        world.psql(From::Client).bare().run(row)?.success()?;
        let tail = gateway.cli(&["audit", "tail", "-n", "50"])?.success()?;
        assert!(tail.contains("a power cut can take the last"), "{tail}");
        let bpffs = world.bpffs();
        let status = gateway.cli(&["status", "--bpffs", &bpffs.to_string_lossy()])?;
        let status = status.success()?;
        assert!(status.contains("a power cut can take the last"), "{status}");
        // It is there after the gateway's death all the same.
        gateway.kill()?;
        let log = gateway.state_directory().join("audit");
        let tail = gateway.audit_in(&log, &["tail", "-n", "50"])?.success()?;
        assert!(tail.contains(row), "{tail}");
        assert!(
            gateway
                .audit_in(&log, &["verify"])?
                .success()?
                .ends_with(": intact\n")
        );
        Ok(())
    })
}
