//! `cargo xtask demo`: the gateway between an unmodified psql and a real PostgreSQL.
//!
//! Each step prints what was typed and what came back, and checks its claim where it matters: at
//! the server itself. The first claim that does not hold ends the demo with a failure.

mod ending;
mod steps;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use interceptor_tests::world::{self, TARGET_V4};
use interceptor_tests::{From, Gateway, World, interrupt, psql};

use crate::{cargo, root, setup, show};

/// The demo's world.
const NAME: &str = "demo";

const POLICIES: &str = "policies/demo";

/// How to show it.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave everything running at the end, and say how to use it
    #[arg(long, conflicts_with = "stop")]
    keep: bool,
    /// End what --keep, or a demo that was killed, left running
    #[arg(long)]
    stop: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.stop {
        let ended = world::stop(NAME)?;
        world::remove_cache()?;
        println!(
            "{}",
            if ended {
                "stopped"
            } else {
                "nothing was running"
            }
        );
        return nothing_is_left();
    }
    let start = Instant::now();
    setup::run()?;
    show::progress("building the gateway");
    // Optimised is only what the bench measures. This build serves the tests as well.
    let binary = cargo::build_gateway(cargo::Profile::Tests)?;
    let shown = World::new(NAME).and_then(|world| show_in(world, &binary, start, options.keep));
    if options.keep && shown.is_ok() {
        return Ok(());
    }
    world::remove_cache()?;
    shown?;
    nothing_is_left()?;
    println!("Nothing of it is left: no process, namespace, cgroup, eBPF pin or file.");
    Ok(())
}

fn nothing_is_left() -> Result<()> {
    let traces = world::traces(NAME)?;
    ensure!(traces.is_empty(), "this is left: {}", traces.join(", "));
    Ok(())
}

/// Shows everything in `world`, and ends it unless it is to be kept.
fn show_in(mut world: World, binary: &Path, start: Instant, keep: bool) -> Result<()> {
    world.use_binary(binary);
    introduce(&world)?;
    let mut gateway = Gateway::start(&world, &root()?.join(POLICIES))?;
    show::proved("the gateway is in the way; psql and PostgreSQL are as their packages made them");
    let shown = Demo {
        world: &world,
        gateway: &mut gateway,
        steps: 0,
    }
    .show();
    if let Err(error) = shown {
        // Whoever pressed Ctrl-C knows why it ended.
        interrupt::check()?;
        let log = std::fs::read_to_string(gateway.log()).unwrap_or_default();
        return Err(error.context(format!("the demo failed; the gateway logged\n{log}")));
    }
    let elapsed = show::duration(start.elapsed());
    show::heading(&format!("Every claim held ({elapsed})"));
    if keep {
        tell_how_to_use(&world, &gateway)?;
        gateway.keep();
        world.keep();
    }
    Ok(())
}

fn introduce(world: &World) -> Result<()> {
    let version = world.postgres.directly("SHOW server_version")?;
    show::heading("Three network namespaces of this machine, and nothing else of it");
    show::output(&format!(
        "client 10.77.1.2 ───── 10.77.1.1 gateway 10.77.2.1 ───── {TARGET_V4} target: PostgreSQL {version}"
    ));
    show::typed(&format!(
        "interceptor run --policies {POLICIES} --cgroup {}",
        world.cgroup().display()
    ));
    Ok(())
}

fn tell_how_to_use(world: &World, gateway: &Gateway<'_>) -> Result<()> {
    let psql = format!(
        "env PGPASSWORD=alice-password psql -h {TARGET_V4} -U alice {}",
        interceptor_tests::postgres::DATABASE
    );
    println!("It runs on. As a client that knows nothing of the gateway:");
    show::typed(&format!(
        "nsenter --net={} {psql}",
        world.client.path().display()
    ));
    println!("As a local process on the gateway host:");
    show::typed(&format!(
        "nsenter --net={} sh -c 'echo $$ > {}; exec {psql}'",
        world.gateway.path().display(),
        world.local_clients().display()
    ));
    println!("As the one who approves:");
    show::typed(&format!(
        "{} approvals list --run-dir {}",
        world.binary()?,
        gateway.run_directory().display()
    ));
    println!("To end it:");
    show::typed("cargo xtask demo --stop");
    Ok(())
}

struct Demo<'a, 'w> {
    world: &'w World,
    gateway: &'a mut Gateway<'w>,
    /// Headings up to now.
    steps: u32,
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
        self.would_have_decided()?;
        self.dies()?;
        self.comes_back()?;
        self.finds_a_forgery()
    }

    fn heading(&mut self, text: &str) {
        self.steps = self.steps.saturating_add(1);
        show::heading(&format!("{}. {text}", self.steps));
    }

    /// What a user types, and what comes back.
    fn types(&self, client: &Client, sql: &str) -> Result<interceptor_tests::Finished> {
        let psql = self.world.psql(client.from);
        show::typed(&psql.command_line(sql));
        psql.run(sql)
    }

    /// What the operator types in a second process, and what comes back.
    fn operator(&self, arguments: &[&str]) -> Result<String> {
        let quoted: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
        show::typed(&format!("interceptor {}", quoted.join(" ")));
        let said = self.gateway.cli(arguments)?.success()?;
        show::output(&said);
        Ok(said)
    }

    /// What the target's administrator types on the target itself, and what comes back.
    fn administrator(&self, sql: &str) -> Result<()> {
        show::typed_at("target", &psql::at_the_target(sql));
        show::output(&self.world.postgres.directly_aligned(sql)?);
        Ok(())
    }

    fn at_the_target(&self, sql: &str) -> Result<String> {
        self.world.postgres.directly(sql)
    }
}

/// As a shell needs it.
fn quoted(argument: &str) -> String {
    if argument.contains(' ') {
        format!("\"{argument}\"")
    } else {
        argument.to_owned()
    }
}
