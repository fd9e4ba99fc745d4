//! What each client sees: masks, a refusal, a hold that ends well and one that ends with Ctrl-C.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use interceptor_tests::{Running, wait_until};
use nix::sys::signal::Signal;

use super::{Client, Demo};
use crate::show;

/// How long psql may take to print what has been answered already.
const LIMIT: Duration = Duration::from_secs(10);

impl Demo<'_, '_> {
    pub(super) fn masks(&mut self, client: &Client) -> Result<()> {
        self.heading(&format!("Masked rows: {}", client.name));
        let sql = "SELECT id, name, email, ssn, card FROM customers ORDER BY id LIMIT 3";
        self.administrator(sql)?;
        let rows = self.types(client, sql)?.success()?;
        show::output(&rows);
        self.hides_everything(&rows)?;
        let names = self.at_the_target("SELECT name FROM customers ORDER BY id LIMIT 3")?;
        for name in names.lines() {
            ensure!(rows.contains(name), "psql did not see the name {name}");
        }
        show::proved("no address, social security or card number reached psql; the names did");

        let sql = "SELECT note FROM customers WHERE id = 2";
        let note = self.types(client, sql)?.success()?;
        show::output(&note);
        ensure!(note.contains("was declined once"), "the note is gone");
        self.hides_everything(&note)?;
        show::proved("a card number is found in free text as well; the rest of it is untouched");
        Ok(())
    }

    fn hides_everything(&self, text: &str) -> Result<()> {
        for hidden in ["email", "ssn", "card"] {
            let values = self.at_the_target(&format!("SELECT {hidden} FROM customers"))?;
            for value in values.lines() {
                ensure!(!text.contains(value), "psql saw {hidden} {value}");
            }
        }
        Ok(())
    }

    pub(super) fn refuses(&mut self, client: &Client) -> Result<()> {
        self.heading(&format!("A refused DROP TABLE: {}", client.name));
        let error = self.types(client, "DROP TABLE orders")?.failure()?;
        show::output(&error);
        ensure!(
            error.contains("no-drop"),
            "the error does not name the rule"
        );
        self.administrator("SELECT count(*) FROM orders")?;
        let table = self.at_the_target("SELECT to_regclass('public.orders')")?;
        ensure!(table == "orders", "the table is gone");
        ensure!(
            !self.world.postgres.has_seen("DROP TABLE orders")?,
            "the target saw the statement"
        );
        show::proved("the table is still there, and the target never saw the statement");
        Ok(())
    }

    pub(super) fn holds_and_releases(&mut self, client: &Client) -> Result<()> {
        self.heading(&format!("A DELETE that somebody approves: {}", client.name));
        let id = client.approved_id;
        let (psql, request, notice) = self.held_delete(client, id)?;
        self.operator(&["approvals", "show", &request])?;
        self.operator(&[
            "approvals",
            "approve",
            &request,
            "--reason",
            "the customer asked for it",
        ])?;
        let finished = psql.wait(LIMIT)?;
        let more = after(&finished.stderr, &notice)?.to_owned();
        let answer = finished.success()?;
        show::comes_back(&format!("{more}{answer}"));
        ensure!(answer.trim() == "DELETE 1", "the DELETE did not complete");
        ensure!(self.customers(id)? == "0", "the row is still there");
        show::proved("approved by a second process, the same statement completed: the row is gone");
        Ok(())
    }

    pub(super) fn holds_and_forgets(&mut self, client: &Client) -> Result<()> {
        self.heading(&format!("A DELETE that Ctrl-C cancels: {}", client.name));
        let id = client.cancelled_id;
        let (psql, request, notice) = self.held_delete(client, id)?;
        psql.signal(Signal::SIGINT)?;
        let error = psql.wait(LIMIT)?.failure()?;
        // As the terminal shows the keys.
        show::comes_back(&format!("^C{}", after(&error, &notice)?));
        show::typed(&format!("interceptor approvals approve {request}"));
        let late = self.gateway.cli(&["approvals", "approve", &request])?;
        show::output(&late.failure()?);
        ensure!(self.customers(id)? == "1", "the row is gone");
        ensure!(
            !self.world.postgres.has_seen(&delete(id))?,
            "the target saw the statement"
        );
        show::proved(
            "the row is still there, the target never saw the statement, and an approval is too late",
        );
        Ok(())
    }

    /// A psql whose DELETE is held, the number of the request, and what psql has printed.
    fn held_delete(&self, client: &Client, id: u32) -> Result<(Running, String, String)> {
        let sql = delete(id);
        show::typed(&self.world.psql(client.from).command_line(&sql));
        let psql = self.world.psql(client.from).start(&sql)?;
        let request = self.gateway.held_request()?.to_string();
        let mut notice = String::new();
        wait_until("psql prints the notice of the hold", LIMIT, || {
            notice = psql.stderr()?;
            Ok(notice.ends_with('\n'))
        })?;
        show::output(&notice);
        ensure!(
            notice.contains(&format!("request {request} ")),
            "the notice does not tell the request's number"
        );
        ensure!(
            !self.world.postgres.has_seen(&sql)?,
            "the target saw the statement before anybody approved it"
        );
        show::proved("psql waits, and the target has not seen the statement");
        Ok((psql, request, notice))
    }

    fn customers(&self, id: u32) -> Result<String> {
        self.at_the_target(&format!("SELECT count(*) FROM customers WHERE id = {id}"))
    }
}

fn delete(id: u32) -> String {
    format!("DELETE FROM customers WHERE id = {id}")
}

/// What was printed after `shown`.
fn after<'a>(text: &'a str, shown: &str) -> Result<&'a str> {
    text.strip_prefix(shown)
        .ok_or_else(|| anyhow!("what psql printed has changed: {text}"))
}
