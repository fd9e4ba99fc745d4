//! The witnesses, and reading what they say.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use interceptor_tests::{Running, World, wait_until};
use serde_json::Value;

use super::place::Ground;

/// Ports of the attempts: the target's, and in it those of targets on the gateway host.
pub(crate) const FIRST_PORT: u16 = 7001;
pub(crate) const FIRST_LOCAL_PORT: u16 = 7401;
pub(crate) const LAST_LOCAL_PORT: u16 = 7419;

/// Numbers that stand in a marker's token where attempts have a port.
const MARKERS: std::ops::Range<u16> = 50_000..65_000;

const PATIENCE: Duration = Duration::from_secs(10);

/// The witness at the target and the one on the gateway host.
pub(crate) struct Witnesses<'w> {
    world: &'w World,
    target: Running,
    host: Running,
    next_marker: u16,
}

/// A moment: how much the witnesses had said.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    target: usize,
    host: usize,
}

impl<'w> Witnesses<'w> {
    pub(crate) fn start(ground: &Ground<'w>, last: u16) -> Result<Self> {
        let range = |first: u16, last: u16| serde_json::json!({"first": first, "last": last});
        let mut local = range(FIRST_LOCAL_PORT, LAST_LOCAL_PORT);
        let socket = ground.unix_socket();
        if let Some(parameters) = local.as_object_mut() {
            parameters.insert("unix".into(), socket.to_string_lossy().into());
        }
        let target = ground.world.target.path();
        let witnesses = Self {
            world: ground.world,
            target: Running::spawn(
                ground.root_command(Some(&target), "witness", &range(FIRST_PORT, last))?,
                "",
            )?,
            host: Running::spawn(ground.root_command(None, "witness", &local)?, "")?,
            next_marker: MARKERS.start,
        };
        wait_until("the witnesses watch", PATIENCE, || {
            let ready = |witness: &Running| -> Result<bool> {
                let error = witness.stderr()?;
                if !error.is_empty() {
                    bail!("a witness failed: {error}");
                }
                Ok(witness.stdout()?.contains("ready"))
            };
            Ok(ready(&witnesses.target)? && ready(&witnesses.host)?)
        })?;
        Ok(witnesses)
    }

    pub(crate) fn now(&self) -> Result<Moment> {
        Ok(Moment {
            target: self.target.stdout()?.len(),
            host: self.host.stdout()?.len(),
        })
    }

    /// Waits until the target's witness has said all that it had seen by now. Its packet socket is a
    /// queue: once it has come to a marker, it has come to everything before.
    pub(crate) fn catch_up(&mut self) -> Result<()> {
        let marker = self.next_marker;
        self.next_marker = self.next_marker.saturating_add(1);
        if !MARKERS.contains(&marker) {
            bail!("more markers than numbers");
        }
        let from = self.now()?.target;
        // The same form as an attempt's token.
        let token = format!("icpt{marker:05}tkn.");
        self.world.target.enter(|| -> Result<()> {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.send_to(token.as_bytes(), "127.0.0.1:9")?;
            Ok(())
        })??;
        wait_until("the witness sees a marker", PATIENCE, || {
            let text = self.target.stdout()?;
            let lines = lines(&text, from)?;
            Ok(lines.iter().any(|line| port(line) == Some(marker)))
        })
    }

    /// What of the attempt on `wanted` has arrived since a moment: a connection that was accepted, or
    /// else the first frame.
    pub(crate) fn arrived(&self, wanted: u16, since: Moment) -> Result<Option<String>> {
        let target = self.target.stdout()?;
        let host = self.host.stdout()?;
        let at_target = lines(&target, since.target)?
            .into_iter()
            .filter(|line| line.get("counts").is_none_or(|counts| counts == true));
        // On the gateway host packets pass through: only what was accepted has arrived.
        let on_host = lines(&host, since.host)?
            .into_iter()
            .filter(|line| line.get("kind").is_some_and(|kind| kind == "accepted"));
        let mut found: Vec<Value> = at_target
            .chain(on_host)
            .filter(|line| port(line) == Some(wanted))
            .collect();
        found.sort_by_key(|line| line.get("kind").is_none_or(|kind| kind != "accepted"));
        Ok(found.first().map(|line| {
            let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or("?");
            format!("{} from {}", text("what"), text("from"))
        }))
    }
}

fn port(line: &Value) -> Option<u16> {
    line.get("port")?.as_u64()?.try_into().ok()
}

/// The whole lines after an offset.
fn lines(text: &str, from: usize) -> Result<Vec<Value>> {
    let rest = text.get(from..).unwrap_or_default();
    let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect()
}
