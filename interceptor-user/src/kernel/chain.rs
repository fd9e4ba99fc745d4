//! What the kernel says of programs and of their order on a device.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use libbpf_rs::libbpf_sys::{
    bpf_attach_type, bpf_obj_get_info_by_fd, bpf_prog_info, bpf_prog_query_opts,
};

/// Programs that are looked at on one hook of a device; the kernel allows 64.
const CHAIN_MAX: usize = 64;

/// The id of a loaded program.
pub(super) fn program_id(program: impl AsFd) -> io::Result<u32> {
    let mut info = bpf_prog_info::default();
    let mut length = size_of::<bpf_prog_info>() as u32;
    // SAFETY: the descriptor is open; the structure is zeroed and has the length that is given.
    let result = unsafe {
        bpf_obj_get_info_by_fd(
            program.as_fd().as_raw_fd(),
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(info.id),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// The ids of the programs on a tcx hook of a device, first to last.
pub(super) fn on_device(index: u32, attach_type: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; CHAIN_MAX];
    let mut options = bpf_prog_query_opts {
        sz: size_of::<bpf_prog_query_opts>() as u64,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = CHAIN_MAX as u32;
    let index = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: the options point to as many ids as they say, and live until the call returns.
    let result =
        unsafe { libbpf_rs::libbpf_sys::bpf_prog_query_opts(index, attach_type, &raw mut options) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: every variant of the union is this number.
    let count = unsafe { options.__bindgen_anon_1.count };
    let count = usize::try_from(count).unwrap_or(CHAIN_MAX);
    Ok(ids.into_iter().take(count).collect())
}
