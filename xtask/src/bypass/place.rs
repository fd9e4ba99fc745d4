//! The ground on which attempts are made: the world, and what rows need beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use interceptor_tests::netns::Namespace;
use interceptor_tests::world::From;
use interceptor_tests::{World, process};
use serde_json::{Map, Value, json};

use super::rows::{Live, Place, Row, Step, Who};

/// Namespaces beside the world's.
const CONTAINER: &str = "icpt-bypass-container";
const LATE: &str = "icpt-bypass-late";
/// The port of the proxy.
const PROXY_PORT: u16 = 15001;
/// How long a command of the operator's may take.
const STEP_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Ground<'w> {
    pub(crate) world: &'w World,
    program: PathBuf,
    container: Extra,
    late: Extra,
}

/// A namespace that goes with its handle.
struct Extra(Namespace);

impl Extra {
    fn create(name: &str) -> Result<Self> {
        delete(name)?;
        Namespace::create(name).map(Self)
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        if let Err(error) = delete(self.0.name()) {
            eprintln!("clean-up of {} failed: {error:#}", self.0.name());
        }
    }
}

fn delete(name: &str) -> Result<()> {
    if !Path::new("/run/netns").join(name).exists() {
        return Ok(());
    }
    let mut command = Command::new("ip");
    command.args(["netns", "delete", name]);
    process::run(command, STEP_LIMIT)?.success().map(drop)
}

impl<'w> Ground<'w> {
    pub(crate) fn build(world: &'w World, program: &Path) -> Result<Self> {
        let ground = Self {
            world,
            program: copy_for_everybody(world, program)?,
            container: Extra::create(CONTAINER)?,
            late: Extra::create(LATE)?,
        };
        ground.connect("container0", &ground.container, 3)?;
        // Worst cases: a target that follows source routes, and tunnels that the operator made.
        for key in ["all", "eth0"] {
            world
                .target
                .sysctl(&format!("ipv4/conf/{key}/accept_source_route"), "1")?;
            world
                .target
                .sysctl(&format!("ipv6/conf/{key}/seg6_enabled"), "1")?;
        }
        for key in ["all", "client0"] {
            world
                .gateway
                .sysctl(&format!("ipv4/conf/{key}/accept_source_route"), "1")?;
        }
        world.target.ip("address add fd77:2::3/64 dev eth0 nodad")?;
        let link = world.directory().join("another-name");
        std::os::unix::fs::symlink(ground.unix_socket(), link)?;
        ground.tunnels()?;
        ground.resolve()?;
        Ok(ground)
    }

    fn connect(&self, device: &str, to: &Extra, net: u8) -> Result<()> {
        let name = to.0.name();
        self.world.gateway.ip(&format!(
            "link add name {device} type veth peer name eth0 netns {name}
address add 10.77.{net}.1/24 dev {device}
address add fd77:{net}::1/64 dev {device} nodad
link set {device} up"
        ))?;
        to.0.ip(&format!(
            "address add 10.77.{net}.2/24 dev eth0
address add fd77:{net}::2/64 dev eth0 nodad
link set eth0 up
route add default via 10.77.{net}.1
route add ::/0 via fd77:{net}::1"
        ))
    }

    /// A VXLAN from the client that ends on the gateway, and one that ends at the target.
    fn tunnels(&self) -> Result<()> {
        self.world.gateway.ip(
            "link add vx0 type vxlan id 7 remote 10.77.1.2 dstport 4789 dev client0
address add 10.77.9.1/24 dev vx0
link set vx0 up",
        )?;
        self.world.target.ip(
            "link add vx1 type vxlan id 8 remote 10.77.1.2 dstport 4789 dev eth0
address add 10.77.10.1/24 dev vx1
link set vx1 up",
        )?;
        self.world.client.ip(
            "link add vx0 type vxlan id 7 remote 10.77.1.1 dstport 4789 dev eth0
address add 10.77.9.2/24 dev vx0
link set vx0 up
rule add from 10.77.9.2 lookup 99
route add default via 10.77.9.1 dev vx0 table 99
link add vx1 type vxlan id 8 remote 10.77.2.3 dstport 4789 dev eth0
address add 10.77.10.2/24 dev vx1
link set vx1 up
rule add from 10.77.10.2 lookup 98
route add default via 10.77.10.1 dev vx1 table 98",
        )
    }

