//! Drift: what somebody changed in the plane behind the gateway's back, and putting it right again.
//!
//! Owns the comparison of what is attached with what should be. Root can undo all of it, and this does
//! not prevent that: it sees it, says it and mends it. Each layer holds while another is being mended.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use interceptor_common::Config;
use libbpf_rs::Link;
use libbpf_rs::query::{LinkInfo, LinkTypeInfo};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::device::{self, Device};
use super::edge::Edge;
use super::link::{self, WantedLink};
use super::{
    KernelError, Plane, backstop, chain, feature, filter, frames, generation, maps, object, routing,
};

/// Something that is not as the gateway set it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Drift {
    /// What: `link connect4`, `nft table`, `ip rules`.
    pub what: String,
    /// How it differs.
    pub detail: String,
}

impl Drift {
    fn new(what: impl Into<String>, detail: impl Into<String>) -> Self {
        let (what, detail) = (what.into(), detail.into());
        Self { what, detail }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.detail)
    }
}

/// What [`Plane::repair`] found and did.
#[derive(Debug, Default)]
pub struct Repair {
    /// What was not as it should be, and is again.
    pub repaired: Vec<Drift>,
    /// What is still not as it should be, and why.
    pub left: Vec<Drift>,
}

/// An nft table as it was set: a digest of its listing, and the generation of the rules in which it was
/// last seen to be the same.
#[derive(Debug, Default)]
pub(super) struct Table {
    name: &'static str,
    digest: Option<[u8; 32]>,
    same_in: Mutex<Option<u32>>,
}

/// Both tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) backstop: Table,
    pub(super) frames: Table,
}

impl Tables {
    pub(super) fn of_now() -> Result<Self, KernelError> {
        Ok(Self {
            backstop: Table::of_now(backstop::TABLE)?,
            frames: Table::of_now(frames::TABLE)?,
        })
    }
}

impl Table {
    /// The table as it is now, just after it was set.
    pub(super) fn of_now(name: &'static str) -> Result<Self, KernelError> {
        // Asked first: what comes between is found at the next look.
        let generation = generation::current().ok();
        let listing = backstop::listing(name)?;
        Ok(Self {
            name,
            digest: Some(Sha256::digest(listing).into()),
            same_in: Mutex::new(generation),
        })
    }

    fn drift(&self) -> Result<Option<Drift>, KernelError> {
        let Some(wanted) = self.digest else {
            return Ok(None);
        };
        let mut same_in = self.same_in.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = generation::current().ok();
        if generation.is_some() && *same_in == generation {
            return Ok(None);
        }
        let listing = backstop::listing(self.name)?;
        if <[u8; 32]>::from(Sha256::digest(&listing)) == wanted {
            *same_in = generation;
            return Ok(None);
        }
        let detail = match listing.is_empty() {
            true => "it is gone",
            false => "it was altered",
        };
        let what = format!("nft table {}", self.name);
        Ok(Some(Drift::new(what, detail)))
    }
}

impl Plane {
    /// Everything that is not as this gateway set it. Nothing while another process takes it over.
    pub fn drift(&self) -> Result<Vec<Drift>, KernelError> {
        let config = self.changing();
        if self.is_standing_down() {
            return Ok(Vec::new());
        }
        self.drift_from(&config)
    }

    fn drift_from(&self, config: &Config) -> Result<Vec<Drift>, KernelError> {
        let edge = self.edge();
        let now = device::list(edge.names.as_deref())?;
        // One that came or went just now is the watcher's business.
        let is_settled = now == edge.covered;
        let is_covered = |device: &Device| edge.covered.known.contains(device);
        let devices: Vec<Device> = now.known.into_iter().filter(is_covered).collect();
        let mut drift = self.link_drift(&edge, &devices).0;
        drift.extend(
            routing::drift(config, &devices, &self.targets().networks())?
                .into_iter()
                .map(|detail| Drift::new("routing", detail)),
        );
        drift.extend(edge.tables.backstop.drift()?);
        if is_settled {
            // The kernel takes a device that goes out of it.
            drift.extend(edge.tables.frames.drift()?);
        }
        if self.maps.config()? != *config {
            drift.push(Drift::new("map config", "it was altered"));
        }
        if !self.maps.has_listener() {
            drift.push(Drift::new(
                "map listener",
                "the listening socket is not in it",
            ));
        }
        Ok(drift)
    }

    /// What is wrong with the links, and those before which another program runs.
    fn link_drift(&self, edge: &Edge, devices: &[Device]) -> (Vec<Drift>, Vec<WantedLink>) {
        let (mut drift, mut displaced) = (Vec::new(), Vec::new());
        // Below 6.6 a device has filters instead; where they cannot be read, each is missing.
        let filters = match feature::has_tcx() {
            true => Vec::new(),
            false => filter::list().unwrap_or_default(),
        };
        for wanted in link::wanted(&edge.programs, &self.cgroup, devices) {
            let pin = link::directory(&edge.bpffs).join(&wanted.pin);
            let ours = edge.programs.descriptors.get(wanted.program);
            let ours = ours.and_then(|program| chain::program_id(program).ok());
            if wanted.is_on_device() && !feature::has_tcx() {
                let is_there = filters.iter().any(|filter| {
                    wanted.pin == format!("{}_{}", filter.direction.name(), filter.index)
                        && Some(filter.program_id) == ours
                });
                if !is_there {
                    let what = format!("link {}", wanted.pin);
                    drift.push(Drift::new(
                        what,
                        "its filter is gone, or runs another program",
                    ));
                }
                continue;
            }
            match attached(&pin, &wanted) {
                Err(detail) => drift.push(Drift::new(format!("link {}", wanted.pin), detail)),
                Ok(info) if ours != Some(info.prog_id) => drift.push(Drift::new(
                    format!("link {}", wanted.pin),
                    format!("it runs another program, {}", info.prog_id),
                )),
                Ok(info) => {
                    if let Some(detail) = ahead_of(&info) {
                        drift.push(Drift::new(format!("order of {}", wanted.pin), detail));
                        displaced.push(wanted);
                    }
                }
            }
        }
        (drift, displaced)
    }

