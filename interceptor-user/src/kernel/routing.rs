//! Rules and routes that deliver marked packets to this host.
//!
//! Two marks, each with rules that name the incoming device: packets of this host look like `iif lo`
//! and carry the local mark, packets of others carry the transit mark and their device. With one
//! mark, reverse path filtering with `src_valid_mark=1` would look the mark up too and drop
//! everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use interceptor_common::{CONFIG_PRESERVES_CLIENTS, Config};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Deserializer;

use super::KernelError;
use super::device::{Device, Framing};
use super::tool::Tool;

const FAMILIES: [&str; 2] = ["-4", "-6"];

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Rule {
    priority: u32,
    #[serde(default)]
    fwmark: String,
    #[serde(default)]
    fwmask: String,
    #[serde(default)]
    iif: String,
    #[serde(default)]
    table: String,
}

impl Rule {
    fn arguments(&self, verb: &str) -> String {
        let Rule {
            priority,
            fwmark,
            fwmask,
            iif,
            table,
        } = self;
        format!(
            "rule {verb} priority {priority} fwmark {fwmark}/{fwmask} iif {iif} lookup {table}\n"
        )
    }
}

#[derive(Deserialize)]
struct Route {
    dst: String,
    prefsrc: Option<IpAddr>,
}

/// Sets rules and routes; existing ones that are right stay, so that nothing is interrupted, and the
/// kernel has nothing to announce where nothing changed. Gives the networks that no route leads to.
pub(super) fn set(
    config: &Config,
    devices: &[Device],
    networks: &BTreeSet<IpNet>,
) -> Result<BTreeSet<IpNet>, KernelError> {
    let wanted = wanted_rules(config, devices);
    let mut unrouted = BTreeSet::new();
    for family in families() {
        if family == "-4" || lo_has_ipv6() {
            unrouted.append(&mut set_routes(family, config, networks)?);
        }
        let present: BTreeSet<Rule> = rules(family, config)?.into_iter().collect();
        let added = wanted
            .difference(&present)
            .map(|rule| rule.arguments("add"));
        let removed = present
            .difference(&wanted)
            .map(|rule| rule.arguments("del"));
        batch(family, &added.chain(removed).collect::<String>())?;
    }
    Ok(unrouted)
}

/// How the rules and routes differ from what [`set`] would have made of them.
pub(super) fn drift(
    config: &Config,
    devices: &[Device],
    networks: &BTreeSet<IpNet>,
) -> Result<Vec<String>, KernelError> {
    let wanted = wanted_rules(config, devices);
    let mut drift = Vec::new();
    for family in families() {
        let present: BTreeSet<Rule> = rules(family, config)?.into_iter().collect();
        for rule in wanted.difference(&present) {
            let line = rule.arguments("");
            drift.push(format!("ip {family} lacks {}", line.trim_end()));
        }
        let routes = routes(family, config)?;
        let is_family = |network: &&IpNet| matches!(network, IpNet::V4(_)) == (family == "-4");
        let missing: Vec<&IpNet> = networks
            .iter()
            .filter(is_family)
            .filter(|network| !routes.contains_key(network))
            .collect();
        if let Some(first) = missing.first() {
            drift.push(format!(
                "ip {family} lacks {} local routes in table {}, the first to {first}",
                missing.len(),
                config.route_table
            ));
        }
    }
    Ok(drift)
}

/// Removes every rule and route of ours that is there.
pub(super) fn remove(config: &Config) -> Result<(), KernelError> {
    for family in families() {
        let rules = rules(family, config)?;
        batch(
            family,
            &rules
                .iter()
                .map(|rule| rule.arguments("del"))
                .collect::<String>(),
        )?;
        // It fails where the table does not exist, which is what is wanted.
        Tool::Ip.output(
            &[
                family,
                "route",
                "flush",
                "table",
                &config.route_table.to_string(),
            ],
            "",
        )?;
    }
    Ok(())
}

/// How many of our rules are there, of both families.
pub(super) fn count_rules(config: &Config) -> Result<usize, KernelError> {
    families()
        .map(|family| rules(family, config).map(|rules| rules.len()))
        .sum()
}

/// Without IPv6 in the kernel, `ip -6` fails.
fn families() -> impl Iterator<Item = &'static str> {
    let has_ipv6 = has_ipv6();
    FAMILIES
        .into_iter()
        .filter(move |family| has_ipv6 || *family == "-4")
}

pub(super) fn has_ipv6() -> bool {
    Path::new("/proc/self/net/if_inet6").exists()
}

/// Where IPv6 is off, `lo` takes no routes, and no packet needs them.
fn lo_has_ipv6() -> bool {
    let setting = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
    std::fs::read_to_string(setting).is_ok_and(|value| value.trim() == "0")
}

