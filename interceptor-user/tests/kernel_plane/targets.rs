//! What targets can be: overlapping, ranges of ports, thousands, too many, the gateway itself; and how
//! they are replaced.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Instant;

use bytemuck::bytes_of;
use interceptor_common::{PORT_PREFIX_BITS, PROTOCOL_TCP, PortKey, PrefixKey, address_bytes};
use ipnet::IpNet;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use super::*;

/// Ports 5400 to 5500 are echoed at 5432 alone, but they are all the target's.
const TARGETS: [&str; 4] = [
    "10.77.2.2/32=5400-5500",
    "fd77:2::/64=1-65535",
    "10.77.1.1/32=6543",
    "10.77.2.2/32=15000-15002",
];
/// Loading may take this long on a busy machine.
const LOAD_WAIT: Duration = Duration::from_secs(120);
/// An address and port of the gateway itself.
const OWN: &str = "10.77.1.1:6543";

pub(crate) fn scenario() {
    let world = World::new();
    let target = world.start(Place::Target, &[], &["echo", "5432"]);
    let other = world.start(Place::Target, &[], &["echo", "80"]);
    let own = world.start(Place::Gateway, &[], &["echo", "6543"]);
    for role in [&target, &other, &own] {
        assert_eq!(role.line(), "ready");
    }
    step("a full map is said before anything is attached");
    full_maps_start_nothing(&world);
    let mut relay = start_relay_for(&world, &TARGETS);

    step("ranges of ports are carried, and their neighbours are not");
    ranges(&world, &relay, &target, &other);
    step("a target on the gateway itself is a service like others, and no loop");
    own_service(&world, &relay, &own);
    step("the maps say what the documentation says");
    maps_follow_the_model(&mut relay);
    step("targets change without a gap, and connections go on");
    relay.lines();
    replaced_under_load(&world, &mut relay, &target);
    step("thousands of targets are loaded");
    thousands(&world, &mut relay, &target);
    step("what is too much changes nothing");
    too_much_changes_nothing(&world, &mut relay, &target);
}

fn full_maps_start_nothing(world: &World) {
    let before = traces(world);
    let file = format!("/tmp/{}", name("targets"));
    for (map, targets) in [
        ("targets", single_addresses(16_385)),
        ("ports", wide_ranges(13_000, 0)),
    ] {
        std::fs::write(&file, targets).unwrap();
        let cgroup = world.cgroup.display().to_string();
        let words = ["relay", &cgroup, &bpffs(), &format!("@{file}")];
        let said = world.run(Place::Gateway, &[], &words).remove(0);
        assert!(
            said.contains(&format!("the map `{map}` holds at most")),
            "{said}"
        );
        assert_eq!(before, traces(world));
    }
    std::fs::remove_file(file).unwrap();
}

fn single_addresses(count: u32) -> String {
    (0..count)
        .map(|index| {
            format!(
                "{}/32=5432 ",
                IpAddr::from((0x0a80_0000 + index).to_be_bytes())
            )
        })
        .collect()
}

fn three_ranges(count: u32) -> String {
    (0..count)
        .map(|index| IpAddr::from((0x0a80_0000 + index).to_be_bytes()))
        .map(|address| format!("{address}/32=5000-5999 {address}/32=33 {address}/32=8000-60000 "))
        .collect()
}

/// Prefixes with two ranges of some 27 entries each, no two prefixes alike.
fn wide_ranges(count: u32, shift: u32) -> String {
    (0..count)
        .map(|index| {
            let address = IpAddr::from((0x0a80_0000 + index).to_be_bytes());
            let (first, last) = (1 + shift + 2 * (index % 100), 32_766 - 2 * (index / 100));
            let (second, end) = (first + 32_768, last + 32_768);
            format!("{address}/32={first}-{last} {address}/32={second}-{end} ")
        })
        .collect()
}

