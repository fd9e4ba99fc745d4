//! What hosts can be like: without IPv6, with devices of every kind, with devices that vanish.

use super::*;

const TARGETS: [&str; 3] = ["10.77.2.2/32=5432", "10.77.9.0/24=5432", "fd77:2::/64=5432"];
/// More ways from the client to the gateway: by a bridge and a tunnel of frames.
const DEVICES: &str = "
    ip link add @c1 netns @c type veth peer name @g2 netns @g
    ip -n @g link add @br type bridge
    ip -n @g link set @g2 master @br
    ip -n @g addr add 10.77.8.1/24 dev @br
    ip -n @c addr add 10.77.8.2/24 dev @c1
    ip -n @c link set @c1 up
    ip -n @g link set @g2 up
    ip -n @g link set @br up
    ip -n @c link add @cv type vxlan id 7 local 10.77.1.2 remote 10.77.1.1 dstport 4789 dev @c0
    ip -n @g link add @gv type vxlan id 7 local 10.77.1.1 remote 10.77.1.2 dstport 4789 dev @g0
    ip -n @c addr add 10.77.11.2/24 dev @cv
    ip -n @g addr add 10.77.11.1/24 dev @gv
    ip -n @c link set @cv up
    ip -n @g link set @gv up
";

pub(crate) fn scenario() {
    let world = World::new();
    let target = world.start(Place::Target, &[], &["echo", "5432"]);
    assert_eq!(target.line(), "ready");
    world.network(DEVICES);
    let _tunnel = start_tunnel(&world);

    step("a host without IPv6 carries IPv4");
    without_ipv6(&world, &target);
    let mut relay = start_relay_for(&world, &TARGETS);
    step("clients come by bridges and tunnels");
    by_every_device(&world, &relay, &target);
    step("a device that vanishes takes nothing with it");
    vanishing_device(&world, &mut relay, &target);
}

/// A tunnel whose frames begin with IP, held open by the role: the kernel here has no other kind.
fn start_tunnel(world: &World) -> Role {
    let there = format!("/run/netns/{}", name("c"));
    let pump = world.start(
        Place::Gateway,
        &[],
        &["pump", &name("gt"), &there, &name("ct")],
    );
    assert_eq!(pump.line(), "ready");
    world.network(
        "ip -n @c addr add 10.77.12.2/24 dev @ct
        ip -n @g addr add 10.77.12.1/24 dev @gt
        ip -n @c link set @ct up
        ip -n @g link set @gt up",
    );
    pump
}

fn without_ipv6(world: &World, target: &Role) {
    world.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    world.sysctl("net.ipv6.conf.default.disable_ipv6", "1");
    let mut relay = start_relay_for(world, &TARGETS);
    for line in [client(world, TARGET_V4), app(world, TARGET_V4)] {
        assert_eq!(echoed(&line).1, TARGET_V4);
        assert!(target.line().starts_with("connection 10.77.2.1:"));
        assert!(relay.line().starts_with("session "));
    }
    relay.say("10.77.2.2/32=5432 fd77:2::2/128=1-100");
    assert_eq!(relay.line(), "replaced");
    echoed(&client(world, TARGET_V4));
    target.line();
    relay.kill();
    let cgroup = world.cgroup.display().to_string();
    let detached = world.run(Place::Gateway, &[], &["detach", &cgroup, &bpffs()]);
    assert_eq!(detached, ["detached"]);
    world.sysctl("net.ipv6.conf.default.disable_ipv6", "0");
    world.sysctl("net.ipv6.conf.all.disable_ipv6", "0");
    // Turning it off took the addresses away.
    world.network(
        "ip -n @g addr add fd77:1::1/64 dev @g0 nodad
        ip -n @g addr add fd77:2::1/64 dev @g1 nodad",
    );
}

fn by_every_device(world: &World, relay: &Role, target: &Role) {
    let ways = [
        ("bridge", "10.77.8"),
        ("vxlan", "10.77.11"),
        ("tun", "10.77.12"),
    ];
    for (kind, network) in ways {
        world.inside(
            Place::Client,
            &[
                "ip",
                "route",
                "replace",
                "10.77.2.0/24",
                "via",
                &format!("{network}.1"),
            ],
        );
        let line = client(world, TARGET_V4);
        let (local, peer) = echoed(&line);
        assert!(
            local.starts_with(&format!("{network}.2:")),
            "{kind}: {local}"
        );
        assert_eq!(peer, TARGET_V4);
        assert!(
            relay.line().starts_with(&format!("session {local} ")),
            "{kind}"
        );
        assert!(target.line().starts_with("connection 10.77.2.1:"), "{kind}");
    }
    world.inside(Place::Client, &["ip", "route", "del", "10.77.2.0/24"]);
}

fn vanishing_device(world: &World, relay: &mut Role, target: &Role) {
    // The whole pair goes, and with it the bridge's member.
    world.network(
        "ip -n @g link del @g2
        ip -n @g link del @gv",
    );
    routed_and_local(world, relay, target);
    relay.say(&TARGETS.join(" "));
    assert_eq!(relay.line(), "replaced");
    routed_and_local(world, relay, target);
    let places = status(world)["links"].clone();
    assert!(!places.to_string().contains(&name("g2")), "{places}");
    relay.kill();
    *relay = start_relay_for(world, &TARGETS);
    routed_and_local(world, relay, target);
}

fn routed_and_local(world: &World, relay: &Role, target: &Role) {
    for line in [
        client(world, TARGET_V4),
        client(world, TARGET_V6),
        app(world, TARGET_V4),
    ] {
        echoed(&line);
        assert!(relay.line().starts_with("session "));
        target.line();
    }
}