    /// Puts right what is not as this gateway set it.
    ///
    /// # Errors
    /// If the state cannot be read. What cannot be put right is no error, but [`Repair::left`].
    pub fn repair(&self, listener: Option<BorrowedFd<'_>>) -> Result<Repair, KernelError> {
        // Nobody changes anything meanwhile.
        let config = self.changing();
        if self.is_standing_down() {
            return Ok(Repair::default());
        }
        let found = self.drift_from(&config)?;
        if found.is_empty() {
            return Ok(Repair::default());
        }
        let failures = self.mend(&found, &config, listener);
        let mut left = self.drift_from(&config)?;
        let repaired = found
            .into_iter()
            .filter(|drift| !left.contains(drift))
            .collect();
        for drift in &mut left {
            if let Some(failure) = failures.first() {
                drift.detail = format!("{}; {failure}", drift.detail);
            }
        }
        Ok(Repair { repaired, left })
    }

    /// Every layer is mended, also when another cannot be.
    fn mend(
        &self,
        found: &[Drift],
        config: &Config,
        listener: Option<BorrowedFd<'_>>,
    ) -> Vec<KernelError> {
        let has = |what: &str| found.iter().any(|drift| drift.what.starts_with(what));
        let mut results = Vec::new();
        if has("map config") {
            results.push(self.maps.set_config(config));
        }
        if has("order") {
            results.push(self.move_ahead());
        }
        if has("link") || has("order") {
            results.push(self.edge().attach_cgroup(&self.cgroup));
        }
        if has("link") || has("order") || has("routing") || has("nft") {
            let targets = self.targets();
            let covered = self.edge().cover(&self.wanted(config, &targets));
            results.push(covered.and_then(|_| self.edge().remember_tables()));
        }
        if has("map listener")
            && let Some(listener) = listener
        {
            results.push(self.maps.set_listener(listener));
        }
        results.into_iter().filter_map(Result::err).collect()
    }

    /// Attaches again, first in line, where another program runs before ours. The kernel takes a program
    /// once on each hook, so they are loaded anew: the new one runs before the old one goes.
    fn move_ahead(&self) -> Result<(), KernelError> {
        let mut edge = self.edge();
        let (_, displaced) = self.link_drift(&edge, &edge.covered.known);
        let fresh = object::load_guard(&maps::directory(&edge.bpffs))?;
        for wanted in &displaced {
            if let Some(program) = fresh.get(wanted.program) {
                link::attach_first(&edge.bpffs, program, wanted)?;
            }
        }
        edge.programs.descriptors.extend(fresh);
        Ok(())
    }
}

/// What a pinned link is attached to, or what is wrong with it.
fn attached(pin: &Path, wanted: &WantedLink) -> Result<LinkInfo, String> {
    if !pin.exists() {
        return Err("it is gone".to_owned());
    }
    let info = Link::open(pin)
        .and_then(|link| link.info())
        .map_err(|error| format!("it cannot be read: {error}"))?;
    match &info.info {
        LinkTypeInfo::Cgroup(at) if at.cgroup_id == wanted.place => Ok(info),
        LinkTypeInfo::Tcx(at) if u64::from(at.ifindex) == wanted.place => Ok(info),
        LinkTypeInfo::NetNs(at) if u64::from(at.ino) == wanted.place => Ok(info),
        _ => Err("it is detached".to_owned()),
    }
}

/// The programs that run before the one of a link on the same hook.
pub(super) fn ahead_of(info: &LinkInfo) -> Option<String> {
    let LinkTypeInfo::Tcx(at) = &info.info else {
        return None;
    };
    let order = chain::on_device(at.ifindex, at.attach_type.clone() as u32).ok()?;
    let ahead: Vec<String> = order
        .iter()
        .take_while(|id| **id != info.prog_id)
        .map(u32::to_string)
        .collect();
    if ahead.is_empty() {
        return None;
    }
    Some(format!("program {} runs before ours", ahead.join(", ")))
}

/// The drift that the pins alone show, for when no gateway runs that knows what it set.
pub(super) fn of_pins(bpffs: &Path) -> Result<Vec<Drift>, KernelError> {
    let mut drift = Vec::new();
    let directory = link::directory(bpffs);
    let pinned = link::pinned(&directory)?;
    for name in link::other_programs() {
        if !pinned.iter().any(|(pin, _)| pin == name) {
            drift.push(Drift::new(format!("link {name}"), "it is gone"));
        }
    }
    for (pin, info) in &pinned {
        let is_detached = match &info.info {
            LinkTypeInfo::Cgroup(at) => at.cgroup_id == 0,
            LinkTypeInfo::Tcx(at) => at.ifindex == 0,
            LinkTypeInfo::NetNs(at) => at.ino == 0,
            _ => false,
        };
        if is_detached {
            drift.push(Drift::new(format!("link {pin}"), "it is detached"));
        } else if let Some(detail) = ahead_of(info) {
            drift.push(Drift::new(format!("order of {pin}"), detail));
        }
    }
    if !backstop::is_present()? {
        drift.push(Drift::new("nft table", "it is gone"));
    }
    let config = maps::Maps::open(bpffs)?.config()?;
    if routing::count_rules(&config)? == 0 {
        drift.push(Drift::new("routing", "the ip rules are gone"));
    }
    Ok(drift)
}
