//! What the gateway counts is what the record says.
#![allow(
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::policies::{OPEN, SHOP};
use interceptor_tests::process::{Finished, run};
use interceptor_tests::wire::Wire;
use interceptor_tests::world::{TARGET_V4, UNNAMED_V4};
use interceptor_tests::{From, Gateway, World, wait_until, with_world};

const ENDPOINT: &str = "127.0.0.1:9464";
/// Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(20);

fn curl(world: &World, arguments: &[&str]) -> Result<Finished> {
    let mut curl = world.gateway_command("curl", None)?;
    curl.args(["--silent", "--show-error", "--max-time", "10"])
        .args(arguments);
    run(curl, LIMIT)
}

fn scrape(world: &World) -> Result<String> {
    curl(world, &["--fail", &format!("http://{ENDPOINT}/metrics")])?.success()
}

/// The number after this name and these labels.
fn number(text: &str, series: &str) -> Result<f64> {
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let rest = rest.with_context(|| format!("no {series} in\n{text}"))?;
    Ok(rest.parse()?)
}

/// Commands on record by outcome and rule, in the form of the metric.
fn recorded(gateway: &Gateway<'_>) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for event in gateway.events(5000)? {
        if event["kind"] != "command" {
            continue;
        }
        let rule = match event["rule"].as_str() {
            None | Some("") => "(none)",
            Some(rule) => rule,
        };
        let outcome = event["decision"].as_str().unwrap_or_default();
        let series = format!(
            "interceptor_decisions_total{{outcome=\"{outcome}\",rule=\"{rule}\",target=\"orders\"}}"
        );
        *counts.entry(series).or_default() += 1;
    }
    Ok(counts)
}

fn counted(text: &str) -> Result<BTreeMap<String, u64>> {
    let lines = text.lines();
    let lines = lines.filter(|line| line.starts_with("interceptor_decisions_total{"));
    lines
        .map(|line| {
            let (series, count) = line.rsplit_once(' ').context("no number")?;
            Ok((series.to_owned(), count.parse()?))
        })
        .collect()
}