    /// Neighbours that answer once are known: a frame needs a hardware address.
    fn resolve(&self) -> Result<()> {
        for address in [
            interceptor_tests::world::TARGET_V4.to_string(),
            interceptor_tests::world::TARGET_V6.to_string(),
        ] {
            let (place, who) = (Place::Host, Who::Root);
            let mut parameters = json!({"target": address, "port": 9});
            self.add_base(&mut parameters, place, address.contains(':'))?;
            process::run(
                self.command(place, who, "udp-sendto", &parameters)?,
                STEP_LIMIT,
            )?
            .success()?;
        }
        Ok(())
    }

    /// The device that appears after the gateway's start.
    pub(crate) fn add_late(&self) -> Result<()> {
        self.connect("late0", &self.late, 4)
    }

    pub(crate) fn remove_late(&self) -> Result<()> {
        self.world.gateway.ip("link del late0")
    }

    /// Of the server on the gateway host.
    pub(crate) fn unix_socket(&self) -> PathBuf {
        self.world.directory().join(".s.PGSQL.7400")
    }

    /// The proxy's cgroup.
    fn proxy_cgroup(&self) -> PathBuf {
        self.world.cgroup().join("interceptor")
    }

    /// A cgroup that the gateway does not watch.
    fn outside_cgroup(&self) -> PathBuf {
        self.world.cgroup().with_file_name("icpt-bypass-outside")
    }

    /// A command of root that is no attempt, in the gateway's namespace or in another.
    pub(crate) fn root_command(
        &self,
        namespace: Option<&Path>,
        name: &str,
        parameters: &Value,
    ) -> Result<Command> {
        let mut command = match namespace {
            Some(path) => {
                let mut command = self.world.gateway_command("nsenter", None)?;
                command
                    .arg(format!("--net={}", path.display()))
                    .arg(&self.program);
                command
            }
            None => self
                .world
                .gateway_command(&self.program.to_string_lossy(), None)?,
        };
        command.arg(name).arg(parameters.to_string());
        Ok(command)
    }

    fn command(
        &self,
        place: Place,
        who: Who,
        attempt: &str,
        parameters: &Value,
    ) -> Result<Command> {
        let mut command = self.starts(place, who)?;
        command
            .arg(&self.program)
            .arg(attempt)
            .arg(parameters.to_string());
        Ok(command)
    }

    /// Whatever follows runs there, as that one.
    fn starts(&self, place: Place, who: Who) -> Result<Command> {
        let (from, namespace) = match place {
            Place::Host => (From::Local, None),
            Place::Container => (From::Local, Some(&self.container)),
            Place::Client => (From::Client, None),
            Place::Late => (From::Client, Some(&self.late)),
        };
        let privileges = privileges(who);
        let Some(namespace) = namespace else {
            let mut command = self.world.command(from, "setpriv")?;
            command.args(privileges);
            return Ok(command);
        };
        let mut command = self.world.command(from, "nsenter")?;
        command
            .arg(format!("--net={}", namespace.0.path().display()))
            .arg("setpriv")
            .args(privileges);
        Ok(command)
    }

    /// The command of a row's attempt. `pid` is the gateway's, once it runs.
    pub(crate) fn attempt(&self, row: &Row, pid: Option<u32>, go: &Path) -> Result<Command> {
        let mut parameters = json!({"port": row.port, "go": go});
        self.add_base(&mut parameters, row.place, row.ipv6)?;
        let map = object(&mut parameters)?;
        for (key, value) in &row.parameters {
            map.insert(key.clone(), value.clone());
        }
        for (parameter, pid) in row.live.iter().zip(pid.into_iter().cycle()) {
            match parameter {
                Live::Pid => map.insert("pid".into(), pid.into()),
                Live::Cgroup => map.insert("cgroup".into(), text(&self.proxy_cgroup())),
            };
        }
        self.command(row.place, row.who, row.attempt, &parameters)
    }

