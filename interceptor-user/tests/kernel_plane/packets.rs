//! What packets can look like on their way to a target: in fragments, behind headers, too large for a
//! link, on a pair of addresses that is still in TIME_WAIT.

use super::*;

const SOURCE_V4: &str = "10.77.1.2";
const SOURCE_V6: &str = "[fd77:1::2]";
const OTHER_V6: &str = "[fd77:2::2]:80";
/// Where the target says its word and closes first.
const BRIEF_V4: &str = "10.77.2.2:5433";
const BRIEF_V6: &str = "[fd77:2::2]:5433";
const LOCAL_BRIEF: &str = "127.0.0.1:5433";
const TARGETS: [&str; 5] = [
    "10.77.2.2/32=5432",
    "fd77:2::/64=5432",
    "10.77.2.0/24=5433",
    "fd77:2::2/128=5433",
    "127.0.0.1/32=5433",
];
/// A client behind a router, whose route to it is narrower than the client knows. A narrower device would
/// drop what comes from the client, too.
const NARROW: &str = "
    ip link add @c1 netns @c type veth peer name @r0 netns @r
    ip link add @r1 netns @r type veth peer name @g2 netns @g
    ip -n @c addr add 10.77.3.2/24 dev @c1
    ip -n @c addr add fd77:3::2/64 dev @c1 nodad
    ip -n @r addr add 10.77.3.1/24 dev @r0
    ip -n @r addr add fd77:3::1/64 dev @r0 nodad
    ip -n @r addr add 10.77.4.1/24 dev @r1
    ip -n @r addr add fd77:4::1/64 dev @r1 nodad
    ip -n @g addr add 10.77.4.2/24 dev @g2
    ip -n @g addr add fd77:4::2/64 dev @g2 nodad
    ip -n @c link set @c1 up
    ip -n @r link set lo up
    ip -n @r link set @r0 up
    ip -n @r route replace 10.77.3.0/24 dev @r0 mtu lock 1300
    ip -n @r -6 route add fd77:3::2/128 dev @r0 mtu lock 1300
    ip -n @r link set @r1 up
    ip -n @g link set @g2 up
    ip -n @r route add default via 10.77.4.2
    ip -n @r route add default via fd77:4::2
    ip -n @g route add 10.77.3.0/24 via 10.77.4.1
    ip -n @g route add fd77:3::/64 via fd77:4::1
";
/// From here on the client takes the way by the router.
const BY_ROUTER: &str = "
    ip -n @c route replace default via 10.77.3.1 src 10.77.3.2
    ip -n @c route replace default via fd77:3::1 src fd77:3::2
";

pub(crate) fn scenario() {
    let world = World::new();
    world.network(NARROW);
    world.inside(
        Place::Router,
        &[
            "sysctl",
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
        ],
    );
    let target = world.start(Place::Target, &[], &["echo", "5432"]);
    let other = world.start(Place::Target, &[], &["echo", "80"]);
    let brief = world.start(Place::Target, &[], &["greet", "5433"]);
    let local = world.start(Place::Gateway, &[], &["greet", "5433"]);
    for role in [&target, &other, &brief, &local] {
        assert_eq!(role.line(), "ready");
    }
    let relay = start_relay_for(&world, &TARGETS);

    step("fragments are judged by the first one's port");
    fragments(&world);
    step("extension headers are looked behind");
    extension_headers(&world);
    step("IP options and extension headers are carried");
    options_are_carried(&world, &relay, &target);
    step("connections may be made anew while they are in TIME_WAIT");
    time_wait_is_reused(&world, &local);
    step("the path's MTU is learned by ICMP");
    path_mtu(&world);
}

fn craft(world: &World, how: &str, port: u16, target: &str) -> String {
    let source = if target.starts_with('[') {
        SOURCE_V6
    } else {
        SOURCE_V4
    };
    let source = format!("{source}:{port}");
    world
        .run(Place::Client, &[], &["craft", how, &source, target])
        .remove(0)
}

