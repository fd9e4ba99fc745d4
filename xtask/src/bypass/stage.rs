//! The order of things: without a gateway, with one, with a stopped one, a broken plane, a dead one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use interceptor_tests::wire::Wire;
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{Gateway, Running, interrupt, process, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::judge::{Finding, Outcome};
use super::place::Ground;
use super::rows::{Row, Stage, Step, Who};
use super::witness::{FIRST_LOCAL_PORT, FIRST_PORT, LAST_LOCAL_PORT, Witnesses};
use crate::show;

/// How long an attempt may take: it waits for an answer itself, on a busy machine.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// How long a packet may be on its way over a virtual cable.
const SETTLE: Duration = Duration::from_millis(150);
/// How long a control may take to be seen.
const CONTROL_WAIT: Duration = Duration::from_secs(3);
/// How long the gateway has to cover a new device.
const COVER_WAIT: Duration = Duration::from_secs(2);

/// All rows, on their way to findings.
pub(crate) struct Trial<'w> {
    ground: &'w Ground<'w>,
    rows: Vec<Row>,
    witnesses: Witnesses<'w>,
    controls: BTreeMap<u16, Outcome>,
    seen: BTreeMap<u16, Outcome>,
    held: BTreeMap<u16, Running>,
}

/// Gives each row its port.
pub(crate) fn number(rows: &[Row]) -> Vec<Row> {
    let mut ports = FIRST_PORT..FIRST_LOCAL_PORT;
    let mut local_ports = FIRST_LOCAL_PORT..=LAST_LOCAL_PORT;
    rows.iter()
        .filter_map(|row| {
            let port = if row.local_target {
                local_ports.next()
            } else {
                ports.next()
            };
            Some(Row {
                port: port?,
                ..row.clone()
            })
        })
        .collect()
}

impl<'w> Trial<'w> {
    pub(crate) fn new(ground: &'w Ground<'w>, rows: &[Row]) -> Result<Self> {
        let numbered = number(rows);
        if numbered.len() != rows.len() {
            bail!("more rows than ports");
        }
        let remote = rows.iter().filter(|row| !row.local_target).count();
        let last = FIRST_PORT.saturating_add(u16::try_from(remote)?);
        Ok(Self {
            ground,
            rows: numbered,
            witnesses: Witnesses::start(ground, last)?,
            controls: BTreeMap::new(),
            seen: BTreeMap::new(),
            held: BTreeMap::new(),
        })
    }

    /// Each row must reach the target.
    pub(crate) fn without_gateway(&mut self) -> Result<()> {
        self.ground.add_late()?;
        for row in self.rows.clone() {
            show::progress(&format!("without a gateway: {}", row.name));
            fs::write(self.go(&row), "")?;
            let outcome = self.attempt(&row, None, CONTROL_WAIT)?;
            fs::remove_file(self.go(&row))?;
            self.controls.insert(row.port, outcome);
        }
        self.ground.remove_late()
    }

    /// Starts the attempts that are under way when the gateway starts.
    pub(crate) fn begin_held(&mut self) -> Result<()> {
        for row in self.of(Stage::Held) {
            let command = self.ground.attempt(&row, None, &self.go(&row))?;
            let mut running = Running::spawn(command, "")?;
            wait_until(&format!("{} is half done", row.name), ATTEMPT_LIMIT, || {
                if running.has_ended()? {
                    bail!("{}: {}{}", row.name, running.stdout()?, running.stderr()?);
                }
                Ok(running.stdout()?.contains("ready"))
            })?;
            self.held.insert(row.port, running);
        }
        Ok(())
    }

