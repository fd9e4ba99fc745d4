//! A process as the kernel sees it now, for comparison with what it was at `connect`.
//!
//! `/proc` shows neither how often a process executed another program nor which memory it has; the
//! iterator `task` of `c/identify.bpf.c` does, for one process at a time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;

use interceptor_common::TaskNow;
use libbpf_rs::libbpf_sys::{
    BPF_TRACE_ITER, bpf_iter_create, bpf_iter_link_info, bpf_link_create, bpf_link_create_opts,
};

/// Reads one process's state from the kernel. Clones share the program.
#[derive(Debug, Clone)]
pub struct TaskProbe {
    program: Arc<OwnedFd>,
}

impl TaskProbe {
    pub(super) fn new(program: OwnedFd) -> Self {
        Self {
            program: Arc::new(program),
        }
    }

    /// The process of this number; `None` if there is none.
    pub fn now(&self, pid: u32) -> io::Result<Option<TaskNow>> {
        let mut info = bpf_iter_link_info::default();
        // The leader alone: its number is the process's.
        info.task.tid = pid;
        let mut options = bpf_link_create_opts {
            sz: size_of::<bpf_link_create_opts>() as u64,
            ..Default::default()
        };
        options.iter_info = &raw mut info;
        options.iter_info_len = size_of::<bpf_iter_link_info>() as u32;
        // SAFETY: the program's descriptor is open, and the options live until the call returns.
        let link = unsafe {
            bpf_link_create(
                self.program.as_raw_fd(),
                0,
                BPF_TRACE_ITER,
                &raw const options,
            )
        };
        let link = owned(link)?;
        // SAFETY: the descriptor is open.
        let iterator = owned(unsafe { bpf_iter_create(link.as_raw_fd()) })?;
        let mut bytes = [0; size_of::<TaskNow>()];
        match File::from(iterator).read_exact(&mut bytes) {
            Ok(()) => Ok(bytemuck::try_pod_read_unaligned(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// libbpf returns a new descriptor, or the negative error number.
pub(super) fn owned(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the call returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}