/// Sends a packet, and says what it moved among the counters of what ingress drops.
fn dropped(world: &World, how: &str, target: &str) -> Option<&'static str> {
    let names = ["ingress_dropped_opaque", "ingress_dropped_fragment"];
    let before = status(world);
    assert_eq!(
        craft(world, how, 41000, target),
        "silent",
        "{how} to {target}"
    );
    let after = status(world);
    names
        .into_iter()
        .find(|name| count(&after, name) > count(&before, name))
}

fn fragments(world: &World) {
    for target in [TARGET_V4, TARGET_V6] {
        assert_eq!(craft(world, "whole", 41001, target), "answered");
        assert_eq!(
            dropped(world, "fragments", target),
            Some("ingress_dropped_fragment")
        );
        assert_eq!(
            dropped(world, "short", target),
            Some("ingress_dropped_opaque")
        );
    }
    // The same host on another port, whole and in parts.
    for (port, target) in [(41002, OTHER_V4), (41003, OTHER_V6)] {
        assert_eq!(craft(world, "whole", port, target), "answered");
        assert_eq!(craft(world, "fragments", port + 10, target), "answered");
    }
}

fn extension_headers(world: &World) {
    for (port, count) in [(41021, 1), (41022, 3), (41023, 8)] {
        let how = format!("options={count}");
        assert_eq!(craft(world, &how, port, TARGET_V6), "answered", "{how}");
        assert_eq!(craft(world, &how, port, OTHER_V6), "answered", "{how}");
    }
    for how in ["options=9", "routing", "cut"] {
        assert_eq!(
            dropped(world, how, TARGET_V6),
            Some("ingress_dropped_opaque"),
            "{how}"
        );
    }
}

fn options_are_carried(world: &World, relay: &Role, target: &Role) {
    relay.lines();
    target.lines();
    for address in [TARGET_V4, TARGET_V6] {
        for line in [
            world
                .run(Place::Client, &[], &["options", address])
                .remove(0),
            world.app(&["options", address]).remove(0),
        ] {
            let (local, peer) = echoed(&line);
            assert_eq!(peer, address);
            assert!(
                relay
                    .line()
                    .starts_with(&format!("session {local} {address} "))
            );
            assert!(target.line().starts_with("connection "));
        }
    }
}

/// The proxy closes first and keeps the connection in TIME_WAIT; the client takes its port again.
fn time_wait_is_reused(world: &World, local: &Role) {
    let reused = |before: &serde_json::Value| {
        count(&status(world), "ingress_reuses_time_wait")
            - count(before, "ingress_reuses_time_wait")
    };
    let before = status(world);
    for address in [BRIEF_V4, BRIEF_V6] {
        let said = world.run(Place::Client, &[], &["again", "42000", address]);
        assert_eq!(said, ["again 20"], "{address}");
    }
    assert!(reused(&before) >= 38, "{}", reused(&before));
    let before = status(world);
    for address in [BRIEF_V4, BRIEF_V6] {
        assert_eq!(
            world.app(&["again", "42001", address]),
            ["again 20"],
            "{address}"
        );
    }
    // The service has the very address that is looked for: the proxy must still reach it.
    local.lines();
    assert_eq!(world.app(&["again", "42002", LOCAL_BRIEF]), ["again 20"]);
    assert_eq!(local.lines().len(), 20);
    assert!(reused(&before) >= 57, "{}", reused(&before));
}

fn path_mtu(world: &World) {
    world.network(BY_ROUTER);
    let name = "ingress_icmp_to_connection";
    for address in [TARGET_V4, TARGET_V6] {
        let before = count(&status(world), name);
        let said = world.run(Place::Client, &[], &["bulk", address, "300000"]);
        assert_eq!(said, ["carried 300000"], "{address}");
        assert!(count(&status(world), name) > before, "{address}");
    }
}
