//! The network devices of this namespace, as far as the guard needs to know them.

use std::collections::BTreeMap;

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

/// The devices of this network namespace, as far as they were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Devices {
    /// Those that the programs can read, by index.
    pub(super) known: Vec<Device>,
    /// Those that they cannot: name and link type.
    pub(super) unknown: BTreeMap<String, String>,
}

impl Devices {
    /// An error where a named device is missing, or one cannot be guarded.
    pub(super) fn check(&self, names: Option<&[String]>) -> Result<(), KernelError> {
        if let Some((name, link_type)) = self.unknown.first_key_value() {
            return Err(KernelError::UnknownLinkType {
                name: name.clone(),
                link_type: link_type.clone(),
            });
        }
        let is_there = |name: &String| self.known.iter().any(|device| device.name == *name);
        match names.into_iter().flatten().find(|name| !is_there(name)) {
            Some(name) => Err(KernelError::NoDevice { name: name.clone() }),
            None => Ok(()),
        }
    }
}

impl Device {
    /// Whether `ip` and `nft` can be told of it: the kernel allows quotes and signs in a name that
    /// would end a word in their input.
    pub(super) fn has_plain_name(&self) -> bool {
        self.name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-:@+=,~".contains(&byte))
    }
}

/// The loopback device and the named devices; without names, every device. A named one that is not
/// there is left out.
pub(super) fn list(names: Option<&[String]>) -> Result<Devices, KernelError> {
    let output = Tool::Ip.run(&["-json", "-details", "link", "show"], "")?;
    let links: Vec<Link> =
        serde_json::from_slice(&output).map_err(|error| KernelError::ToolFailed {
            command: "ip -json -details link show".into(),
            message: error.to_string(),
        })?;
    let wanted = |link: &Link| {
        link.link_type == "loopback" || names.is_none_or(|names| names.contains(&link.ifname))
    };
    let mut devices = Devices::default();
    for link in links.into_iter().filter(wanted) {
        match framing(&link.link_type) {
            Some(framing) => devices.known.push(device(link, framing)),
            None => {
                devices.unknown.insert(link.ifname, link.link_type);
            }
        }
    }
    devices.known.sort_by_key(|device| device.index);
    Ok(devices)
}

fn framing(link_type: &str) -> Option<Framing> {
    match link_type {
        "ether" => Some(Framing::Ether),
        "loopback" => Some(Framing::Loopback),
        "none" | "ppp" | "ipip" | "sit" | "tunnel6" | "gre" | "gre6" => Some(Framing::Ip),
        _ => None,
    }
}

fn device(link: Link, framing: Framing) -> Device {
    let upper = link.linkinfo.and_then(|detail| detail.info_slave_kind);
    Device {
        name: link.ifname,
        index: link.ifindex,
        framing,
        // A VRF's member keeps its own packets, so only these.
        is_member: upper.is_some_and(|kind| ["bridge", "bond", "team"].contains(&kind.as_str())),
    }
}
