//! The nft table that holds without eBPF: a target-bound packet that is not the proxy's is rejected.
//!
//! It is set together with the table of [`frames`](super::frames), in one transaction.
//!
//! It is also what tells a routed client that the gateway is down: ingress leaves its packets alone
//! then, and the forward chain answers with a reset.

use std::collections::BTreeSet;

use interceptor_common::Config;
use ipnet::IpNet;

use super::KernelError;
use super::cgroup::Cgroup;
use super::device::Device;
use super::frames;
use super::ports::PortRange;
use super::target::Targets;
use super::tool::Tool;

pub(super) const TABLE: &str = "inet interceptor";

/// Ports that are listed one by one.
const PORTS_AS_BITS_MAX: usize = 4096;

/// Replaces both tables in one transaction. Whether the one for raw frames is among them: a kernel
/// that cannot have it gets the other alone.
pub(super) fn set(
    config: &Config,
    cgroup: &Cgroup,
    targets: &Targets,
    devices: &[Device],
) -> Result<bool, KernelError> {
    let backstop = ruleset(config, cgroup.nft_match()?, targets);
    let both = backstop.clone() + &frames_ruleset(targets, devices);
    match Tool::Nft.run(&["-f", "-"], &both) {
        Ok(_) => Ok(true),
        Err(error) if has_frames()? => Err(error),
        Err(_) => Tool::Nft.run(&["-f", "-"], &backstop).map(|_| false),
    }
}

/// Replaces the table for raw frames, which alone depends on the devices.
pub(super) fn set_frames(targets: &Targets, devices: &[Device]) -> Result<(), KernelError> {
    Tool::Nft
        .run(&["-f", "-"], &frames_ruleset(targets, devices))
        .map(drop)
}

fn frames_ruleset(targets: &Targets, devices: &[Device]) -> String {
    let elements = targets.outermost.iter();
    frames::ruleset(
        devices,
        elements.map(|(network, ports)| (network, ports.first..=ports.last)),
    )
}

/// Whether the kernel can have the table for raw frames.
fn has_frames() -> Result<bool, KernelError> {
    let probe = Tool::Nft.output(&["--check", "-f", "-"], frames::PROBE)?;
    Ok(probe.status.success())
}

/// Removes the tables, if they are there.
pub(super) fn remove() -> Result<(), KernelError> {
    Tool::Nft.run(&["-f", "-"], &removal()).map(drop)?;
    if has_frames()? {
        Tool::Nft.run(&["-f", "-"], &frames::removal()).map(drop)?;
    }
    Ok(())
}

/// Declared first, so that deleting it does not fail.
fn removal() -> String {
    format!("table {TABLE} {{}}\ndelete table {TABLE}\n")
}

/// Whether the backstop is there, and whether the table for raw frames is.
pub(super) fn are_present() -> Result<(bool, bool), KernelError> {
    let output = Tool::Nft.run(&["list", "tables"], "")?;
    let text = String::from_utf8_lossy(&output);
    let has = |table: &str| {
        text.lines()
            .any(|line| line.trim() == format!("table {table}"))
    };
    Ok((has(TABLE), has(frames::TABLE)))
}

