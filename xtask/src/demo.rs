//! `cargo xtask demo`: the gateway between an unmodified psql and a real PostgreSQL.
//!
//! Each step prints what was typed and what came back, and checks its claim where it matters: at
//! the server itself. The first claim that does not hold ends the demo with a failure.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use interceptor_tests::world::{self, TARGET_V4};
use interceptor_tests::{From, Gateway, World};
use nix::sys::signal::Signal;

use crate::{cargo, root, setup, show, tamper};

/// The demo's world.
const NAME: &str = "demo";

/// "Quickly" for a client whose gateway is dead: well below any connection timeout.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);

/// How to show it.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave everything running at the end, and say how to use it
    #[arg(long, conflicts_with = "stop")]
    keep: bool,
    /// End what --keep left running
    #[arg(long)]
    stop: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.stop {
        let was_there = world::exists(NAME);
        world::sweep(NAME)?;
        println!(
            "{}",
            if was_there {
                "stopped"
            } else {
                "nothing was running"
            }
        );
        return Ok(());
    }
    let start = Instant::now();
    setup::run()?;
    show::progress("building the gateway");
    let binary = cargo::build_gateway(true)?;
    show::progress("starting client, gateway and target in network namespaces of their own");
    let mut world = World::new(NAME)?;
    world.use_binary(&binary);
    let policies = root()?.join("policies/demo");
    let mut gateway = Gateway::start(&world, &policies)?;
    let shown = Demo {
        world: &world,
        gateway: &mut gateway,
    }
    .show();
    if let Err(error) = shown {
        let log = std::fs::read_to_string(gateway.log()).unwrap_or_default();
        return Err(error.context(format!("the demo failed; the gateway logged\n{log}")));
    }
    show::heading(&format!(
        "Every claim held ({})",
        show::seconds(start.elapsed())
    ));
    if options.keep {
        gateway.restart()?;
        explain(&world, &gateway)?;
        gateway.keep();
        world.keep();
    }
    Ok(())
}

fn explain(world: &World, gateway: &Gateway<'_>) -> Result<()> {
    let binary = world.binary()?;
    let run_directory = gateway.run_directory();
    println!("\nIt runs on. As a client that knows nothing of the gateway:");
    show::typed(&format!(
        "nsenter --net={} env PGPASSWORD=alice-password psql -h {TARGET_V4} -U alice shop",
        world.client.path().display()
    ));
    println!("As the one who approves:");
    let run_directory = run_directory.display();
    show::typed(&format!(
        "{binary} approvals list --run-dir {run_directory}"
    ));
    println!("To end it:");
    show::typed("cargo xtask demo --stop");
    Ok(())
}

struct Demo<'a, 'w> {
    world: &'w World,
    gateway: &'a mut Gateway<'w>,
}

/// A client of the demo, and the rows that are its own to delete.
struct Client {
    from: From,
    name: &'static str,
    approved_id: u32,
    cancelled_id: u32,
}

const CLIENTS: [Client; 2] = [
    Client {
        from: From::Client,
        name: "a client behind the gateway",
        approved_id: 5,
        cancelled_id: 3,
    },
    Client {
        from: From::Local,
        name: "a local process on the gateway host",
        approved_id: 6,
        cancelled_id: 4,
    },
];

impl Demo<'_, '_> {
    fn show(&mut self) -> Result<()> {
        for client in &CLIENTS {
            self.masks(client)?;
            self.refuses(client)?;
            self.holds_and_releases(client)?;
            self.holds_and_forgets(client)?;
        }
        self.records()?;
        self.dies()?;
        self.finds_a_forgery()
    }

    fn masks(&self, client: &Client) -> Result<()> {
        show::heading(&format!("{}: masked rows", client.name));
        let sql = "SELECT id, name, email, ssn, card FROM customers ORDER BY id LIMIT 3";
        let rows = self.types(client, sql)?.success()?;
        show::output(&rows);
        let postgres = &self.world.postgres;
        for hidden in ["email", "ssn", "card"] {
            for value in postgres
                .directly(&format!("SELECT {hidden} FROM customers"))?
                .lines()
            {
                ensure!(!rows.contains(value), "psql saw {hidden} {value}");
            }
        }
        let names = postgres.directly("SELECT name FROM customers ORDER BY id LIMIT 3")?;
        for name in names.lines() {
            ensure!(rows.contains(name), "psql did not see the name {name}");
        }
        show::proved("no address, social security or card number reached psql; the names did");
        Ok(())
    }

    fn refuses(&self, client: &Client) -> Result<()> {
        show::heading(&format!("{}: a refused DROP TABLE", client.name));
        let error = self.types(client, "DROP TABLE orders")?.failure()?;
        show::output(&error);
        ensure!(
            error.contains("no-drop"),
            "the error does not name the rule"
        );
        let table = self.at_the_target("SELECT to_regclass('public.orders')")?;
        ensure!(table == "orders", "the table is gone");
        ensure!(
            !self.world.postgres.has_seen("DROP TABLE orders")?,
            "the target saw the statement"
        );
        show::proved("the table is still there, and the target never saw the statement");
        Ok(())
    }