fn ranges(world: &World, relay: &Role, target: &Role, other: &Role) {
    for address in [TARGET_V4, TARGET_V6] {
        echoed(&client(world, address));
        echoed(&app(world, address));
        assert_eq!(relay.lines().len(), 2);
    }
    assert_eq!(target.lines().len(), 4);
    for (port, carried) in [(5399, false), (5400, true), (5500, true), (5501, false)] {
        let address = format!("10.77.2.2:{port}");
        for line in [client(world, &address), app(world, &address)] {
            // The proxy accepts, and ends what it cannot dial; elsewhere nobody listens.
            let expected = if carried {
                "broken"
            } else {
                "ConnectionRefused"
            };
            assert!(line.starts_with(expected), "{port}: {line}");
        }
        assert_eq!(relay.lines().len(), if carried { 4 } else { 0 }, "{port}");
    }
    let (local, _) = (client(world, OTHER_V4), ());
    assert_eq!(other.line(), format!("connection {}", echoed(&local).0));
    // The proxy's own port among them answers to nobody.
    for line in [
        client(world, "10.77.2.2:15001"),
        app(world, "10.77.2.2:15001"),
        client(world, "[fd77:2::2]:15001"),
    ] {
        assert!(line.starts_with("ConnectionRefused"), "{line}");
    }
    assert_eq!(relay.lines(), [""; 0]);
}

fn own_service(world: &World, relay: &Role, own: &Role) {
    for line in [client(world, OWN), app(world, OWN)] {
        assert_eq!(echoed(&line).1, OWN);
        assert!(own.line().starts_with("connection 10.77.1.1:"));
        assert!(relay.line().contains(&format!(" {OWN} target=Some(2)")));
    }
    assert_eq!(
        (own.lines().len(), relay.lines().len()),
        (0, 0),
        "it must have been dialled once"
    );
}

struct Route {
    network: IpNet,
    ports: RangeInclusive<u16>,
}

/// Draws networks of a few bits of difference and short ranges, so that most of them overlap. The
/// numbers are the same in each run (Knuth's MMIX generator).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn route(&mut self) -> Route {
        let host = self.below(16) as u8;
        let network = if self.below(2) == 0 {
            let bits = [8, 24, 28, 29, 31, 32][self.below(6) as usize];
            format!("10.99.0.{host}/{bits}")
        } else {
            let bits = [0, 16, 64, 124, 126, 128][self.below(6) as usize];
            format!("fd99::{host:x}/{bits}")
        };
        let (first, length) = (self.below(60) as u16, self.below(40) as u16);
        let network: IpNet = network.parse().unwrap();
        Route {
            network: network.trunc(),
            ports: first..=first + length,
        }
    }
}

fn is_named(routes: &[Route], address: SocketAddr) -> bool {
    routes
        .iter()
        .any(|route| route.network.contains(&address.ip()) && route.ports.contains(&address.port()))
}

/// Asks the maps as the programs do.
fn in_kernel(targets: &MapHandle, ports: &MapHandle, address: SocketAddr) -> bool {
    let prefix = PrefixKey {
        bits: 128,
        address: address_bytes(address.ip()),
    };
    let Some(rule_set) = targets.lookup(bytes_of(&prefix), MapFlags::ANY).unwrap() else {
        return false;
    };
    let key = PortKey {
        bits: PORT_PREFIX_BITS + 16,
        rule_set: u32::from_ne_bytes(rule_set.try_into().unwrap()),
        protocol: PROTOCOL_TCP,
        reserved: 0,
        port: address.port().to_be_bytes(),
    };
    ports
        .lookup(bytes_of(&key), MapFlags::ANY)
        .unwrap()
        .is_some()
}

fn maps_follow_the_model(relay: &mut Role) {
    let open = |map: &str| MapHandle::from_pinned_path(format!("{}/maps/{map}", bpffs())).unwrap();
    let (targets, ports) = (open("targets"), open("ports"));
    let mut draw = Draw(77);
    let mut found = 0;
    for round in 1..=12 {
        let routes: Vec<Route> = (0..draw.below(30) + 1).map(|_| draw.route()).collect();
        let words: Vec<String> = routes
            .iter()
            .map(|route| {
                format!(
                    "{}={}-{}",
                    route.network,
                    route.ports.start(),
                    route.ports.end()
                )
            })
            .collect();
        relay.say(&words.join(" "));
        assert_eq!(relay.line(), "replaced", "{words:?}");
        for host in 0..16 {
            for text in [
                format!("10.99.0.{host}"),
                format!("10.98.0.{host}"),
                format!("fd99::{host:x}"),
            ] {
                for port in 0..100 {
                    let address = SocketAddr::new(text.parse().unwrap(), port);
                    let expected = is_named(&routes, address);
                    let answer = in_kernel(&targets, &ports, address);
                    assert_eq!(answer, expected, "{address}, round {round}: {words:?}");
                    found += usize::from(answer);
                }
            }
        }
    }
    assert!(
        found > 10_000,
        "{found} answers are too few to mean anything"
    );
    relay.say(&TARGETS.join(" "));
    assert_eq!(relay.line(), "replaced");
    let rest = |map: &MapHandle| map.keys().count();
    // A prefix each; 5400-5500 is 7 prefixes of ports, 15000-15002 is 2, 1-65535 is 16.
    assert_eq!(
        (rest(&targets), rest(&ports)),
        (3, 7 + 2 + 16 + 1),
        "the old ones must be gone"
    );
}

