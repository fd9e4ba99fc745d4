//! The pinned maps, with their types. The definitions are in `interceptor-ebpf/c/`.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use interceptor_common::{
    Config, FlowKey, Identity, PortBits, PortKey, PrefixKey, UnixName, Verdict,
};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use super::KernelError;
use super::replace::replace;
use super::target::Targets;

/// Directory of the map pins below the pin directory.
pub(super) fn directory(bpffs: &Path) -> PathBuf {
    bpffs.join("maps")
}

/// A pinned map whose key and value types are known.
#[derive(Debug)]
pub(super) struct PinnedMap<K, V> {
    handle: MapHandle,
    name: &'static str,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> PinnedMap<K, V> {
    fn open(bpffs: &Path, name: &'static str) -> Result<Self, KernelError> {
        let handle = MapHandle::from_pinned_path(directory(bpffs).join(name))
            .map_err(failed("open", name))?;
        let sizes_fit = handle.key_size() as usize == size_of::<K>()
            && handle.value_size() as usize == size_of::<V>();
        if !sizes_fit {
            let detail = format!("the map `{name}` has other sizes");
            return Err(KernelError::StalePins {
                path: bpffs.into(),
                detail,
            });
        }
        Ok(Self {
            handle,
            name,
            types: PhantomData,
        })
    }

    pub(super) fn lookup(&self, key: &K) -> Result<Option<V>, KernelError> {
        let bytes = self
            .handle
            .lookup(bytemuck::bytes_of(key), MapFlags::ANY)
            .map_err(failed("read", self.name))?;
        Ok(bytes.and_then(|bytes| bytemuck::try_pod_read_unaligned(&bytes).ok()))
    }

    pub(super) fn insert(&self, key: &K, value: &V) -> Result<(), KernelError> {
        self.handle
            .update(
                bytemuck::bytes_of(key),
                bytemuck::bytes_of(value),
                MapFlags::ANY,
            )
            .map_err(failed("write", self.name))
    }

    pub(super) fn remove(&self, key: &K) -> Result<(), KernelError> {
        self.handle
            .delete(bytemuck::bytes_of(key))
            .map_err(failed("write", self.name))
    }

    /// Everything in the map. What goes meanwhile is left out.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, KernelError> {
        let mut entries = Vec::new();
        for key in self.keys() {
            entries.extend(self.lookup(&key)?.map(|value| (key, value)));
        }
        Ok(entries)
    }

    fn keys(&self) -> Vec<K> {
        self.handle
            .keys()
            .filter_map(|key| bytemuck::try_pod_read_unaligned(&key).ok())
            .collect()
    }
}

fn failed(action: &'static str, map: &'static str) -> impl FnOnce(libbpf_rs::Error) -> KernelError {
    move |error| KernelError::Map {
        action,
        map,
        detail: error.to_string(),
    }
}

/// The maps that user space reads or writes.
#[derive(Debug)]
pub(super) struct Maps {
    targets: PinnedMap<PrefixKey, u32>,
    ports: PinnedMap<PortKey, u32>,
    any_port: PinnedMap<u32, PortBits>,
    config: PinnedMap<u32, Config>,
    listener: PinnedMap<u32, u64>,
    exempt: PinnedMap<i32, u32>,
    /// By descriptor of an accepted socket.
    pub(super) clients: PinnedMap<i32, Identity>,
    pub(super) flows: PinnedMap<FlowKey, u8>,
    verdicts: PinnedMap<u32, u64>,
    /// `None` where the kernel cannot refuse unix sockets.
    unix_names: Option<PinnedMap<UnixName, u8>>,
}

impl Maps {
    pub(super) fn open(bpffs: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            targets: PinnedMap::open(bpffs, "targets")?,
            ports: PinnedMap::open(bpffs, "ports")?,
            any_port: PinnedMap::open(bpffs, "any_port")?,
            config: PinnedMap::open(bpffs, "config")?,
            listener: PinnedMap::open(bpffs, "listener")?,
            exempt: PinnedMap::open(bpffs, "exempt")?,
            clients: PinnedMap::open(bpffs, "clients")?,
            flows: PinnedMap::open(bpffs, "flows")?,
            verdicts: PinnedMap::open(bpffs, "verdicts")?,
            unix_names: directory(bpffs)
                .join("unix_names")
                .exists()
                .then(|| PinnedMap::open(bpffs, "unix_names"))
                .transpose()?,
        })
    }

    pub(super) fn config(&self) -> Result<Config, KernelError> {
        let zeroed = bytemuck::Zeroable::zeroed();
        Ok(self.config.lookup(&0)?.unwrap_or(zeroed))
    }

    pub(super) fn set_config(&self, config: &Config) -> Result<(), KernelError> {
        self.config.insert(&0, config)
    }

    /// Puts the listening socket where the programs find it: from now on connections are carried.
    pub(super) fn set_listener(&self, listener: BorrowedFd<'_>) -> Result<(), KernelError> {
        // It may be older than the program that knows the proxy's sockets when they are made.
        self.exempt.insert(&listener.as_raw_fd(), &1)?;
        // The descriptor is not negative, so nothing is lost.
        self.listener
            .insert(&0, &u64::from(listener.as_raw_fd().unsigned_abs()))
    }

    /// Whether a proxy listens: the kernel empties the slot when the socket closes.
    pub(super) fn has_listener(&self) -> bool {
        self.listener
            .lookup(&0)
            .is_ok_and(|cookie| cookie.is_some())
    }

    pub(super) fn target_prefixes(&self) -> usize {
        self.targets.keys().len()
    }

    /// Replaces the targets, without a gap and never half.
    pub(super) fn set_targets(&self, targets: &Targets) -> Result<(), KernelError> {
        let wanted = targets.port_bits();
        let mut all = self.any_port.lookup(&0)?.unwrap_or(wanted);
        for (word, added) in all.words.iter_mut().zip(wanted.words) {
            *word |= added;
        }
        // Old and new ports until it is done, and also if it fails: one too many costs a look-up.
        self.any_port.insert(&0, &all)?;
        replace(&self.targets, &self.ports, targets)?;
        self.any_port.insert(&0, &wanted)
    }

    /// Replaces the unix sockets that are refused; one that stays is refused all the while. Whether
    /// the kernel can do that.
    pub(super) fn set_unix_names(&self, names: &[UnixName]) -> Result<bool, KernelError> {
        let Some(map) = &self.unix_names else {
            return Ok(false);
        };
        let stale = map.keys().into_iter().filter(|key| !names.contains(key));
        // First, so that what fits the map alone also fits with what is there.
        stale.into_iter().try_for_each(|key| map.remove(&key))?;
        names.iter().try_for_each(|name| map.insert(name, &0))?;
        Ok(true)
    }

    /// How often each verdict was given, since the first attachment.
    pub(super) fn verdicts(&self) -> Result<Vec<(Verdict, u64)>, KernelError> {
        let map = &self.verdicts;
        Verdict::ALL
            .iter()
            .map(|verdict| {
                let key = (*verdict as u32).to_ne_bytes();
                let per_cpu = map
                    .handle
                    .lookup_percpu(&key, MapFlags::ANY)
                    .map_err(failed("read", map.name))?;
                let counts = per_cpu
                    .into_iter()
                    .flatten()
                    .filter_map(|bytes| bytes.try_into().ok().map(u64::from_ne_bytes));
                Ok((*verdict, counts.sum()))
            })
            .collect()
    }
}