fn wanted_rules(config: &Config, devices: &[Device]) -> BTreeSet<Rule> {
    let rule = |mark: u32, device: &Device| Rule {
        priority: config.rule_priority,
        fwmark: format!("{mark:#x}"),
        fwmask: format!("{:#x}", config.mark_mask),
        iif: device.name.clone(),
        table: config.route_table.to_string(),
    };
    devices
        .iter()
        .filter(|device| !device.is_member && device.has_plain_name())
        .map(|device| match device.framing {
            Framing::Loopback => rule(config.mark_local, device),
            Framing::Ether | Framing::Ip => rule(config.mark_transit, device),
        })
        .collect()
}

fn rules(family: &str, config: &Config) -> Result<Vec<Rule>, KernelError> {
    let output = Tool::Ip.run(&[family, "-json", "rule", "show"], "")?;
    let rules: Vec<Rule> = parse("ip -json rule show", &output)?;
    let table = config.route_table.to_string();
    Ok(rules
        .into_iter()
        .filter(|rule| rule.table == table && rule.priority == config.rule_priority)
        .collect())
}

/// A route for each target network, with the source address that a packet to it would have without
/// the gateway: left to itself the kernel would take the target's own address. Gives the networks
/// that have no such address, because nothing leads to them.
fn set_routes(
    family: &str,
    config: &Config,
    networks: &BTreeSet<IpNet>,
) -> Result<BTreeSet<IpNet>, KernelError> {
    let is_family = |network: &&IpNet| matches!(network, IpNet::V4(_)) == (family == "-4");
    let wanted: BTreeSet<IpNet> = networks.iter().filter(is_family).copied().collect();
    let sources = sources(family, &wanted)?;
    let present = routes(family, config)?;
    let table = config.route_table;
    let mut lines = String::new();
    for network in &wanted {
        let source = sources.get(network);
        if present
            .get(network)
            .is_some_and(|found| found.as_ref() == source)
        {
            continue;
        }
        let source = source
            .map(|source| format!(" src {source}"))
            .unwrap_or_default();
        lines += &format!("route replace local {network} dev lo table {table}{source}\n");
    }
    // Answers to clients' own addresses, which ingress has given to the proxy's connections.
    let any = if family == "-4" { "0.0.0.0/0" } else { "::/0" };
    let takes_answers = config.flags & CONFIG_PRESERVES_CLIENTS != 0;
    let is_any = |network: &IpNet| network.prefix_len() == 0;
    if takes_answers && !wanted.iter().chain(present.keys()).any(is_any) {
        lines += &format!("route add local {any} dev lo table {table}\n");
    }
    let is_kept = |network: &IpNet| wanted.contains(network) || takes_answers && is_any(network);
    for stale in present.keys().filter(|network| !is_kept(network)) {
        lines += &format!("route del local {stale} dev lo table {table}\n");
    }
    batch(family, &lines)?;
    let is_unrouted = |network: &IpNet| !sources.contains_key(network);
    Ok(wanted.into_iter().filter(is_unrouted).collect())
}

/// The source address for each network that can be reached.
fn sources(
    family: &str,
    networks: &BTreeSet<IpNet>,
) -> Result<BTreeMap<IpNet, IpAddr>, KernelError> {
    // The first host of a network: the network's own address can be a broadcast address.
    let probes: BTreeMap<IpAddr, IpNet> = networks
        .iter()
        .filter_map(|network| Some((network.hosts().next()?, *network)))
        .collect();
    let questions: String = probes
        .keys()
        .map(|address| format!("route get {address}\n"))
        .collect();
    // Unreachable ones have no answer, and -force goes on after them.
    let output = Tool::Ip.output(&[family, "-json", "-force", "-batch", "-"], &questions)?;
    let answers = Deserializer::from_slice(&output.stdout).into_iter::<Vec<Route>>();
    Ok(answers
        .flatten()
        .flatten()
        .filter_map(|route| Some((*probes.get(&route.dst.parse().ok()?)?, route.prefsrc?)))
        .collect())
}

/// The routes that are there, with their source addresses.
fn routes(family: &str, config: &Config) -> Result<BTreeMap<IpNet, Option<IpAddr>>, KernelError> {
    let table = config.route_table.to_string();
    let output = Tool::Ip.output(&[family, "-json", "route", "show", "table", &table], "")?;
    if !output.status.success() {
        return Ok(BTreeMap::new()); // The table does not exist yet.
    }
    let routes: Vec<Route> = parse("ip -json route show", &output.stdout)?;
    let any = if family == "-4" { "0.0.0.0/0" } else { "::/0" };
    Ok(routes
        .iter()
        .filter_map(|route| {
            let text = if route.dst == "default" {
                any
            } else {
                &route.dst
            };
            let network = text
                .parse::<IpNet>()
                .ok()
                .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
            Some((network, route.prefsrc))
        })
        .collect())
}

fn batch(family: &str, lines: &str) -> Result<(), KernelError> {
    if lines.is_empty() {
        return Ok(());
    }
    Tool::Ip.run(&[family, "-batch", "-"], lines).map(drop)
}

fn parse<T: for<'de> Deserialize<'de>>(command: &str, output: &[u8]) -> Result<T, KernelError> {
    serde_json::from_slice(output).map_err(|error| KernelError::ToolFailed {
        command: command.into(),
        message: error.to_string(),
    })
}