    /// All stages in which there is a gateway, or was.
    pub(crate) fn with_gateway(&mut self, gateway: &mut Gateway<'_>) -> Result<()> {
        self.finish_held()?;
        self.ground.add_late()?;
        std::thread::sleep(COVER_WAIT);
        let pid = gateway.pid()?;
        // A connection of the proxy to the target, worth stealing.
        let session = {
            let mut wire = Wire::new(self.ground.world.connect(TARGET_V4)?)?;
            wire.log_in()?;
            wire
        };
        self.all_of(Stage::Serving, pid)?;
        drop(session);
        gateway.signal(Signal::SIGSTOP)?;
        let stopped = self.all_of(Stage::Stopped, pid);
        gateway.signal(Signal::SIGCONT)?;
        stopped?;
        for row in self.of(Stage::Broken) {
            self.one(&row, Some(gateway.pid()?))?;
            gateway.kill()?;
            gateway.restart()?;
        }
        gateway.kill()?;
        self.all_of(Stage::Dead, pid)
    }

    fn finish_held(&mut self) -> Result<()> {
        for row in self.of(Stage::Held) {
            show::progress(row.name);
            let since = self.witnesses.now()?;
            fs::write(self.go(&row), "")?;
            let running = self
                .held
                .remove(&row.port)
                .ok_or_else(|| anyhow!("{} was not begun", row.name))?;
            let finished = running.wait(Duration::from_secs(300))?;
            let report = report(&row, &finished)?;
            std::thread::sleep(SETTLE);
            self.witnesses.catch_up()?;
            let arrived = self.witnesses.arrived(row.port, since)?;
            self.seen.insert(row.port, Outcome::judge(arrived, &report));
        }
        Ok(())
    }

    fn all_of(&mut self, stage: Stage, pid: u32) -> Result<()> {
        for row in self.of(stage) {
            self.one(&row, Some(pid))?;
        }
        Ok(())
    }

    fn one(&mut self, row: &Row, pid: Option<u32>) -> Result<()> {
        show::progress(row.name);
        let outcome = self.attempt(row, pid, Duration::ZERO)?;
        self.seen.insert(row.port, outcome);
        Ok(())
    }

    /// Makes an attempt, and waits up to `wait` for something to arrive.
    fn attempt(&mut self, row: &Row, pid: Option<u32>, wait: Duration) -> Result<Outcome> {
        interrupt::check()?;
        let since = self.witnesses.now()?;
        for step in &row.before {
            self.ground.step(step)?;
        }
        let command = self.ground.attempt(row, pid, &self.go(row))?;
        let finished = process::run(command, ATTEMPT_LIMIT)?;
        let report = report(row, &finished)?;
        std::thread::sleep(SETTLE);
        self.witnesses.catch_up()?;
        let mut arrived = self.witnesses.arrived(row.port, since)?;
        let done = arrived.is_some() || report.get("effect").is_some_and(Value::is_string);
        if !done && !wait.is_zero() && row.no_control.is_none() {
            // Not seen: `arrived` says so.
            let _ = wait_until("the control arrives", wait, || {
                arrived = self.witnesses.arrived(row.port, since)?;
                Ok(arrived.is_some())
            });
        }
        for line in row.after.iter().copied() {
            self.ground.step(&Step {
                who: Who::Root,
                line,
            })?;
        }
        Ok(Outcome::judge(arrived, &report))
    }

    fn of(&self, stage: Stage) -> Vec<Row> {
        let rows = self.rows.iter();
        rows.filter(|row| row.stage == stage).cloned().collect()
    }

    /// The file by which a held attempt goes on.
    fn go(&self, row: &Row) -> PathBuf {
        let directory = self.ground.world.directory();
        directory.join(format!("go-{}", row.port))
    }

    /// What was found, in the catalogue's order.
    pub(crate) fn findings(self) -> Vec<Finding> {
        let missing = || Outcome::Nothing("not tried".into());
        self.rows
            .iter()
            .map(|row| {
                let of = |map: &BTreeMap<u16, Outcome>| map.get(&row.port).cloned();
                Finding::new(
                    row,
                    of(&self.controls).unwrap_or_else(missing),
                    of(&self.seen).unwrap_or_else(missing),
                )
            })
            .collect()
    }
}

/// The attempt's last line.
fn report(row: &Row, finished: &process::Finished) -> Result<Value> {
    let line = finished.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| {
        format!(
            "{} from the {}: the attempt failed: {}{}",
            row.name,
            row.place.name(),
            finished.stdout,
            finished.stderr
        )
    })
}