    fn holds_and_releases(&self, client: &Client) -> Result<()> {
        show::heading(&format!("{}: a DELETE that somebody approves", client.name));
        let id = client.approved_id;
        let sql = format!("DELETE FROM customers WHERE id = {id}");
        show::typed(&self.world.psql(client.from).command_line(&sql));
        let psql = self.world.psql(client.from).start(&sql)?;
        let request = self.gateway.held_request()?.to_string();
        ensure!(
            !self.world.postgres.has_seen(&sql)?,
            "the target saw the statement before anybody approved it"
        );
        show::proved("psql waits, and the target has not seen the statement");
        self.operator(&["approvals", "show", &request])?;
        self.operator(&[
            "approvals",
            "approve",
            &request,
            "--reason",
            "the customer asked for it",
        ])?;
        let finished = psql.wait(Duration::from_secs(10))?;
        show::output(&finished.stderr);
        let answer = finished.success()?;
        show::output(&answer);
        ensure!(answer.trim() == "DELETE 1", "the DELETE did not complete");
        ensure!(self.customers(id)? == "0", "the row is still there");
        show::proved("approved in a second process, the same statement went on and completed");
        Ok(())
    }

    fn holds_and_forgets(&self, client: &Client) -> Result<()> {
        show::heading(&format!("{}: a DELETE that Ctrl-C cancels", client.name));
        let id = client.cancelled_id;
        let sql = format!("DELETE FROM customers WHERE id = {id}");
        show::typed(&self.world.psql(client.from).command_line(&sql));
        let psql = self.world.psql(client.from).start(&sql)?;
        let request = self.gateway.held_request()?.to_string();
        show::typed("^C");
        psql.signal(Signal::SIGINT)?;
        let error = psql.wait(Duration::from_secs(10))?.failure()?;
        show::output(&error);
        let late = self
            .gateway
            .cli(&["approvals", "approve", &request])?
            .failure()?;
        show::typed(&format!("interceptor approvals approve {request}"));
        show::output(&late);
        ensure!(self.customers(id)? == "1", "the row is gone");
        ensure!(
            !self.world.postgres.has_seen(&sql)?,
            "the target saw the statement"
        );
        show::proved(
            "the row is still there, the target never saw the statement, and an approval comes too late",
        );
        Ok(())
    }

    fn records(&self) -> Result<()> {
        show::heading("The log");
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

    fn dies(&mut self) -> Result<()> {
        show::heading("kill -9 of the gateway");
        self.gateway.kill()?;
        show::typed("kill -9 $(pidof interceptor)");
        let connections = self.connections()?;
        for client in &CLIENTS {
            let finished = self.types(client, "SELECT 1")?;
            let elapsed = finished.elapsed;
            show::output(&finished.failure()?);
            ensure!(
                elapsed < REFUSAL_LIMIT,
                "{} waited {elapsed:?} for its refusal",
                client.name
            );
            let time = show::seconds(elapsed);
            show::proved(&format!("{} was refused after {time}", client.name));
        }
        ensure!(
            self.connections()? == connections,
            "a connection reached the target past the dead gateway"
        );
        show::proved("nothing reached the target");
        Ok(())
    }

    fn finds_a_forgery(&self) -> Result<()> {
        show::heading("A forged log");
        let log = self.gateway.state_directory().join("audit");
        show::typed("interceptor audit verify --dir <the log of the killed gateway>");
        show::output(&self.gateway.audit_in(&log, &["verify"])?.success()?);
        let copy = self.world.directory().join("forged");
        tamper::copy(&log, &copy)?;
        tamper::forge(&copy, "DROP TABLE", "LOCK TABLE")?;
        show::typed(
            "interceptor audit verify --dir <a copy where DROP TABLE now reads LOCK TABLE>",
        );
        self.expect_tampering(&copy)
            .context("the forged copy was not found out")?;
        show::proved(
            "the kill lost nothing from the log, and the forged record is found and named",
        );
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

    /// What a user types, and what comes back.
    fn types(&self, client: &Client, sql: &str) -> Result<interceptor_tests::Finished> {
        let psql = self.world.psql(client.from);
        show::typed(&psql.command_line(sql));
        psql.run(sql)
    }

    /// What the operator types in a second process, and what comes back.
    fn operator(&self, arguments: &[&str]) -> Result<()> {
        show::typed(&format!("interceptor {}", arguments.join(" ")));
        show::output(&self.gateway.cli(arguments)?.success()?);
        Ok(())
    }

    fn customers(&self, id: u32) -> Result<String> {
        self.at_the_target(&format!("SELECT count(*) FROM customers WHERE id = {id}"))
    }

    fn at_the_target(&self, sql: &str) -> Result<String> {
        self.world.postgres.directly(sql)
    }

    fn connections(&self) -> Result<usize> {
        let log = self.world.postgres.network_log()?;
        Ok(log.matches("connection received").count())
    }
}