#[test]
fn decisions_are_counted_as_they_are_recorded() -> Result<()> {
    with_world("metrics-count", |world| {
        let policies = world.write_policy(SHOP)?;
        let gateway = Gateway::start_with(world, &policies, &["--metrics", ENDPOINT])?;
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        for _ in 0..7 {
            wire.query("SELECT email FROM customers")?;
        }
        for _ in 0..3 {
            wire.query("DROP TABLE customers")?;
        }
        // Nobody answers in its second.
        wire.query("UPDATE customers SET email = 'ada.secret@example.com'")?;
        let held = world
            .psql(From::Client)
            .start("DELETE FROM customers WHERE id = 0")?;
        let request = gateway.held_request()?;
        assert_eq!(
            number(&scrape(world)?, "interceptor_requests_waiting")?,
            1.0
        );
        assert!(number(&scrape(world)?, "interceptor_sessions")? >= 2.0);
        gateway
            .cli(&["approvals", "approve", &request.to_string()])?
            .success()?;
        held.wait(LIMIT)?.success()?;

        let text = scrape(world)?;
        let counts = counted(&text)?;
        assert_eq!(counts, recorded(&gateway)?, "{text}");
        let of = |outcome: &str, rule: &str| {
            let labels = format!("outcome=\"{outcome}\",rule=\"{rule}\",target=\"orders\"");
            counts
                .get(&format!("interceptor_decisions_total{{{labels}}}"))
                .copied()
        };
        assert_eq!(of("deny", "no-drop"), Some(3));
        assert_eq!(of("hold", "impatient"), Some(1));
        assert_eq!(of("hold", "deletes-need-approval"), Some(1));
        assert_eq!(of("allow", "(none)"), Some(7));
        // Each of the four texts took its time, and none a tenth of a second. A session that sends one
        // again gets the decision that it got.
        let decided: u64 = counts.values().sum();
        let timed = number(&text, "interceptor_decision_seconds_count")?;
        assert!((4.0..=decided as f64).contains(&timed), "{timed} {decided}");
        assert!(
            number(&text, "interceptor_decision_seconds_sum")? < timed * 0.1,
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
        // The command line says the same.
        let own = gateway.cli(&["metrics"])?.success()?;
        assert_eq!(counted(&own)?, counts);
        for secret in ["ada", "SELECT", "customers", "wire\"", "10.77"] {
            ensure!(!text.contains(secret), "{secret} is in\n{text}");
        }
        Ok(())
    })
}

#[test]
fn the_policy_and_its_reloads_show() -> Result<()> {
    with_world("metrics-policy", |world| {
        let policies = world.write_policy(OPEN)?;
        let gateway = Gateway::start_with(world, &policies, &["--metrics", ENDPOINT])?;
        let hash = || -> Result<String> {
            let status = gateway.cli(&["status", "--json"])?;
            let status: serde_json::Value = serde_json::from_str(&status.stdout)?;
            let hash = status.pointer("/gateway/status/policy/hash");
            Ok(hash
                .and_then(|hash| hash.as_str())
                .context("no hash")?
                .to_owned())
        };
        let info = |hash: &str| format!("interceptor_policy_info{{hash=\"{hash}\"}}");
        let first = hash()?;
        let text = scrape(world)?;
        assert_eq!(number(&text, &info(&first))?, 1.0);
        assert_eq!(
            number(&text, "interceptor_policy_last_reload_successful")?,
            1.0
        );
        assert_eq!(number(&text, "interceptor_record_failed")?, 0.0);
        let since = number(&text, "interceptor_policy_loaded_timestamp_seconds")?;
        let age = number(&text, "interceptor_policy_age_seconds")?;
        assert!(
            since > 1.0e9 && (0.0..3600.0).contains(&age),
            "{since} {age}"
        );

        world.write_policy("kind: Rule\n")?;
        gateway.cli(&["policy", "reload"])?.failure()?;
        let text = scrape(world)?;
        let refused = number(
            &text,
            "interceptor_policy_reloads_total{result=\"refused\"}",
        )?;
        assert!(refused >= 1.0, "{text}");
        assert_eq!(
            number(&text, "interceptor_policy_last_reload_successful")?,
            0.0
        );
        assert_eq!(number(&text, &info(&first))?, 1.0);
        world.write_policy(SHOP)?;
        gateway.cli(&["policy", "reload"])?.success()?;
        let text = scrape(world)?;
        assert_eq!(number(&text, &info(&hash()?))?, 1.0);
        assert!(!text.contains(&first), "{text}");
        assert_eq!(
            number(&text, "interceptor_policy_last_reload_successful")?,
            1.0
        );
        let now = number(&text, "interceptor_policy_loaded_timestamp_seconds")?;
        assert!(now > since, "{now} {since}");

        // The kernel's counters are those of the status.
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let series = "interceptor_kernel_verdicts_total{verdict=\"ingress_to_listener\"}";
        assert!(number(&scrape(world)?, series)? >= 1.0);

        // A successor serves them at the same place, from zero.
        gateway.cli(&["upgrade"])?.success()?;
        wait_until("the successor serves", LIMIT, || {
            let text = scrape(world)?;
            Ok(number(&text, "interceptor_policy_reloads_total{result=\"loaded\"}")? == 0.0)
        })
    })
}

#[test]
fn the_endpoint_is_for_this_host_and_for_metrics() -> Result<()> {
    with_world("metrics-http", |world| {
        let policies = world.write_policy(OPEN)?;
        let open = ["--metrics", "0.0.0.0:9464"];
        let refused = Gateway::refuses_with(world, &policies, &open)?;
        assert!(refused.contains("--metrics-exposed"), "{refused}");
        let _gateway = Gateway::start_with(
            world,
            &policies,
            &[&open[..], &["--metrics-exposed"]].concat(),
        )?;
        assert!(scrape(world)?.contains("# EOF"));
        let code = |arguments: &[&str]| -> Result<String> {
            let form = [
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code} %{content_type}",
            ];
            curl(world, &[&form[..], arguments].concat())?.success()
        };
        let place = format!("http://{ENDPOINT}/metrics");
        assert_eq!(
            code(&[&place])?,
            "200 application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        assert!(code(&["--data", "a=b", &place])?.starts_with("405"));
        assert!(code(&[&format!("http://{ENDPOINT}/")])?.starts_with("404"));
        Ok(())
    })
}

#[test]
fn connections_that_pass_through_are_counted_too() -> Result<()> {
    with_world("metrics-pass", |world| {
        let raw = "---
kind: Target
name: raw
spec: {protocol: tcp, endpoints: ['10.77.2.3:5432']}
---
kind: Rule
name: from-the-client
spec: {match: {statements: [CONNECT], targets: [raw], clientNetworks: [10.77.1.0/24]}, then: allow}
";
        let policies = world.write_policy(&format!("{OPEN}{raw}"))?;
        let gateway = Gateway::start_with(world, &policies, &["--metrics", ENDPOINT])?;
        let psql = world.psql(From::Client).host(UNNAMED_V4).bare();
        assert_eq!(psql.run("SELECT 1")?.success()?, "1\n");
        world
            .psql(From::Local)
            .host(UNNAMED_V4)
            .run("SELECT 1")?
            .failure()?;
        gateway.event("close", |event| {
            event["reason"].to_string().contains("refused")
        })?;
        let counts = counted(&scrape(world)?)?;
        let series = |outcome: &str, rule: &str| {
            let labels = format!("outcome=\"{outcome}\",rule=\"{rule}\",target=\"raw\"");
            counts
                .get(&format!("interceptor_decisions_total{{{labels}}}"))
                .copied()
        };
        assert_eq!(series("allow", "from-the-client"), Some(1), "{counts:?}");
        assert!(series("deny", "(none)") >= Some(1), "{counts:?}");
        Ok(())
    })
}
