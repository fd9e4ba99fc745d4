//! TLS on both legs, with psql and its libpq.

mod certificates;
mod hostile;
mod logins;
mod upstream;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::policies::{OPEN, SHOP};
use interceptor_tests::postgres::Version;
use interceptor_tests::{
    From, Gateway, Psql, World, wait_until, with_gateway_of, with_world, with_world_of,
};
use nix::sys::signal::Signal;

use certificates::{TestAuthority, admit, file, serve};

/// How the leg between gateway and server is encrypted, by the server itself.
const SERVERS_LEG: &str =
    "SELECT ssl, coalesce(version, '') FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// The policy with a key `tls` of its target.
fn with_tls(policy: &str, tls: &str) -> String {
    policy.replacen(
        "  default: allow\n",
        &format!("  default: allow\n  tls: {tls}\n"),
        1,
    )
}

/// Makes an authority for the gateway, and gives its directory and its certificate's file.
fn authority(world: &World) -> Result<(String, PathBuf)> {
    let directory = world.directory().join("ca").display().to_string();
    let binary = world.binary()?;
    let run = |arguments: &[&str]| -> Result<String> {
        let mut command = world.gateway_command(&binary, None)?;
        command.args(arguments);
        interceptor_tests::process::run(command, Duration::from_secs(20))?.success()
    };
    run(&["ca", "init", "--ca", &directory])?;
    let pem = run(&["ca", "export", "--ca", &directory])?;
    ensure!(pem.starts_with("-----BEGIN CERTIFICATE-----\n"), "{pem}");
    let exported = file(world, "exported.pem", &pem)?;
    Ok((directory, exported))
}

/// A world with a gateway that has an authority of its own; the test is given the authority's file.
fn with_authority(
    version: Version,
    name: &str,
    policy: &str,
    test: impl FnOnce(&World, &mut Gateway<'_>, &str) -> Result<()>,
) -> Result<()> {
    with_world_of(version, name, |world| {
        let (directory, exported) = authority(world)?;
        let policies = world.write_policy(policy)?;
        let mut gateway = Gateway::start_with(world, &policies, &["--ca", &directory])?;
        test(world, &mut gateway, &exported.display().to_string())
    })
}

fn psql<'w>(world: &'w World, mode: &str) -> Psql<'w> {
    let psql = world.psql(From::Client).user("wire").bare();
    psql.setting("PGSSLMODE", mode)
}

/// What psql says of its own leg.
fn clients_leg(psql: &Psql<'_>) -> Result<String> {
    psql.script("\\conninfo\n")?.success()
}

