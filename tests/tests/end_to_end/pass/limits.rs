//! Limits on connections that pass, and who is asked after those who did not answer.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;
use interceptor_tests::with_gateway;

use super::{Server, closed, connect, echo, is_reset, says};

const POLICY: &str = r#"
kind: Target
name: small
spec: {protocol: tcp, endpoints: ["10.77.2.2:7000"]}
---
kind: Target
name: brief
spec: {protocol: tcp, endpoints: ["10.77.2.2:7001"]}
---
kind: Target
name: rare
spec: {protocol: tcp, endpoints: ["10.77.2.2:7002"]}
---
kind: Target
name: asks
spec: {protocol: tcp, endpoints: ["10.77.2.2:7003"]}
---
kind: ApproverGroup
name: nobody-home
spec: {uids: [54321]}
---
kind: ApproverGroup
name: admins
spec: {uids: [0]}
---
kind: Rule
name: bytes
spec:
  match: {targets: [small], statements: [CONNECT]}
  then: {allow: a little, limit: {bytes: 1000B}, notify: [admins]}
---
kind: Rule
name: time
spec:
  match: {targets: [brief], statements: [CONNECT]}
  then: {allow: for a while, limit: {duration: 1s}}
---
kind: Rule
name: rate
spec:
  match: {targets: [rare], statements: [CONNECT]}
  then: {allow: now and then, limit: {rate: 2/h}}
---
kind: Rule
name: hold
spec:
  match: {targets: [asks], statements: [CONNECT]}
  then:
    hold:
      message: somebody looks
      timeout: 1s
      group: nobody-home
      onTimeout: {escalate: {group: admins, timeout: 60s, onTimeout: deny}}
"#;

#[test]
fn limits_end_what_passes() -> Result<()> {
    with_gateway("pass-limits", POLICY, |world, gateway| {
        for port in 7000..=7003 {
            Server::start(world, port, echo)?;
        }
        let reached = |rule: &str, limit: &str| {
            gateway.event("limit-reached", |it| {
                it["rule"] == rule && it["limit"] == limit
            })
        };

        let mut stream = connect(world, 7000)?;
        says(&mut stream, "hello")?;
        stream.write_all(&[b'x'; 900])?;
        stream.read_exact(&mut [0; 900])?;
        stream.write_all(&[b'x'; 500])?;
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        assert!(
            read.is_err(),
            "no reset, but an end after {} bytes",
            rest.len()
        );
        assert!(rest.len() <= 95, "{}", rest.len());
        reached("bytes", "1000 bytes")?;
        closed(
            gateway,
            "stopped by rule \"bytes\": its limit is 1000 bytes",
        )?;
        let told = gateway.event("notification", |it| it["rule"] == "bytes")?;
        assert_eq!(told["groups"], serde_json::json!(["admins"]));

        let start = Instant::now();
        let mut stream = connect(world, 7001)?;
        says(&mut stream, "hello")?;
        assert!(is_reset(&mut stream)?);
        assert!(start.elapsed() >= Duration::from_secs(1));
        reached("time", "1 s")?;

        for _ in 0..2 {
            says(&mut connect(world, 7002)?, "hello")?;
        }
        assert!(is_reset(&mut connect(world, 7002)?)?);
        reached("rate", "2 commands an hour")?;

        let mut stream = connect(world, 7003)?;
        let second = gateway.event("hold", |it| it["stage"] == 1)?;
        assert_eq!(second["required"], serde_json::json!(["1 of admins"]));
        gateway.event("approval", |it| it["resolution"] == "escalated")?;
        let number = gateway.held_request()?.to_string();
        gateway.cli(&["approvals", "approve", &number])?.success()?;
        says(&mut stream, "hello")
    })
}
