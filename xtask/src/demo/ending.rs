//! What remains of it all: the log, a gateway that dies and comes back, and a forgery.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{CLIENTS, Demo, POLICIES};
use crate::{root, show, tamper};

/// "Quickly" for a client whose gateway is dead: well below any connection timeout.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);

/// The rule that is edited, and the commands that it held: two of each client.
const RULE: &str = "deletes-need-approval";
const HELD: u64 = 4;

impl Demo<'_, '_> {
    pub(super) fn records(&mut self) -> Result<()> {
        self.heading("The log of all this");
        self.operator(&["audit", "tail", "-n", "12"])?;
        self.operator(&["audit", "verify"])?;
        self.gateway.event("connection", |event| {
            let process = |name| event.pointer(&format!("/process/{name}"));
            process("comm").is_some_and(|comm| comm == "psql")
                && process("cgroup").is_some_and(|cgroup| cgroup == "/icpt-demo/apps")
        })?;
        show::proved("every record is in its place, and the local psql is known by its process");
        Ok(())
    }

    pub(super) fn would_have_decided(&mut self) -> Result<()> {
        self.heading("What another rule would have decided");
        let policies = root()?.join(POLICIES);
        let same = self.backtested(&policies)?;
        ensure!(
            same.pointer("/changed") == Some(&0.into()),
            "unchanged files change decisions: {same}"
        );

        let text = fs::read_to_string(policies.join("orders.yaml"))?;
        let held = "    hold:\n      timeout: 60s\n      message:";
        let refused = "    deny:";
        ensure!(
            text.matches(held).count() == 1,
            "the demo's rule was rewritten"
        );
        let edited = tempfile::tempdir()?;
        fs::write(
            edited.path().join("orders.yaml"),
            text.replace(held, refused),
        )?;
        show::typed(&format!(
            "cp -r {POLICIES} edited; editor edited/orders.yaml"
        ));
        show::output("deletes-need-approval: its `then` is `deny` now, and was `hold`");

        let directory = edited.path().to_string_lossy();
        self.operator(&[
            "policy",
            "backtest",
            "--since",
            "1h",
            "--policies",
            &directory,
        ])?;
        let found = self.backtested(edited.path())?;
        let changes = found
            .pointer("/changes")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let is_meant = |change: &Value| {
            let says = |path: &str, word: &str| change.pointer(path).is_some_and(|it| it == word);
            says("/before/rule", RULE)
                && says("/before/outcome", "hold")
                && says("/after/rule", RULE)
                && says("/after/outcome", "deny")
        };
        ensure!(
            found.pointer("/changed") == Some(&HELD.into()) && changes.iter().all(is_meant),
            "the rule changes something else: {found}"
        );
        show::proved(&format!(
            "exactly the {HELD} commands that the rule held would have been refused; nothing else changes"
        ));
        Ok(())
    }

    fn backtested(&self, policies: &Path) -> Result<Value> {
        let policies = policies.to_string_lossy();
        let arguments = [
            "policy",
            "backtest",
            "--since",
            "1h",
            "--json",
            "--policies",
            &policies,
        ];
        let said = self.gateway.cli(&arguments)?.success()?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    }

    pub(super) fn dies(&mut self) -> Result<()> {
        self.heading("kill -9 of the gateway");
        show::typed(&format!("kill -9 {}", self.gateway.pid()?));
        self.gateway.kill()?;
        let connections = self.connections()?;
        for client in &CLIENTS {
            let finished = self.types(client, "DELETE FROM customers")?;
            let elapsed = finished.elapsed;
            let error = finished.failure()?;
            show::output(&error);
            ensure!(error.contains("refused"), "psql failed for another reason");
            ensure!(
                elapsed < REFUSAL_LIMIT,
                "{} waited {elapsed:?} for its refusal",
                client.name
            );
            let time = show::duration(elapsed);
            show::proved(&format!("{} was refused within {time}", client.name));
        }
        self.administrator("SELECT count(*) FROM customers")?;
        ensure!(
            self.connections()? == connections,
            "a connection reached the target past the dead gateway"
        );
        let left = self.at_the_target("SELECT count(*) FROM customers")?;
        ensure!(left == "4", "{left} customers are left, not 4");
        show::proved("not one connection reached the target, and its rows are untouched");
        Ok(())
    }

    pub(super) fn comes_back(&mut self) -> Result<()> {
        self.heading("The gateway starts again");
        let cgroup = self.world.cgroup().display();
        show::typed(&format!(
            "interceptor run --policies {POLICIES} --cgroup {cgroup}"
        ));
        self.gateway.restart()?;
        for client in &CLIENTS {
            let sql = "SELECT email FROM customers WHERE id = 1";
            let rows = self.types(client, sql)?.success()?;
            show::output(&rows);
            ensure!(rows.contains("a****@example.com"), "the mask is gone");
        }
        let said = self.operator(&["audit", "verify"])?;
        ensure!(said.contains("intact"), "the log is not intact");
        show::proved("both clients are served as before; the log goes on where the kill cut it");
        Ok(())
    }

    pub(super) fn finds_a_forgery(&mut self) -> Result<()> {
        self.heading("A forged copy of the log");
        let copy = self.world.directory().join("forged");
        tamper::copy(&self.gateway.state_directory().join("audit"), &copy)?;
        show::typed("cp -a audit forged; interceptor audit verify --dir forged");
        let said = self.gateway.audit_in(&copy, &["verify"])?.success()?;
        show::output(&said);
        ensure!(said.contains("intact"), "the copy is not intact");
        show::proved("the copy proves what the original does");

        tamper::forge(&copy, "DROP TABLE", "LOCK TABLE")?;
        show::typed("# now its first DROP TABLE reads LOCK TABLE");
        show::typed("interceptor audit verify --dir forged");
        self.expect_tampering(&copy)
            .context("the forged copy was not found out")?;
        show::proved("one word in one record of the copy was changed: it is found, and named");
        Ok(())
    }

    fn expect_tampering(&self, copy: &Path) -> Result<()> {
        let finished = self.gateway.audit_in(copy, &["verify"])?;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        show::output(&said);
        ensure!(
            finished.status.code() == Some(1),
            "`audit verify` ended with {}, not with 1",
            finished.status
        );
        if !said.contains("altered") {
            bail!("`audit verify` does not say that a record was altered");
        }
        Ok(())
    }

    fn connections(&self) -> Result<usize> {
        let log = self.world.postgres.network_log()?;
        Ok(log.matches("connection received").count())
    }
}
