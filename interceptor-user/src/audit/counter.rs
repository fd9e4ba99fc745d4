//! The counter of request numbers, in memory that the processes of a hot upgrade share.
//!
//! It owns that no number is handed out twice, whichever process asks: a draining gateway and its
//! successor draw from the same eight bytes. It must not know what the numbers are for.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The size of the counter in its memory file.
const BYTES: NonZeroUsize = NonZeroUsize::new(size_of::<u64>()).unwrap();

/// A counter in shared memory.
pub struct Counter {
    descriptor: OwnedFd,
    mapping: std::ptr::NonNull<std::ffi::c_void>,
}

// SAFETY: the mapping is used as one atomic integer only, and lives as long as the counter.
unsafe impl Send for Counter {}
// SAFETY: as above.
unsafe impl Sync for Counter {}

impl Counter {
    /// A new counter with the last number that was handed out.
    ///
    /// # Errors
    /// If the system refuses the memory.
    pub fn new(last: u64) -> std::io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let descriptor = memfd_create(c"interceptor-requests", flags)?;
        nix::unistd::ftruncate(&descriptor, BYTES.get() as i64)?;
        // A file that cannot shrink cannot fault under the mapping.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&descriptor, FcntlArg::F_ADD_SEALS(seals))?;
        let counter = Self::map(descriptor)?;
        counter.raise_to(last);
        Ok(counter)
    }

    /// The counter that a predecessor made.
    ///
    /// # Errors
    /// If the descriptor is none.
    pub fn inherited(descriptor: OwnedFd) -> std::io::Result<Self> {
        let seals = fcntl(&descriptor, FcntlArg::F_GET_SEALS)?;
        let is_sealed = SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK);
        let bytes = nix::sys::stat::fstat(&descriptor)?.st_size;
        if !is_sealed || bytes != BYTES.get() as i64 {
            return Err(std::io::Error::other(
                "the counter of requests is not a sealed memory file of its size",
            ));
        }
        Self::map(descriptor)
    }

    fn map(descriptor: OwnedFd) -> std::io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice changes no other; the file has
        // its size and cannot shrink.
        let mapping = unsafe {
            mmap(
                None,
                BYTES,
                protection,
                MapFlags::MAP_SHARED,
                &descriptor,
                0,
            )
        }?;
        Ok(Self {
            descriptor,
            mapping,
        })
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        self.value()
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }

    /// The last number that was handed out.
    pub fn last(&self) -> u64 {
        self.value().load(Ordering::Relaxed)
    }

    /// Hands out nothing up to `last` any more.
    pub fn raise_to(&self, last: u64) {
        self.value().fetch_max(last, Ordering::Relaxed);
    }

    fn value(&self) -> &AtomicU64 {
        // SAFETY: the mapping is eight readable and writable bytes at the start of a page, lives as
        // long as `self`, and every process uses it atomically.
        unsafe { AtomicU64::from_ptr(self.mapping.as_ptr().cast()) }
    }
}

impl AsFd for Counter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference to it any more, and it was mapped with this size.
        let unmapped = unsafe { munmap(self.mapping, BYTES.get()) };
        if let Err(error) = unmapped {
            tracing::debug!(%error, "the counter of requests stays mapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holders_never_draw_the_same_number() {
        let first = Counter::new(7).unwrap();
        let second = Counter::inherited(first.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let mut drawn: Vec<u64> = std::thread::scope(|scope| {
            let draw = |counter: &Counter| (0..1000).map(|_| counter.next()).collect::<Vec<_>>();
            let threads = [&first, &second].map(|counter| scope.spawn(move || draw(counter)));
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        drawn.sort_unstable();
        assert_eq!(drawn, (8..2008).collect::<Vec<u64>>());
        assert_eq!((first.last(), second.last()), (2007, 2007));
    }

    #[test]
    fn another_file_is_no_counter() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8).unwrap();
        assert!(Counter::inherited(file.into()).is_err());
    }
}