fn replaced_under_load(world: &World, relay: &mut Role, target: &Role) {
    target.lines();
    let mut talk = world.start(Place::Client, &[], &["talk", TARGET_V4]);
    talk.say("before");
    assert_eq!(talk.line(), "heard before");
    let routed = world.start(Place::Client, &[], &["hammer", TARGET_V4]);
    let cgroup = world.app_cgroup().display().to_string();
    let local = world.start(
        Place::Gateway,
        &[("ICPT_KT_CGROUP", &cgroup)],
        &["hammer", TARGET_V4],
    );
    let others = single_addresses(300);
    let mut replaced = 0;
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        // The same address by another prefix and other ports each time.
        for mine in [
            "10.77.2.2/32=5432",
            "10.77.2.0/24=1000-6000",
            "10.0.0.0/8=5432-5433 10.77.2.2/32=22",
        ] {
            relay.say(&format!("{others} {mine}"));
            while relay.line_within(LOAD_WAIT) != "replaced" {}
            replaced += 1;
        }
    }
    for role in [routed, local] {
        role.signal("TERM");
        let said = role.line();
        assert!(said.starts_with("carried "), "{said}");
        println!("kernel_plane:     {said}, during {replaced} replacements");
    }
    talk.say("after");
    assert_eq!(talk.line(), "heard after");
    let direct: Vec<String> = target
        .lines()
        .into_iter()
        .filter(|line| !line.starts_with("connection 10.77.2.1:"))
        .collect();
    assert_eq!(direct, [""; 0], "every connection must be the proxy's");
    relay.lines();
}

fn thousands(world: &World, relay: &mut Role, target: &Role) {
    for (what, targets) in [
        ("10,000 addresses with a port", single_addresses(10_000)),
        ("the same with three ranges", three_ranges(10_000)),
        ("one more", three_ranges(10_000) + "192.0.2.7/32=1 "),
        ("with two wide ranges, no two alike", wide_ranges(10_000, 0)),
        ("as many others in their place", wide_ranges(10_000, 200)),
    ] {
        let start = Instant::now();
        relay.say(&format!("{targets} 10.77.2.2/32=5432"));
        assert_eq!(relay.line_within(LOAD_WAIT), "replaced", "{what}");
        println!(
            "kernel_plane:     {what}: {} ms",
            start.elapsed().as_millis()
        );
        echoed(&client(world, TARGET_V4));
        assert!(relay.line().starts_with("session "));
        assert!(target.line().starts_with("connection 10.77.2.1:"));
    }
}

fn too_much_changes_nothing(world: &World, relay: &mut Role, target: &Role) {
    relay.say(&TARGETS.join(" "));
    assert_eq!(relay.line_within(LOAD_WAIT), "replaced");
    let before = traces(world);
    for (map, targets) in [
        ("targets", single_addresses(16_385)),
        ("ports", wide_ranges(13_000, 0)),
    ] {
        relay.say(&targets);
        let said = relay.line_within(LOAD_WAIT);
        assert!(
            said.contains(&format!("the map `{map}` holds at most")),
            "{said}"
        );
        assert_eq!(before, traces(world));
        echoed(&client(world, TARGET_V4));
        assert!(relay.line().starts_with("session "));
        assert!(target.line().starts_with("connection 10.77.2.1:"));
    }
    // The proxy's own port alone is refused, too.
    relay.say("10.77.2.2/32=15001");
    assert!(relay.line().contains("the proxy's own port 15001"));
    assert_eq!(before, traces(world));
}
