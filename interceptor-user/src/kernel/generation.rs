//! The generation of this network namespace's nft rules: a number that changes with any of them, and
//! costs one message to ask for, where a listing costs a process.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN` (linux/netfilter/nf_tables.h).
const GET_GENERATION: u16 = 10 << 8 | 16;
/// `NLM_F_REQUEST` (linux/netlink.h).
const REQUEST: u16 = 1;
/// Where the attributes of an answer begin: after its two headers.
const HEADERS_BYTES: usize = 20;
/// `NFTA_GEN_ID` (linux/netfilter/nf_tables.h).
const GENERATION_ID: u16 = 1;

/// The current generation.
pub(super) fn current() -> io::Result<u32> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    // ┌────────┬──────┬───────┬──────────┬─────┐┌────────┬─────────┬──────────┐
    // │ length │ type │ flags │ sequence │ pid ││ family │ version │ resource │
    // │ 4      │ 2    │ 2     │ 4        │ 4   ││ 1      │ 1       │ 2        │
    // └────────┴──────┴───────┴──────────┴─────┘└────────┴─────────┴──────────┘
    let mut request = Vec::with_capacity(HEADERS_BYTES);
    request.extend(20_u32.to_ne_bytes());
    request.extend(GET_GENERATION.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    request.resize(HEADERS_BYTES, 0);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0; 512];
    let received = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let attributes = answer
        .get(HEADERS_BYTES..received)
        .ok_or_else(|| io::Error::other("the kernel's answer is too short"))?;
    generation(attributes).ok_or_else(|| io::Error::other("the kernel's answer has no generation"))
}

/// The generation among the attributes: each has a length with its header, a type, and a value that is
/// filled up to four bytes.
fn generation(mut attributes: &[u8]) -> Option<u32> {
    loop {
        let (length, rest) = attributes.split_first_chunk::<2>()?;
        let (kind, value) = rest.split_first_chunk::<2>()?;
        if u16::from_ne_bytes(*kind) == GENERATION_ID {
            return value
                .first_chunk::<4>()
                .map(|value| u32::from_be_bytes(*value));
        }
        let length = usize::from(u16::from_ne_bytes(*length)).max(4);
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_a_generation() {
        assert_eq!(current().unwrap(), current().unwrap());
    }

    #[test]
    fn an_answer_without_it_has_none() {
        assert_eq!(generation(&[]), None);
        assert_eq!(generation(&[0; 7]), None);
        assert_eq!(generation(&[8, 0, 2, 0, 1, 1, 1, 1]), None);
        assert_eq!(
            generation(&[6, 0, 2, 0, 9, 9, 0, 0, 8, 0, 1, 0, 0, 0, 1, 2]),
            Some(258)
        );
    }
}
