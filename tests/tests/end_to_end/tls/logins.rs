//! Logins on encrypted legs: what can be relayed between two certificates, and what the gateway has to do
//! itself.

use anyhow::Result;
use interceptor_tests::{From, Gateway, Psql, World, with_world};

use super::certificates::{TestAuthority, file, serve};
use crate::login::{identity, policy, refusal, roles, verifiers};

/// Roles, each let in by another method.
const METHODS: [&str; 4] = ["proven", "hashed", "shown", "trusted"];

/// A world whose server encrypts, and a gateway that shows clients a certificate of its own. `DIRECTORY`
/// in the login is the world's, where the verifiers are.
fn with_two_certificates(
    name: &str,
    login: &str,
    upstream: &str,
    test: impl FnOnce(&World, &mut Gateway<'_>) -> Result<()>,
) -> Result<()> {
    with_world(name, |world| {
        roles(world)?;
        world.write_secret("verifiers", &verifiers(world)?)?;
        for user in ["proven", "hashed", "shown"] {
            world.write_secret(&format!("{user}.secret"), &format!("{user}-password"))?;
        }
        let ca = TestAuthority::new("of the servers")?;
        serve(world, &ca.issue("orders", &["10.77.2.2"])?)?;
        let (certificate, key) = ca.issue("gateway", &["10.77.2.2"])?.files(world, "shown")?;
        let root = file(world, "root.pem", &ca.pem)?;
        let verifies = match upstream.starts_with("verify") {
            true => format!(", ca: {}", root.display()),
            false => String::new(),
        };
        let tls = format!(
            "  tls: {{certificate: {}, key: {}, upstream: {upstream}{verifies}}}\n",
            certificate.display(),
            key.display()
        );
        let login = login.replace("DIRECTORY", &world.directory().to_string_lossy());
        let policies = world.write_policy(&(policy(&login) + &tls))?;
        let mut gateway = Gateway::start(world, &policies)?;
        test(world, &mut gateway)
    })
}

fn encrypted<'w>(world: &'w World, user: &str) -> Psql<'w> {
    let psql = world.psql(From::Client).user(user).bare();
    psql.setting("PGSSLMODE", "require")
}

fn plain<'w>(world: &'w World, user: &str) -> Psql<'w> {
    let psql = world.psql(From::Client).user(user).bare();
    psql.setting("PGSSLMODE", "disable")
}

#[track_caller]
fn is(psql: &Psql<'_>, user: &str) -> Result<()> {
    let name = psql.run("SELECT current_user")?.success()?;
    assert_eq!(name.trim(), user);
    Ok(())
}

#[test]
fn relayed_between_two_certificates() -> Result<()> {
    with_two_certificates(
        "tls-login-relay",
        "relay",
        "verify-full",
        |world, gateway| {
            let alice = encrypted(world, "alice");
            let text = refusal(&alice)?;
            assert!(
                text.contains("cannot relay SCRAM between two TLS connections"),
                "{text}"
            );
            assert!(text.contains("channel_binding=disable"), "{text}");
            is(
                &alice.clone().setting("PGCHANNELBINDING", "disable"),
                "alice",
            )?;
            // It says so in libpq's words, and the record in ours.
            let text = refusal(&alice.clone().setting("PGCHANNELBINDING", "require"))?;
            assert!(text.contains("channel binding"), "{text}");
            gateway.event("close", |event| {
                let reason = event["reason"].as_str().unwrap_or_default();
                reason.contains("channel_binding=require")
            })?;
            for user in METHODS {
                let psql = encrypted(world, user).setting("PGCHANNELBINDING", "disable");
                is(&psql, user)?;
                // A client that does not encrypt cannot tell.
                is(&plain(world, user), user)?;
            }
            let wrong = plain(world, "proven").setting("PGPASSWORD", "wrong");
            let text = refusal(&wrong)?;
            assert!(
                text.contains("password authentication failed for user \"proven\""),
                "{text}"
            );
            Ok(())
        },
    )
}