#[test]
fn a_client_encrypts_as_it_likes() -> Result<()> {
    with_authority(Version::Debian, "tls-client", SHOP, |world, gateway, ca| {
        for (mode, encrypted) in [
            ("disable", false),
            ("allow", false),
            ("prefer", true),
            ("require", true),
            ("verify-ca", true),
            ("verify-full", true),
        ] {
            let psql = psql(world, mode).setting("PGSSLROOTCERT", ca);
            let leg = clients_leg(&psql)?;
            assert_eq!(leg.contains("TLSv1.3"), encrypted, "{mode}: {leg}");
            let row = psql.run("SELECT email FROM customers WHERE id = 1")?;
            assert_eq!(row.success()?, "****\n", "{mode}");
            assert_eq!(psql.run(SERVERS_LEG)?.success()?, "f|\n", "{mode}");
        }
        // A password proves itself over an encrypted leg, too.
        let alice = world
            .psql(From::Local)
            .bare()
            .setting("PGSSLMODE", "require");
        let alice = alice.setting("PGSSLROOTCERT", ca);
        assert_eq!(alice.run("SELECT current_user")?.success()?, "alice\n");
        let old = psql(world, "verify-full").setting("PGSSLROOTCERT", ca);
        let old = old.setting("PGSSLMAXPROTOCOLVERSION", "TLSv1.2");
        assert!(clients_leg(&old)?.contains("TLSv1.2"));

        gateway.event("identity", |event| {
            event["client_tls"] == "TLSv1.3" && event["target_tls"] == ""
        })?;
        gateway.event("identity", |event| event["client_tls"] == "")?;

        // Another authority is not believed, and the gateway's log says why.
        let other = file(world, "other.pem", &TestAuthority::new("another")?.pem)?;
        let refused =
            psql(world, "verify-ca").setting("PGSSLROOTCERT", &other.display().to_string());
        let error = refused.run("SELECT 1")?.failure()?;
        ensure!(error.contains("certificate verify failed"), "{error}");
        gateway.event("close", |event| {
            event["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("interceptor ca export"))
        })?;
        Ok(())
    })
}

#[test]
fn eighteen_begins_with_tls() -> Result<()> {
    with_authority(Version::Eighteen, "tls-direct", SHOP, |world, _, ca| {
        for protocol in ["3.0", "3.2"] {
            let psql = psql(world, "verify-full").speaking(protocol);
            let psql = psql
                .setting("PGSSLROOTCERT", ca)
                .setting("PGSSLNEGOTIATION", "direct");
            let row = psql.run("SELECT email FROM customers WHERE id = 1")?;
            assert_eq!(row.success()?, "****\n");
            // This psql's cancel requests are plain, whatever its session is.
            let sleep = format!(
                "SELECT pg_sleep({})",
                if protocol == "3.0" { 61 } else { 62 }
            );
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

#[test]
fn a_policy_insists_or_declines() -> Result<()> {
    let required = with_tls(SHOP, "{client: require}");
    with_authority(
        Version::Debian,
        "tls-insist",
        &required,
        |world, gateway, _| {
            let error = psql(world, "disable").run("SELECT 1")?.failure()?;
            ensure!(
                error.contains("takes encrypted connections only"),
                "{error}"
            );
            gateway.event("identity", |event| event["error_code"] == "28000")?;
            psql(world, "require").run("SELECT 1")?.success()?;

            world.write_policy(&with_tls(SHOP, "{client: off}"))?;
            gateway.cli(&["policy", "reload"])?.success()?;
            let error = psql(world, "require").run("SELECT 1")?.failure()?;
            ensure!(error.contains("server does not support SSL"), "{error}");
            psql(world, "prefer").run("SELECT 1")?.success()?;
            Ok(())
        },
    )
}

/// Without a certificate all is as without TLS.
#[test]
fn without_an_authority_clients_stay_plain() -> Result<()> {
    with_gateway_of(Version::Eighteen, "tls-none", SHOP, |world, _| {
        psql(world, "prefer").run("SELECT 1")?.success()?;
        let error = psql(world, "require").run("SELECT 1")?.failure()?;
        ensure!(error.contains("server does not support SSL"), "{error}");
        let direct = psql(world, "require").speaking("3.2");
        let error = direct
            .setting("PGSSLNEGOTIATION", "direct")
            .run("SELECT 1")?
            .failure()?;
        ensure!(
            !error.is_empty(),
            "a direct handshake without a certificate"
        );
        Ok(())
    })
}

/// With the server's own certificate and key on both legs, channel binding holds from end to end.
#[test]
fn the_servers_own_certificate_binds_the_channel() -> Result<()> {
    with_world("tls-own", |world| {
        let ca = TestAuthority::new("of the servers")?;
        let pair = ca.issue("orders", &["10.77.2.2"])?;
        serve(world, &pair)?;
        let (certificate, key) = pair.files(world, "own")?;
        let root = file(world, "root.pem", &ca.pem)?.display().to_string();
        let tls = format!(
            "{{client: require, certificate: {}, key: {}, upstream: verify-full, ca: {root}}}",
            certificate.display(),
            key.display()
        );
        let policies = world.write_policy(&with_tls(SHOP, &tls))?;
        let gateway = Gateway::start(world, &policies)?;
        let alice = world.psql(From::Client).bare();
        let alice = alice
            .setting("PGSSLMODE", "verify-full")
            .setting("PGSSLROOTCERT", &root);
        let bound = alice.clone().setting("PGCHANNELBINDING", "require");
        assert_eq!(bound.run(SERVERS_LEG)?.success()?, "t|TLSv1.3\n");
        let row = alice.run("SELECT email FROM customers WHERE id = 1")?;
        assert_eq!(
            row.success()?,
            "****\n",
            "the side connection encrypts, too"
        );
        gateway.event("identity", |event| {
            event["client_tls"] == "TLSv1.3" && event["target_tls"] == "TLSv1.3"
        })?;
        Ok(())
    })
}

/// Renewed files are in force without a word; broken ones are not.
#[test]
fn certificates_are_renewed_while_it_runs() -> Result<()> {
    with_world("tls-renew", |world| {
        let (one, other) = (TestAuthority::new("one")?, TestAuthority::new("other")?);
        let (certificate, key) = one.issue("orders", &["10.77.2.2"])?.files(world, "own")?;
        let roots = [("one.pem", &one.pem), ("other.pem", &other.pem)];
        let [one, other_root] = roots.map(|(name, pem)| file(world, name, pem));
        let (one, other_root) = (
            one?.display().to_string(),
            other_root?.display().to_string(),
        );
        let tls = format!(
            "{{certificate: {}, key: {}}}",
            certificate.display(),
            key.display()
        );
        let policies = world.write_policy(&with_tls(OPEN, &tls))?;
        let options = ["--policy-watch", "1s"];
        let gateway = Gateway::start_with(world, &policies, &options)?;
        let by = |root: &str| psql(world, "verify-full").setting("PGSSLROOTCERT", root);
        by(&one).run("SELECT 1")?.success()?;

        let kept = fs::read_to_string(&key)?;
        file(world, "own.key", "garbage")?;
        gateway.event("policy-refused", |event| {
            event.to_string().contains("own.key")
        })?;
        by(&one).run("SELECT 1")?.success()?;
        file(world, "own.key", &kept)?;

        other.issue("orders", &["10.77.2.2"])?.files(world, "own")?;
        wait_until(
            "the new certificate is shown",
            Duration::from_secs(20),
            || Ok(by(&other_root).run("SELECT 1")?.status.success()),
        )?;
        by(&one).run("SELECT 1")?.failure()?;
        Ok(())
    })
}

#[test]
fn a_key_that_others_read_starts_nothing() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    with_world("tls-key", |world| {
        let ca = TestAuthority::new("of the servers")?;
        let (certificate, key) = ca.issue("orders", &["10.77.2.2"])?.files(world, "own")?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
        let tls = format!(
            "{{certificate: {}, key: {}}}",
            certificate.display(),
            key.display()
        );
        let policies = world.write_policy(&with_tls(OPEN, &tls))?;
        let error = Gateway::refuses_with(world, &policies, &[])?;
        ensure!(error.contains("can be read by others"), "{error}");
        Ok(())
    })
}

/// 100 MB in and out, encrypted on both legs, arrive as they were.
#[test]
fn bulk_passes_both_legs() -> Result<()> {
    const ROWS: u32 = 1_000_000;
    with_world("tls-bulk", |world| {
        let ca = TestAuthority::new("of the servers")?;
        serve(world, &ca.issue("orders", &["10.77.2.2"])?)?;
        admit(world, "hostssl all all all trust")?;
        let (directory, exported) = authority(world)?;
        let policies = world.write_policy(&with_tls(OPEN, "{upstream: require}"))?;
        let _gateway = Gateway::start_with(world, &policies, &["--ca", &directory])?;
        let psql = psql(world, "verify-full").limit(Duration::from_secs(240));
        let psql = psql.setting("PGSSLROOTCERT", &exported.display().to_string());
        let rows =
            format!("SELECT i, repeat(md5(i::text), 3) FROM generate_series(1, {ROWS}) AS s(i)");
        let bulk = world.directory().join("bulk.csv").display().to_string();
        let script = format!(
            "\\copy ({rows}) TO '{bulk}' CSV\n\
             CREATE TEMP TABLE bulk (i int, text text);\n\
             \\copy bulk FROM '{bulk}' CSV\n\
             SELECT count(*), count(*) FILTER (WHERE text = repeat(md5(i::text), 3)) FROM bulk;\n"
        );
        let shown = psql.script(&script)?.success()?;
        ensure!(shown.contains(&format!("{ROWS}|{ROWS}")), "{shown}");
        let size = fs::metadata(&bulk).context("what was copied out")?.len();
        ensure!(size > 100_000_000, "{size} bytes were copied");
        Ok(())
    })
}