    /// What attempts of a place have in common.
    fn add_base(&self, parameters: &mut Value, place: Place, ipv6: bool) -> Result<()> {
        let gateway = &self.world.gateway;
        let (here, device, next, net) = match place {
            Place::Host => (gateway, "target0", (&self.world.target, "eth0"), "2"),
            Place::Container => (&self.container.0, "eth0", (gateway, "container0"), "3"),
            Place::Client => (&self.world.client, "eth0", (gateway, "client0"), "1"),
            Place::Late => (&self.late.0, "eth0", (gateway, "late0"), "4"),
        };
        let host = if place == Place::Host { 1 } else { 2 };
        let source = if ipv6 {
            format!("fd77:{net}::{host}")
        } else {
            format!("10.77.{net}.{host}")
        };
        let map = object(parameters)?;
        let mut add = |key: &str, value: Value| {
            map.entry(key.to_owned()).or_insert(value);
        };
        add(
            "target",
            if ipv6 { "fd77:2::2" } else { "10.77.2.2" }.into(),
        );
        add("source", source.into());
        add("device", device.into());
        add("from_mac", hardware(here, device)?.into());
        add("to_mac", hardware(next.0, next.1)?.into());
        add("bind", PROXY_PORT.into());
        add("path", text(&self.unix_socket()));
        add("outside", text(&self.outside_cgroup()));
        Ok(())
    }

    /// Runs a line on the gateway host.
    pub(crate) fn step(&self, step: &Step) -> Result<()> {
        let mut command = self.starts(Place::Host, step.who)?;
        command.args(["sh", "-c", step.line]);
        process::run(command, STEP_LIMIT)?
            .success()
            .with_context(|| format!("{} could not prepare the row", step.who.name()))
            .map(drop)
    }
}

fn object(value: &mut Value) -> Result<&mut Map<String, Value>> {
    value
        .as_object_mut()
        .ok_or_else(|| anyhow!("parameters are an object"))
}

fn text(path: &Path) -> Value {
    path.to_string_lossy().into()
}

/// The arguments of setpriv(1).
fn privileges(who: Who) -> Vec<String> {
    let only = |capability: &str| {
        let set = format!("-all{capability}");
        vec![
            format!("--inh-caps={set}"),
            format!("--ambient-caps={set}"),
            format!("--bounding-set={set}"),
        ]
    };
    let mut arguments = match who {
        Who::User | Who::BareRoot => only(""),
        Who::NetRaw => only(",+net_raw"),
        Who::NetAdmin => only(",+net_admin"),
        Who::Root => return vec!["--inh-caps=-all".into()],
    };
    if who != Who::BareRoot {
        arguments
            .extend(["--reuid=nobody", "--regid=nogroup", "--clear-groups"].map(str::to_owned));
    }
    arguments
}

fn hardware(namespace: &Namespace, device: &str) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(["-netns", namespace.name(), "-json", "link", "show", device]);
    let finished = process::run(command, STEP_LIMIT)?;
    // The device that comes later has no address yet; rows that need one come later, too.
    if !finished.status.success() {
        return Ok("00:00:00:00:00:00".into());
    }
    let links: Value = serde_json::from_str(&finished.stdout)?;
    links
        .pointer("/0/address")
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("{device} has no hardware address"))
}

/// Cargo's own directory may be closed to others.
fn copy_for_everybody(world: &World, program: &Path) -> Result<PathBuf> {
    let copy = world.directory().join("bypass-attempt");
    fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let directory = fs::metadata(world.directory())?.permissions().mode();
    ensure!(
        directory & 0o001 != 0,
        "{} must be open to others",
        world.directory().display()
    );
    Ok(copy)
}
