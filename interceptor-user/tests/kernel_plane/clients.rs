//! Targets that see their clients' own addresses.

use super::*;

/// A second address of the target, behind a route that is narrower than the gateway knows.
const FAR_V4: &str = "10.77.5.2:5432";
const FAR_V6: &str = "[fd77:5::2]:5432";
const TARGETS: [&str; 5] = [
    "10.77.2.2/32=5432+client",
    "fd77:2::/64=5432+client",
    "10.77.5.2/32=5432+client",
    "fd77:5::/64=5432+client",
    "10.77.2.1/32=6543+client",
];
const FAR: &str = "
    ip link add @t1 netns @t type veth peer name @r0 netns @r
    ip link add @r1 netns @r type veth peer name @g2 netns @g
    ip -n @t addr add 10.77.5.2/24 dev @t1
    ip -n @t addr add fd77:5::2/64 dev @t1 nodad
    ip -n @r addr add 10.77.5.1/24 dev @r0
    ip -n @r addr add fd77:5::1/64 dev @r0 nodad
    ip -n @r addr add 10.77.4.1/24 dev @r1
    ip -n @r addr add fd77:4::1/64 dev @r1 nodad
    ip -n @g addr add 10.77.4.2/24 dev @g2
    ip -n @g addr add fd77:4::2/64 dev @g2 nodad
    ip -n @t link set @t1 up
    ip -n @r link set lo up
    ip -n @r link set @r0 up
    ip -n @r route replace 10.77.5.0/24 dev @r0 mtu lock 1300
    ip -n @r -6 route add fd77:5::2/128 dev @r0 mtu lock 1300
    ip -n @r link set @r1 up
    ip -n @g link set @g2 up
    ip -n @r route add default via 10.77.4.2
    ip -n @r route add default via fd77:4::2
    ip -n @g route add 10.77.5.0/24 via 10.77.4.1
    ip -n @g route add fd77:5::/64 via fd77:4::1
    ip -n @t rule add from 10.77.5.2 lookup 5
    ip -n @t -6 rule add from fd77:5::2 lookup 5
    ip -n @t route add default via 10.77.5.1 table 5
    ip -n @t -6 route add default via fd77:5::1 table 5
";

pub(crate) fn scenario() {
    let world = World::new();
    world.network(FAR);
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
    let local = world.start(Place::Gateway, &[], &["echo", "6543"]);
    for role in [&target, &other, &local] {
        assert_eq!(role.line(), "ready");
    }
    let mut relay = start_relay_for(&world, &TARGETS);

    step("the target sees the client's address, whatever the reverse path filters");
    address_is_preserved(&world, &target);
    step("the gateway's own processes and services are dialled as usual");
    own_addresses_are_not(&world, &target, &local);
    step("what is no target is left alone");
    for address in [OTHER_V4, "[fd77:2::2]:80"] {
        let line = client(&world, address);
        let (local, _) = echoed(&line);
        assert_eq!(other.line(), format!("connection {local}"));
    }
    step("the path's MTU is learned on the way to the target, too");
    let before = count(&status(&world), "ingress_icmp_to_connection");
    for address in [FAR_V4, FAR_V6] {
        assert_eq!(
            world.run(Place::Client, &[], &["bulk", address, "300000"]),
            ["carried 300000"]
        );
    }
    assert!(count(&status(&world), "ingress_icmp_to_connection") >= before + 2);
    step("connections end at both ends");
    for state in ["last-ack", "established", "close-wait"] {
        assert_eq!(
            world.target(&["ss", "-Htan", "state", state]),
            "",
            "{state}"
        );
    }
    step("a connection outlives the change of its target");
    change_of_mind(&world, &mut relay, &target);
    step("a dead proxy's connections end in the target");
    let held = world.start(Place::Client, &[], &["hold", TARGET_V4]);
    assert_eq!(held.line(), "connected");
    assert!(target.line().starts_with("connection 10.77.1.2:"));
    relay.kill();
    assert!(held.line().starts_with("end"));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(world.target(&["ss", "-Htan", "state", "established"]), "");
}

fn address_is_preserved(world: &World, target: &Role) {
    for (filter, valid_mark) in [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
        ("2", "0"),
        ("2", "1"),
    ] {
        for device in [
            "all",
            "default",
            "lo",
            &name("g0"),
            &name("g1"),
            &name("g2"),
        ] {
            world.sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), filter);
            world.sysctl(
                &format!("net.ipv4.conf.{device}.src_valid_mark"),
                valid_mark,
            );
        }
        for (address, host) in [
            (TARGET_V4, "10.77.1.2"),
            (TARGET_V6, "[fd77:1::2]"),
            (FAR_V4, "10.77.1.2"),
        ] {
            let line = client(world, address);
            assert_eq!(echoed(&line).1, address);
            let connection = target.line();
            assert!(
                connection.starts_with(&format!("connection {host}:")),
                "{connection} with rp_filter={filter} src_valid_mark={valid_mark}"
            );
        }
    }
}

fn own_addresses_are_not(world: &World, target: &Role, local: &Role) {
    for (address, host) in [(TARGET_V4, "10.77.2.1"), (TARGET_V6, "[fd77:2::1]")] {
        echoed(&app(world, address));
        assert!(target.line().starts_with(&format!("connection {host}:")));
    }
    for line in [
        client(world, "10.77.2.1:6543"),
        app(world, "10.77.2.1:6543"),
    ] {
        echoed(&line);
        assert!(local.line().starts_with("connection 10.77.2.1:"));
    }
}

/// A policy that preserves no address any more leaves the way back of what is open.
fn change_of_mind(world: &World, relay: &mut Role, target: &Role) {
    target.lines();
    let mut talk = world.start(Place::Client, &[], &["talk", TARGET_V4]);
    talk.say("one");
    assert_eq!(talk.line(), "heard one");
    assert!(target.line().starts_with("connection 10.77.1.2:"));
    relay.lines();
    relay.say(
        &TARGETS
            .map(|target| target.replace("+client", ""))
            .join(" "),
    );
    assert_eq!(relay.line(), "replaced");
    talk.say("two");
    assert_eq!(talk.line(), "heard two");
    echoed(&client(world, TARGET_V4));
    assert!(target.line().starts_with("connection 10.77.2.1:"));
    relay.lines();
    relay.say(&TARGETS.join(" "));
    assert_eq!(relay.line(), "replaced");
    talk.say("three");
    assert_eq!(talk.line(), "heard three");
}