/// A table as nft prints it, without counters; empty if it is not there.
pub(super) fn listing(table: &str) -> Result<String, KernelError> {
    let mut arguments = vec!["-s", "list", "table"];
    arguments.extend(table.split(' '));
    // It fails where there is no such table.
    let output = Tool::Nft.output(&arguments, "")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(super) fn is_present() -> Result<bool, KernelError> {
    are_present().map(|(backstop, _)| backstop)
}

fn ruleset(config: &Config, (level, cgroup): (usize, String), targets: &Targets) -> String {
    let Config {
        mark_local,
        mark_mask,
        listen_port,
        ..
    } = config;
    let (v4, v6): (BTreeSet<_>, BTreeSet<_>) = targets
        .outermost
        .iter()
        .partition(|(network, _)| matches!(network, IpNet::V4(_)));
    let (v4, v6) = (elements(&v4), elements(&v6));
    let ports = port_set(&targets.port_ranges());
    // A packet that names further stops has the target among those, and another address in front: what
    // asks the network for a way of its own does not go.
    // In `leave`, a SYN with ACK is the proxy's answer to a client that has the address and port of a
    // target: what sends it has no cgroup, and it opens nothing. The resets and empty
    // acknowledgements are those that the kernel sends for a closed connection of the proxy, without
    // its socket: 5 and 8 words of TCP header, and nothing else. The eBPF guard knows which
    // connections were the proxy's. In `forward`, resets are those of connections that were severed
    // in another namespace; the guard lets no others in or out.
    format!(
        r#"{}table {TABLE} {{
	set targets4 {{
		type ipv4_addr . inet_service
		flags interval
		{v4}
	}}
	set targets6 {{
		type ipv6_addr . inet_service
		flags interval
		{v6}
	}}
	set target_ports {{
		type inet_service
		{ports}
	}}
	chain source_routes4 {{
		ip option lsrr exists drop
		ip option ssrr exists drop
	}}
	chain refuse {{
		meta l4proto tcp reject with tcp reset
		reject with icmpx type admin-prohibited
	}}
	chain leave {{
		oifname "lo" meta mark & {mark_mask:#x} == {mark_local:#x} accept
		socket cgroupv2 level {level} "{cgroup}" accept
		tcp flags & (syn | ack) == (syn | ack) accept
		tcp flags & (syn | fin | rst) == rst accept
		meta nfproto ipv4 tcp flags == ack tcp doff 5 meta length 40 accept
		meta nfproto ipv4 tcp flags == ack tcp doff 8 meta length 52 accept
		meta nfproto ipv6 tcp flags == ack tcp doff 5 meta length 60 accept
		meta nfproto ipv6 tcp flags == ack tcp doff 8 meta length 72 accept
		goto refuse
	}}
	chain output {{
		type filter hook output priority filter; policy accept;
		th dport != @target_ports accept
		ip hdrlength > 5 jump source_routes4
		ip6 nexthdr != {{ tcp, udp, icmpv6 }} exthdr rt exists drop
		meta l4proto {{ tcp, udp }} ip daddr . th dport @targets4 goto leave
		meta l4proto {{ tcp, udp }} ip6 daddr . th dport @targets6 goto leave
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		th dport != @target_ports accept
		ip hdrlength > 5 jump source_routes4
		ip6 nexthdr != {{ tcp, udp, icmpv6 }} exthdr rt exists drop
		tcp flags & (syn | fin | rst) == rst accept
		meta l4proto {{ tcp, udp }} ip daddr . th dport @targets4 goto refuse
		meta l4proto {{ tcp, udp }} ip6 daddr . th dport @targets6 goto refuse
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		tcp dport {listen_port} tcp flags & (syn | ack) == syn reject with tcp reset
	}}
}}
"#,
        removal()
    )
}

/// The ports of all targets: most packets are told apart by them alone. One by one where they are not
/// too many, for the kernel then has a bit for each port; ranges are a tree.
fn port_set(ranges: &[PortRange]) -> String {
    let count: usize = ranges
        .iter()
        .map(|range| usize::from(range.last - range.first) + 1)
        .sum();
    let (flags, list): (_, Vec<String>) = if count <= PORTS_AS_BITS_MAX {
        let ports = ranges.iter().flat_map(|range| range.first..=range.last);
        ("", ports.map(|port| port.to_string()).collect())
    } else {
        let ranges = ranges.iter().map(PortRange::to_string);
        ("flags interval\n\t\t", ranges.collect())
    };
    if list.is_empty() {
        return String::new();
    }
    format!("{flags}elements = {{ {} }}", list.join(", "))
}

fn elements(targets: &BTreeSet<&(IpNet, PortRange)>) -> String {
    if targets.is_empty() {
        return String::new();
    }
    let list: Vec<String> = targets
        .iter()
        .map(|(network, ports)| format!("{network} . {ports}"))
        .collect();
    format!("elements = {{ {} }}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::TargetRoute;

    #[test]
    fn a_set_without_elements_has_no_elements_line() {
        let route = TargetRoute {
            network: "10.0.0.0/8".parse().unwrap(),
            ports: 5432..=5432,
            target: 0,
            preserve_client_address: false,
        };
        let targets = Targets::compile(&[route]).unwrap();
        let config = bytemuck::Zeroable::zeroed();
        let text = ruleset(&config, (1, "unified/x".into()), &targets);
        assert_eq!(text.matches("elements = ").count(), 2);
        assert!(text.contains("elements = { 5432 }"));
        assert!(text.contains("elements = { 10.0.0.0/8 . 5432 }"));
    }
}
