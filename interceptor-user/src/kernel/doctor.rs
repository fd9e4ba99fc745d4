//! Whether this host can run the gateway, told before it is installed.
//!
//! Owns the list of what is looked at. It changes nothing: what has to be tried is tried in a network
//! namespace and a cgroup of its own, by [`super::trial`].

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tool::Tool;
use super::{bpffs, cgroup_mount_point, check_capabilities, feature, trial};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it is.
    pub name: String,
    /// How it is.
    pub state: State,
    /// How that was found, what is done instead, or what to do.
    pub detail: String,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Available,
    /// Not there, and something else does the same.
    Fallback,
    /// Not there, and something is weaker for it.
    Weaker,
    /// Not there, and the gateway cannot run.
    Missing,
}

impl State {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            State::Available => "available",
            State::Fallback => "fallback",
            State::Weaker => "weaker",
            State::Missing => "missing",
        }
    }
}

impl Check {
    /// A thing without which the gateway cannot run.
    pub(super) fn required(name: &str, is_there: bool, detail: impl Into<String>) -> Self {
        let state = if is_there {
            State::Available
        } else {
            State::Missing
        };
        let (name, detail) = (name.to_owned(), detail.into());
        Self {
            name,
            state,
            detail,
        }
    }

    /// A thing that something else can do as well.
    pub(super) fn or_fallback(
        name: &str,
        is_there: bool,
        found: impl Into<String>,
        fallback: &str,
    ) -> Self {
        Self::otherwise(name, is_there, found, State::Fallback, fallback)
    }

    /// A thing without which something is weaker.
    pub(super) fn or_weaker(
        name: &str,
        is_there: bool,
        found: impl Into<String>,
        loss: &str,
    ) -> Self {
        Self::otherwise(name, is_there, found, State::Weaker, loss)
    }

    fn otherwise(
        name: &str,
        is_there: bool,
        found: impl Into<String>,
        state: State,
        detail: &str,
    ) -> Self {
        if is_there {
            Self::required(name, true, found)
        } else {
            let (name, detail) = (name.to_owned(), detail.to_owned());
            Self {
                name,
                state,
                detail,
            }
        }
    }
}

/// Looks at everything. A check that cannot be made counts as missing.
pub fn examine() -> Vec<Check> {
    let mut checks = vec![capabilities()];
    if checks.iter().any(|check| check.state == State::Missing) {
        return checks; // Without them nothing else can be asked.
    }
    checks.extend([cgroup(), bpf_file_system()]);
    checks.extend([
        tool(Tool::Ip, "ip"),
        tool(Tool::Nft, "nft"),
        tool(Tool::Tc, "tc"),
        tool(Tool::Ss, "ss"),
    ]);
    checks.extend([forwarding(), ipv6(), multipath(), input_chains()]);
    checks.extend(feature::checks());
    checks.extend(trial::run());
    checks
}

fn capabilities() -> Check {
    let found = check_capabilities();
    let detail = match &found {
        Ok(()) => "of this process".to_owned(),
        Err(error) => error.to_string(),
    };
    Check::required("capabilities", found.is_ok(), detail)
}

fn cgroup() -> Check {
    let found = cgroup_mount_point();
    let is_there = found.is_ok();
    let detail = match found {
        Ok(path) if path == Path::new("/sys/fs/cgroup") => "/sys/fs/cgroup, alone".to_owned(),
        Ok(path) => format!("{}, beside version 1", path.display()),
        Err(error) => error.to_string(),
    };
    Check::required("cgroup2", is_there, detail)
}

fn bpf_file_system() -> Check {
    Check::or_fallback(
        "BPF file system",
        bpffs::is_mounted(),
        "mounted at /sys/fs/bpf",
        "`interceptor run` mounts it at /sys/fs/bpf",
    )
}

fn tool(tool: Tool, name: &str) -> Check {
    let version = match tool {
        Tool::Nft => "--version",
        _ => "-Version",
    };
    match tool.output(&[version], "") {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            Check::required(name, true, text.lines().next().unwrap_or_default().trim())
        }
        Err(error) => Check::required(name, false, error.to_string()),
    }
}

fn forwarding() -> Check {
    let is_on = |path: &str| fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
    let is_there = is_on("/proc/sys/net/ipv4/ip_forward")
        && (is_on("/proc/sys/net/ipv6/conf/all/forwarding") || !has_ipv6());
    Check::or_weaker(
        "forwarding",
        is_there,
        "on",
        "off: clients on other machines are not carried; `sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`",
    )
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

fn ipv6() -> Check {
    Check::or_weaker(
        "IPv6",
        has_ipv6(),
        "/proc/sys/net/ipv6",
        "this kernel has IPv4 only",
    )
}

fn multipath() -> Check {
    let is_on = fs::read_to_string("/proc/sys/net/mptcp/enabled");
    Check {
        name: "MPTCP".into(),
        state: State::Available,
        detail: match is_on.as_deref().map(str::trim) {
            Ok("1") => "on; such clients fall back to TCP at the gateway".into(),
            _ => "off; nobody can use it".into(),
        },
    }
}

/// A host's firewall can drop what ingress assigned to the proxy: those packets pass INPUT.
fn input_chains() -> Check {
    let name = "INPUT of the host's firewall";
    let dropping = match Tool::Nft.run(&["-json", "list", "chains"], "") {
        Ok(output) => dropping_input_chains(&output),
        Err(error) => return Check::required(name, false, error.to_string()),
    };
    let loss = format!(
        "{} drop by default: accept `meta mark & 0x30000000 == 0x20000000`, or routed clients time out",
        dropping.join(", ")
    );
    Check::or_weaker(
        name,
        dropping.is_empty(),
        "no nft chain drops by default",
        &loss,
    )
}

fn dropping_input_chains(json: &[u8]) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let items = list.get("nftables").and_then(serde_json::Value::as_array);
    let text = |chain: &serde_json::Value, field: &str| {
        let value = chain.get(field).and_then(serde_json::Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    items
        .into_iter()
        .flatten()
        .filter_map(|item| item.get("chain"))
        .filter(|chain| text(chain, "hook") == "input" && text(chain, "policy") == "drop")
        .filter(|chain| ["inet", "ip", "ip6"].contains(&text(chain, "family").as_str()))
        .map(|chain| {
            ["family", "table", "name"]
                .map(|field| text(chain, field))
                .join(" ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_drop_by_default_are_found() {
        let json = br#"{"nftables": [{"metainfo": {}},
            {"chain": {"family": "inet", "table": "filter", "name": "in", "handle": 1, "hook": "input", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "out", "hook": "output", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "open", "hook": "input", "policy": "accept"}},
            {"chain": {"family": "ip", "table": "filter", "name": "plain"}}]}"#;
        assert_eq!(dropping_input_chains(json), ["inet filter in"]);
        assert!(dropping_input_chains(b"").is_empty());
    }
}
