//! Connections that are older than the gateway.

use std::time::{Duration, Instant};

use crate::step;
use crate::world::{OTHER_V4, Place, Role, TARGET_V4, TARGET_V6, World};

const AT_ONCE: Duration = Duration::from_secs(1);

pub(crate) fn older_connections_end(world: &World) {
    step("connections that are older than the gateway end on both sides");
    let target = listener(world, "5432");
    let other = listener(world, "80");
    let app = world.app_cgroup();
    let container = world.container_cgroup();
    let old = [
        world.app(&["hold", TARGET_V4]),
        world.app(&["hold", TARGET_V6]),
        world.app(&["hold", "[::ffff:10.78.2.2]:5432"]),
        world.role(Place::Container, Some(&container), &["hold", TARGET_V4]),
        world.role(Place::Container, Some(&container), &["hold", TARGET_V6]),
        // Of another part of the host, in the same namespace.
        world.role(Place::Gateway, None, &["hold", TARGET_V4]),
    ];
    let addresses: Vec<String> = old.iter().map(|role| unmapped(&role.line())).collect();
    expect(
        &target,
        addresses
            .iter()
            .map(|address| format!("connection {address}")),
    );
    let datagrams = world.app(&["hold-udp", "10.78.2.2:53"]);
    let datagram_address = datagrams.line();
    let untouched = [
        world.app(&["hold", OTHER_V4]),
        world.role(Place::Container, Some(&app), &["hold", OTHER_V4]),
        // Nothing of the gateway's: not below its cgroup.
        world.role(Place::Forger, None, &["hold", OTHER_V4]),
    ];
    let other_addresses: Vec<String> = untouched.iter().map(Role::line).collect();
    expect(
        &other,
        other_addresses
            .iter()
            .map(|address| format!("connection {address}")),
    );

    let mut relay = world.relay(0);
    let start = Instant::now();
    for role in &old {
        assert_eq!(role.line(), "end Err(ConnectionAborted)");
    }
    // The target must see the end of each.
    expect(
        &target,
        addresses
            .iter()
            .map(|address| format!("ended {address} Err(ConnectionReset)")),
    );
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert_eq!(datagrams.line(), "end Err(ConnectionAborted)");
    for address in &addresses {
        assert!(
            relay.severed.contains(&format!("{address}>")),
            "{}",
            relay.severed
        );
    }
    assert!(
        relay
            .severed
            .contains(&format!("{datagram_address}>10.78.2.2:53"))
    );
    assert_eq!(relay.severed.split(' ').count(), old.len() + 1);

    step("a restart severs nothing that is carried or no target's");
    let mut carried = [
        world.app(&["hold", TARGET_V4]),
        world.role(Place::Container, Some(&container), &["hold", TARGET_V6]),
    ];
    for role in &carried {
        role.line();
        assert!(relay.session()["process"].is_object());
    }
    relay.role.kill();
    for role in &carried {
        assert!(role.line().starts_with("end"), "its proxy is gone");
    }
    let relay = world.relay(0);
    assert_eq!(relay.severed, "");
    for role in &mut carried {
        role.wait();
    }
    for role in &untouched {
        assert_eq!(role.line_within(Duration::from_millis(50)), None);
    }
    assert_eq!(other.line_within(Duration::from_millis(50)), None);
}

fn listener(world: &World, port: &str) -> Role {
    let role = world.role(Place::Target, None, &["echo", port]);
    assert_eq!(role.line(), "ready");
    role
}

/// So many lines, in any order.
fn expect(role: &Role, lines: impl Iterator<Item = String>) {
    let mut expected: Vec<String> = lines.collect();
    let mut seen: Vec<String> = expected.iter().map(|_| role.line()).collect();
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
}

/// The address of an IPv6 socket that speaks IPv4, as others see it.
fn unmapped(address: &str) -> String {
    let address: std::net::SocketAddr = address.parse().unwrap();
    std::net::SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}
