//! The leg between gateway and server: each mode, and what clients are told where it fails.

use anyhow::{Result, ensure};
use interceptor_tests::policies::{OPEN, SHOP};
use interceptor_tests::{From, Gateway, World, with_world};

use super::certificates::{TestAuthority, admit, file, reload, serve, to_server};
use super::{SERVERS_LEG, psql, with_tls};

/// Puts a policy in force.
fn switch(world: &World, gateway: &Gateway<'_>, tls: &str) -> Result<()> {
    world.write_policy(&with_tls(SHOP, tls))?;
    gateway.cli(&["policy", "reload"])?.success()?;
    Ok(())
}

#[test]
fn each_mode_believes_what_it_says() -> Result<()> {
    with_world("tls-upstream", |world| {
        let (ca, stranger) = (TestAuthority::new("ours")?, TestAuthority::new("theirs")?);
        let root = file(world, "root.pem", &ca.pem)?.display().to_string();
        let other = file(world, "stranger.pem", &stranger.pem)?
            .display()
            .to_string();
        let policies = world.write_policy(SHOP)?;
        let gateway = Gateway::start(world, &policies)?;
        let leg = || psql(world, "disable").run(SERVERS_LEG);
        let full = format!("{{upstream: verify-full, ca: {root}}}");

        // A server that does not encrypt.
        assert_eq!(leg()?.success()?, "f|\n");
        for tls in ["{upstream: require}", &full] {
            switch(world, &gateway, tls)?;
            let error = leg()?.failure()?;
            ensure!(error.contains("does not offer TLS"), "{tls}: {error}");
        }

        serve(world, &ca.issue("orders", &["10.77.2.2"])?)?;
        for (tls, shown) in [
            ("{upstream: disable}", "f|\n"),
            ("{}", "t|TLSv1.3\n"),
            ("{upstream: prefer}", "t|TLSv1.3\n"),
            ("{upstream: require}", "t|TLSv1.3\n"),
            (
                &format!("{{upstream: verify-ca, ca: {root}}}"),
                "t|TLSv1.3\n",
            ),
            (&full, "t|TLSv1.3\n"),
        ] {
            switch(world, &gateway, tls)?;
            assert_eq!(leg()?.success()?, shown, "{tls}");
        }
        gateway.event("identity", |event| event["target_tls"] == "TLSv1.3")?;
        // What reads the catalogue goes the same way.
        admit(
            world,
            "hostssl all wire all trust\nhostssl all all all scram-sha-256",
        )?;
        let row = psql(world, "disable").run("SELECT email FROM customers WHERE id = 1")?;
        assert_eq!(row.success()?, "****\n");

        for tls in ["verify-ca", "verify-full"] {
            switch(
                world,
                &gateway,
                &format!("{{upstream: {tls}, ca: {other}}}"),
            )?;
            let error = leg()?.failure()?;
            ensure!(error.contains("not from the authority"), "{tls}: {error}");
            ensure!(
                !error.contains("10.77.2.2:") && !error.contains("theirs"),
                "{error}"
            );
        }
        switch(
            world,
            &gateway,
            &format!("{{upstream: verify-full, ca: {root}, serverName: orders.test}}"),
        )?;
        let error = leg()?.failure()?;
        ensure!(error.contains("certificate is for another name"), "{error}");
        serve(world, &ca.issue("orders", &["orders.test"])?)?;
        assert_eq!(leg()?.success()?, "t|TLSv1.3\n");
        switch(world, &gateway, &full)?;
        ensure!(
            leg()?
                .failure()?
                .contains("certificate is for another name")
        );

        serve(world, &ca.issue_old("orders", &["10.77.2.2"])?)?;
        ensure!(leg()?.failure()?.contains("has expired"));
        switch(world, &gateway, "{upstream: require}")?;
        assert_eq!(leg()?.success()?, "t|TLSv1.3\n");
        Ok(())
    })
}

/// A client's certificate ends at the gateway, which can have one of its own.
#[test]
fn a_server_that_asks_for_a_certificate_gets_the_gateways() -> Result<()> {
    with_world("tls-certificate", |world| {
        let ca = TestAuthority::new("ours")?;
        serve(world, &ca.issue("orders", &["10.77.2.2"])?)?;
        to_server(
            &world.directory().join("postgres/data/clients.pem"),
            &ca.pem,
        )?;
        world
            .postgres
            .directly("ALTER SYSTEM SET ssl_ca_file = 'clients.pem'")?;
        reload(world)?;
        admit(world, "hostssl all all all cert")?;
        let policies = world.write_policy(&with_tls(OPEN, "{upstream: require}"))?;
        let gateway = Gateway::start(world, &policies)?;
        let error = psql(world, "disable").run("SELECT 1")?.failure()?;
        ensure!(
            error.contains("client certificate")
                && error.contains("set clientCertificate and clientKey"),
            "{error}"
        );
        let (certificate, key) = ca.issue("wire", &[])?.files(world, "gateway")?;
        let tls = format!(
            "{{upstream: require, clientCertificate: {}, clientKey: {}}}",
            certificate.display(),
            key.display()
        );
        world.write_policy(&with_tls(OPEN, &tls))?;
        gateway.cli(&["policy", "reload"])?.success()?;
        let shown = "SELECT current_user, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let row = psql(world, "disable").run(shown)?.success()?;
        assert_eq!(row, "wire|/CN=wire\n");
        Ok(())
    })
}

/// A cancel request goes the way of its session.
#[test]
fn a_cancel_request_is_encrypted_as_its_session_is() -> Result<()> {
    use std::time::Duration;

    use interceptor_tests::wait_until;
    use nix::sys::signal::Signal;

    with_world("tls-cancel", |world| {
        let ca = TestAuthority::new("ours")?;
        serve(world, &ca.issue("orders", &["10.77.2.2"])?)?;
        admit(world, "hostssl all all all trust")?;
        let root = file(world, "root.pem", &ca.pem)?.display().to_string();
        let tls = format!("{{upstream: verify-full, ca: {root}}}");
        let policies = world.write_policy(&with_tls(SHOP, &tls))?;
        let _gateway = Gateway::start(world, &policies)?;
        let running = world
            .psql(From::Client)
            .user("wire")
            .start("SELECT pg_sleep(61)")?;
        wait_until("the query runs", Duration::from_secs(20), || {
            world.postgres.has_seen("SELECT pg_sleep(61)")
        })?;
        running.signal(Signal::SIGINT)?;
        let error = running.wait(Duration::from_secs(20))?.failure()?;
        ensure!(error.contains("due to user request"), "{error}");
        Ok(())
    })
}
