//! Devices that come while the gateway runs.

use anyhow::{Result, ensure};
use interceptor_tests::policies::SHOP;
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, with_gateway};

/// A client with another way to the gateway, by a device that was not there before.
#[test]
fn a_client_behind_a_new_device_is_carried() -> Result<()> {
    with_gateway("edge-device", SHOP, |world, gateway| {
        let client = world.client.name();
        world.gateway.ip(&format!(
            "link add icpt-new type veth peer name icpt-way netns {client}\n\
             addr add 10.77.9.1/24 dev icpt-new\n\
             link set icpt-new up\n"
        ))?;
        world.client.ip(&format!(
            "addr add 10.77.9.2/24 dev icpt-way\n\
             link set icpt-way up\n\
             route add {TARGET_V4}/32 via 10.77.9.1\n"
        ))?;
        gateway.event("kernel-changed", |event| {
            event["detail"] == "device icpt-new is covered"
        })?;
        let psql = world.psql(From::Client).bare();
        let row = psql.run("SELECT email FROM customers WHERE id = 1")?;
        let row = row.success()?;
        ensure!(row.contains('*'), "the mask shows who answered: {row}");
        gateway.event("connection", |event| {
            event.to_string().contains("10.77.9.2")
        })?;

        world.gateway.ip("link del icpt-new\n")?;
        gateway.event("kernel-changed", |event| {
            event["detail"] == "device icpt-new is gone"
        })?;
        ensure!(gateway.is_alive()?, "a device took the gateway with it");
        let row = psql.run("SELECT email FROM customers WHERE id = 1")?;
        ensure!(row.success()?.contains('*'), "the old way is carried still");
        Ok(())
    })
}
