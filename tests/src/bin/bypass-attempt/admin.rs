//! Attempts that need CAP_NET_ADMIN: devices, routes and rules of the attempt's own.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use socket2::{Domain, Socket, Type};

use crate::packet::{self, TCP};
use crate::raw::{syn, v4};
use crate::report::{Parameters, Report};
use crate::stream::{self, PATIENCE};
use crate::sys;

/// Runs `ip`, and undoes nothing: the row does.
fn ip(line: &str) -> Result<()> {
    let output = Command::new("ip").args(line.split(' ')).output()?;
    if !output.status.success() {
        bail!(
            "`ip {line}`: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// A new device from which packets enter this host, to be forwarded.
pub(crate) fn tun(parameters: &Parameters) -> Result<Report> {
    const IFF_TUN: i16 = 1;
    const IFF_NO_PI: i16 = 0x1000;
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let mut device = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let name = b"byp-tun\0";
    let mut request = [0_u8; 40];
    for (to, from) in request.iter_mut().zip(name) {
        *to = *from;
    }
    for (to, from) in request
        .iter_mut()
        .skip(16)
        .zip((IFF_TUN | IFF_NO_PI).to_ne_bytes())
    {
        *to = from;
    }
    sys::control(&device, TUNSETIFF, &mut request)?;
    ip("link set byp-tun up")?;
    std::thread::sleep(Duration::from_millis(200));
    let packet = packet::ipv4(v4(parameters)?, TCP, 0, &[], &syn(parameters)?);
    device.write_all(&packet)?;
    std::thread::sleep(Duration::from_millis(200));
    Ok(Report::said("sent"))
}

/// A rule before the gateway's that sends what it marked to the uplink.
pub(crate) fn policy_route(parameters: &Parameters) -> Result<Report> {
    let target = parameters.address("target")?;
    let rule = format!("to {target} priority 7 lookup 77");
    ip(&format!(
        "route add {target} dev {} table 77",
        parameters.text("device")?
    ))?;
    ip(&format!("rule add {rule}"))?;
    let report = stream::plain(parameters);
    ip(&format!("rule del {rule}"))?;
    ip("route flush table 77")?;
    report
}

/// Claims the target's address on this host and waits for those who dial it.
pub(crate) fn capture_target(parameters: &Parameters) -> Result<Report> {
    let target = parameters.target()?;
    let SocketAddr::V4(address) = target else {
        bail!("the routes here are of IPv4");
    };
    ip(&format!(
        "route add local {} dev lo table 77 src {}",
        address.ip(),
        parameters.address("source")?
    ))?;
    ip(&format!(
        "rule add to {} priority 7 lookup 77",
        address.ip()
    ))?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_ip_transparent_v4(true)?;
    socket.bind(&target.into())?;
    socket.listen(16)?;
    socket.set_nonblocking(true)?;
    let client = stream::open(target)?;
    let dialled = client.connect_timeout(&target.into(), PATIENCE);
    let accepted = socket.accept().is_ok();
    ip(&format!(
        "rule del to {} priority 7 lookup 77",
        address.ip()
    ))?;
    ip("route flush table 77")?;
    if accepted {
        return Ok(Report::effect("took a client of the target"));
    }
    dialled?;
    Ok(Report {
        connected: true,
        ..Report::said("the client went elsewhere")
    })
}
