//! The network devices of this namespace, as far as the guard needs to know them.

use serde::Deserialize;

use super::KernelError;
use super::tool::Tool;

/// How a device's frames begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// With an Ethernet header.
    Ether,
    /// With the IP header.
    Ip,
    /// With an Ethernet header, and the packets are this host's own.
    Loopback,
}

/// A device to guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) framing: Framing,
    /// A port of a bridge or a member of a bond: the upper device receives its packets.
    pub(super) is_member: bool,
}

#[derive(Deserialize)]
struct Link {
    ifindex: u32,
    ifname: String,
    link_type: String,
    linkinfo: Option<LinkDetail>,
}

#[derive(Deserialize)]
struct LinkDetail {
    info_slave_kind: Option<String>,
}

/// The loopback device and the named devices; without names, every device.
pub(super) fn list(names: Option<&[String]>) -> Result<Vec<Device>, KernelError> {
    let output = Tool::Ip.run(&["-json", "-details", "link", "show"], "")?;
    let links: Vec<Link> = serde_json::from_slice(&output).map_err(|error| KernelError::ToolFailed {
        command: "ip -json -details link show".into(),
        message: error.to_string(),
    })?;
    if let Some(name) = names.into_iter().flatten().find(|name| !links.iter().any(|link| link.ifname == **name)) {
        return Err(KernelError::NoDevice { name: name.clone() });
    }
    let wanted = |link: &Link| {
        link.link_type == "loopback" || names.is_none_or(|names| names.contains(&link.ifname))
    };
    links.into_iter().filter(wanted).map(device).collect()
}

fn device(link: Link) -> Result<Device, KernelError> {
    let framing = match link.link_type.as_str() {
        "ether" => Framing::Ether,
        "loopback" => Framing::Loopback,
        "none" | "ppp" | "ipip" | "sit" | "tunnel6" | "gre" | "gre6" => Framing::Ip,
        _ => return Err(KernelError::UnknownLinkType { name: link.ifname, link_type: link.link_type }),
    };
    let upper = link.linkinfo.and_then(|detail| detail.info_slave_kind);
    Ok(Device {
        name: link.ifname,
        index: link.ifindex,
        framing,
        // A VRF's member keeps its own packets, so only these.
        is_member: upper.is_some_and(|kind| ["bridge", "bond", "team"].contains(&kind.as_str())),
    })
}
