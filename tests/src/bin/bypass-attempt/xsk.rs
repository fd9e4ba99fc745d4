//! The attempt with AF_XDP: a frame from memory to the driver, past everything that looks at packets.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};

use crate::frame::syn_frame;
use crate::report::{Parameters, Report};
use crate::sys::{self, Mapping};

/// From linux/if_xdp.h.
const SOL_XDP: i32 = 283;
const XDP_MMAP_OFFSETS: i32 = 1;
const XDP_TX_RING: i32 = 3;
const XDP_UMEM_REG: i32 = 4;
const XDP_UMEM_FILL_RING: i32 = 5;
const XDP_UMEM_COMPLETION_RING: i32 = 6;
const XDP_PGOFF_TX_RING: i64 = 0x8000_0000;
const XDP_COPY: u16 = 2;

const CHUNK_BYTES: u32 = 4096;
const ENTRIES: i32 = 4;

pub(crate) fn send(parameters: &Parameters) -> Result<Report> {
    let frame = syn_frame(parameters)?;
    let memory = Mapping::new(None, 0, 4 * CHUNK_BYTES as usize)?;
    memory.write(0, &frame)?;
    let socket = sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0)?;
    sys::set(&socket, SOL_XDP, XDP_UMEM_REG, &registration(&memory))?;
    for ring in [XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_TX_RING] {
        sys::set_int(&socket, SOL_XDP, ring, ENTRIES)?;
    }
    let (producer, descriptors) = transmit_offsets(&socket)?;
    let ring = Mapping::new(Some(socket.as_fd()), XDP_PGOFF_TX_RING, 4096)?;
    let index = nix::net::if_::if_nametoindex(parameters.text("device")?)?;
    sys::bind(&socket, &address(index))?;
    // Where the frame is in the memory, its length, no options.
    let descriptor = [
        &0_u64.to_ne_bytes()[..],
        &u32::try_from(frame.len())?.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
    ]
    .concat();
    ring.write(descriptors, &descriptor)?;
    ring.write(producer, &1_u32.to_ne_bytes())?;
    sys::send_to(&socket, &[], libc::MSG_DONTWAIT, &[])?;
    Ok(Report::said("sent"))
}

/// `struct xdp_umem_reg`: address, length, bytes of a chunk, headroom, flags, metadata.
fn registration(memory: &Mapping) -> Vec<u8> {
    let mut value = memory.address().to_ne_bytes().to_vec();
    value.extend((4 * u64::from(CHUNK_BYTES)).to_ne_bytes());
    for number in [CHUNK_BYTES, 0, 0, 0] {
        value.extend(number.to_ne_bytes());
    }
    value
}

/// `struct sockaddr_xdp`: family, flags, device, queue, no shared memory.
fn address(index: u32) -> Vec<u8> {
    let mut value = (libc::AF_XDP as u16).to_ne_bytes().to_vec();
    value.extend(XDP_COPY.to_ne_bytes());
    for number in [index, 0, 0] {
        value.extend(number.to_ne_bytes());
    }
    value
}

/// `struct xdp_mmap_offsets` holds four rings of four offsets; the second is the transmit ring's:
/// producer, consumer, descriptors, flags.
fn transmit_offsets(socket: impl std::os::fd::AsFd) -> Result<(usize, usize)> {
    let mut value = [0; 4 * 4 * 8];
    sys::get(socket, SOL_XDP, XDP_MMAP_OFFSETS, &mut value)?;
    let offset = |index: usize| -> Result<usize> {
        let bytes = value
            .get(index * 8..)
            .and_then(|rest| rest.first_chunk())
            .context("the offsets are shorter")?;
        Ok(usize::try_from(u64::from_ne_bytes(*bytes))?)
    };
    Ok((offset(4)?, offset(6)?))
}