#[test]
fn relayed_to_a_plain_server() -> Result<()> {
    with_two_certificates("tls-login-half", "relay", "disable", |world, gateway| {
        for user in METHODS {
            is(&encrypted(world, user), user)?;
            is(&plain(world, user), user)?;
        }
        let event = identity(gateway, "proven")?;
        assert_eq!(event["method"], "scram-sha-256");
        let bound = encrypted(world, "proven").setting("PGCHANNELBINDING", "require");
        let text = refusal(&bound)?;
        assert!(text.contains("channel binding"), "{text}");
        Ok(())
    })
}

const GATEWAY: &str = "{gateway: {verifierFile: DIRECTORY/verifiers, credentials: [\
     {users: [proven], passwordFile: DIRECTORY/proven.secret}, \
     {users: [alice], as: hashed, passwordFile: DIRECTORY/hashed.secret}, \
     {users: [bob], as: shown, passwordFile: DIRECTORY/shown.secret}]}}";

#[test]
fn by_the_gateway_channels_are_bound_on_each_leg() -> Result<()> {
    with_two_certificates(
        "tls-login-gateway",
        GATEWAY,
        "verify-ca",
        |world, gateway| {
            for binding in ["require", "prefer", "disable"] {
                let psql = encrypted(world, "proven").setting("PGCHANNELBINDING", binding);
                is(&psql, "proven")?;
            }
            gateway.event("identity", |event| event["method"] == "scram-sha-256-plus")?;
            gateway.event("identity", |event| event["method"] == "scram-sha-256")?;
            is(&plain(world, "proven"), "proven")?;
            // MD5, and what goes in clear inside TLS.
            is(&encrypted(world, "alice"), "hashed")?;
            is(&encrypted(world, "bob"), "shown")?;
            let text = refusal(&encrypted(world, "proven").setting("PGPASSWORD", "wrong"))?;
            assert!(
                text.contains("password authentication failed for user \"proven\""),
                "{text}"
            );
            Ok(())
        },
    )
}

#[test]
fn recovered_channels_are_bound_on_each_leg() -> Result<()> {
    let login = "{recover: {verifierFile: DIRECTORY/verifiers}}";
    for upstream in ["require", "disable"] {
        let name = format!("tls-login-recover-{upstream}");
        with_two_certificates(&name, login, upstream, |world, _| {
            let bound = encrypted(world, "proven").setting("PGCHANNELBINDING", "require");
            is(&bound, "proven")?;
            is(&plain(world, "proven"), "proven")?;
            // What needs the password itself cannot be done.
            let text = refusal(&encrypted(world, "hashed"))?;
            assert!(text.contains("password authentication failed"), "{text}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn asked_for_the_password_inside_tls() -> Result<()> {
    for upstream in ["verify-ca", "disable"] {
        let name = format!("tls-login-password-{upstream}");
        with_two_certificates(&name, "password", upstream, |world, gateway| {
            for user in ["proven", "hashed"] {
                is(&encrypted(world, user), user)?;
                let text = refusal(&encrypted(world, user).setting("PGPASSWORD", "wrong"))?;
                let expected = format!("password authentication failed for user \"{user}\"");
                assert!(text.contains(&expected), "{text}");
            }
            let shown = encrypted(world, "shown");
            if upstream == "verify-ca" {
                is(&shown, "shown")?;
            } else {
                let text = refusal(&shown)?;
                assert!(
                    text.contains("in clear on a connection that is not encrypted"),
                    "{text}"
                );
            }
            let text = refusal(&encrypted(world, "expired"))?;
            assert!(
                text.contains("password authentication failed for user \"expired\""),
                "{text}"
            );
            let text = refusal(&plain(world, "proven"))?;
            assert!(text.contains("in TLS only"), "{text}");
            assert_eq!(identity(gateway, "hashed")?["login"], "password");
            let log = std::fs::read_to_string(gateway.log())?;
            assert!(!log.contains("-password\""), "{log}");
            Ok(())
        })?;
    }
    Ok(())
}
