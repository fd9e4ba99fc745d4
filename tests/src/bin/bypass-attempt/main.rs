//! One attempt to reach a target past the gateway, or the witness that says what arrived there.
//!
//! `cargo xtask bypass` starts it as the user, in the namespace and with the capabilities of a row.
//! It owns how an attempt is made. It must not know whether an attempt should succeed: what counts is
//! what the witness sees.
//!
//! `bypass-attempt NAME JSON` prints one line of JSON: whether anybody answered, and who.

mod admin;
mod datagram;
mod frame;
mod own;
mod packet;
mod raw;
mod report;
mod ring;
mod stream;
mod sys;
mod witness;
mod xsk;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use report::{Parameters, Report};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let parameters = arguments.next().unwrap_or_default();
    match run(&name, &parameters) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, parameters: &str) -> Result<()> {
    let parameters = Parameters::parse(parameters).context("the parameters are no JSON object")?;
    if name == "witness" {
        return witness::watch(&parameters);
    }
    let report = match attempt(name, &parameters) {
        Ok(report) => report,
        // What the kernel refuses is a result of the attempt.
        Err(error) => match error.downcast::<std::io::Error>() {
            Ok(error) => Report::refused(&error),
            Err(error) => return Err(error),
        },
    };
    println!("{}", report.json());
    Ok(())
}

type Attempt = fn(&Parameters) -> Result<Report>;

/// Every attempt by its name.
const ATTEMPTS: &[(&str, Attempt)] = &[
    ("tcp", stream::plain),
    ("tcp-from", stream::from_source),
    ("tcp-nonblocking", stream::nonblocking),
    ("tcp-mapped", stream::mapped),
    ("tcp-mptcp", stream::mptcp),
    ("tcp-fastopen", stream::fast_open),
    ("tcp-fastopen-connect", stream::fast_open_connect),
    ("tcp-bound-device", stream::bound_device),
    ("tcp-bound-later", stream::bound_later),
    ("tcp-do-not-route", stream::do_not_route),
    ("tcp-link-local", stream::link_local),
    ("tcp-mark-cleared", stream::mark_cleared),
    ("tcp-outside", own::outside),
    ("tcp-unicast-if", stream::unicast_if),
    ("tcp-source-route", stream::source_route),
    ("tcp-ip-options", stream::ip_options),
    ("tcp-segment-route", stream::segment_route),
    ("tcp-sticky-options", stream::sticky_options),
    ("tcp-mark", stream::marked),
    ("tcp-connect-twice", stream::connect_twice),
    ("tcp-repair", stream::repair),
    ("tcp-held", stream::held),
    ("tcp-passed", own::passed),
    ("tcp-moved", own::moved),
    ("tcp-self-moved", own::self_moved),
    ("tcp-unshared", own::unshared),
    ("tcp-forwarder", stream::forwarder),
    ("stream-sctp", stream::sctp),
    ("stream-dccp", stream::dccp),
    ("unix", stream::unix),
    ("ring-connect", ring::connect),
    ("ring-polled-connect", ring::polled_connect),
    ("ring-sendmsg", ring::send_message),
    ("udp-connect", datagram::connected),
    ("udp-sendto", datagram::send_to),
    ("udp-mapped", datagram::mapped),
    ("udp-sendmmsg", datagram::send_many),
    ("udp-pktinfo", datagram::packet_info),
    ("udp-quic", datagram::quic),
    ("udp-large", datagram::large),
    ("udp-segmented", datagram::segmented),
    ("udp-mark-message", datagram::mark_message),
    ("udp-reconnected", datagram::reconnected),
    ("udp-held", datagram::held),
    ("udp-lite", datagram::lite),
    ("raw-hdrincl", raw::header_included),
    ("raw-spoofed", raw::spoofed),
    ("raw-tcp", raw::tcp),
    ("raw-udp", raw::udp),
    ("raw-mark-message", raw::mark_message),
    ("raw-ipv6", raw::ipv6),
    ("raw-icmp", raw::icmp),
    ("raw-ipip", raw::tunnelled),
    ("raw-options", raw::options),
    ("raw-fragments", raw::fragments),
    ("raw-tiny-fragment", raw::tiny_fragment),
    ("raw-overlap", raw::overlapping),
    ("raw-v6-destination-options", raw::v6_destination_options),
    ("raw-v6-hop-by-hop", raw::v6_hop_by_hop),
    ("raw-v6-routing", raw::v6_routing),
    ("raw-v6-many-headers", raw::v6_many_headers),
    ("raw-v6-fragments", raw::v6_fragments),
    ("frame", frame::plain),
    ("frame-lying", frame::lying),
    ("frame-v6", frame::ipv6),
    ("frame-cooked", frame::cooked),
    ("frame-udp", frame::udp),
    ("frame-vlan", frame::vlan),
    ("frame-qinq", frame::stacked_vlan),
    ("frame-bypass", frame::queue_bypass),
    ("frame-source-route", frame::source_route),
    (
        "frame-bypass-source-route",
        frame::queue_bypass_source_route,
    ),
    ("frame-bypass-vlan", frame::queue_bypass_vlan),
    ("frame-bypass-v6", frame::queue_bypass_v6),
    ("frame-ring", frame::ring),
    ("frame-ring-bypass", frame::ring_bypass),
    ("frame-inject", frame::inject),
    ("xsk", xsk::send),
    ("tun", admin::tun),
    ("policy-route", admin::policy_route),
    ("capture-target", admin::capture_target),
    ("steal-descriptor", own::steal_descriptor),
    ("write-memory", own::write_memory),
    ("trace", own::trace),
    ("bind-port", own::bind_port),
    ("dial-port", own::dial_port),
];

fn attempt(name: &str, parameters: &Parameters) -> Result<Report> {
    match ATTEMPTS.iter().find(|(known, _)| *known == name) {
        Some((_, attempt)) => attempt(parameters),
        None => bail!("there is no attempt {name:?}"),
    }
}
