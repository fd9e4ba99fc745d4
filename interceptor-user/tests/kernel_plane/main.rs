//! The kernel plane on a real kernel: a client, a gateway and a target in namespaces of their own.
//!
//! `life` goes in the order of a gateway's life: attach, carry, be attacked, die, come back, detach. The
//! others are about what packets, targets and hosts can be like; a name runs one of them alone. It needs
//! root and fails without. `ICPT_KT_VERBOSE=1` shows what each process says, `ICPT_KT_PREFIX=icpt-x-`
//! lets runs go on beside each other.
#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod clients;
mod craft;
mod hosts;
mod packets;
mod roles;
mod targets;
mod world;

use std::path::Path;
use std::time::Duration;

use world::{Place, Role, World, bpffs, name, scaled};

const TARGET_V4: &str = "10.77.2.2:5432";
const TARGET_V6: &str = "[fd77:2::2]:5432";
/// The same host on a port that is nobody's target.
const OTHER_V4: &str = "10.77.2.2:80";
/// A service of the gateway host itself.
const LOCAL: &str = "127.0.0.1:6543";
const TARGETS: [&str; 4] = [
    "10.77.2.2/32=5432",
    "fd77:2::/64=5432",
    "10.77.0.0/16=22",
    "127.0.0.1/32=6543",
];
/// Where the relay writes the kernel's messages.
fn log_file() -> String {
    format!("/tmp/{}", name("kernel.log"))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--role", role @ ..] => roles::play(role),
        // What a test runner asks before it runs anything.
        words if words.contains(&"--list") => {
            SCENARIOS
                .iter()
                .for_each(|(name, _)| println!("{name}: test"));
        }
        words => scenarios(words),
    }
}

const SCENARIOS: [(&str, fn()); 5] = [
    ("hosts", hosts::scenario),
    ("targets", targets::scenario),
    ("life", life),
    ("packets", packets::scenario),
    ("clients", clients::scenario),
];

/// Runs the scenarios that are named; if none is, all.
fn scenarios(words: &[&str]) {
    let names: Vec<&&str> = words.iter().filter(|word| !word.starts_with('-')).collect();
    for (name, scenario) in SCENARIOS {
        if names.is_empty() || names.iter().any(|word| name.contains(**word)) {
            println!("kernel_plane: {name}");
            scenario();
        }
    }
    println!("kernel_plane: all steps passed");
}

fn life() {
    let world = World::new();
    let before = traces(&world);
    let target = world.start(Place::Target, &[], &["echo", "5432"]);
    let other = world.start(Place::Target, &[], &["echo", "80"]);
    assert_eq!(
        (target.line(), other.line()),
        ("ready".into(), "ready".into())
    );
    step("without the plane, traffic is direct");
    expect_direct(&world, &target);

    step("what is missing is said before anything is attached");
    preconditions_are_told(&world);
    assert_eq!(before, traces(&world));

    let mut relay = start_relay(&world);
    step("routed clients are carried");
    routed_clients_are_carried(&world, &relay, &target);
    step("local clients are carried, and known");
    local_clients_are_carried(&world, &relay, &target);
    step("what is no target is left alone");
    others_are_untouched(&world, &relay, &other);
    step("a service on the gateway itself is a target like others");
    local_services_are_targets(&world, &relay);
    step("reverse path filters do not matter");
    reverse_path_filters(&world, &relay);
    step("bypasses are refused");
    bypasses_are_refused(&world, &relay, &target);
    step("raw frames are dropped");
    raw_packets_are_dropped(&world, &target);
    step("the kernel's messages are read");
    let log = std::fs::read_to_string(log_file()).unwrap();
    assert!(log.contains("INFO refused UDP of process"), "{log}");
    assert!(
        log.contains("to target ::ffff:10.77.2.2 port 5432"),
        "{log}"
    );
    assert!(log.contains("the reserved socket mark 20000001"), "{log}");
    step("closed connections leave nothing in the target");
    closed_connections_end(&world, &target);
    step("a second gateway is told that there is one");
    assert!(relay_says(&world).contains("another gateway runs already: process "));
    routed_clients_are_carried(&world, &relay, &target);

    step("a dead proxy refuses at once");
    dead_proxy_refuses(&world, &mut relay, &target);
    step("the guard holds without nft");
    guard_holds_alone(&world, &target);
    step("a new proxy carries again");
    let links = link_ids(&world);
    let mut relay = start_relay(&world);
    assert_eq!(
        links,
        link_ids(&world),
        "the links must be updated in place"
    );
    routed_clients_are_carried(&world, &relay, &target);
    local_clients_are_carried(&world, &relay, &target);
    verdicts_moved(&world);
    step("targets are replaced while the gateway runs");
    targets_are_replaced(&world, &mut relay, &target);

    step("detaching needs a stopped proxy, and leaves nothing");
    let cgroup = world.cgroup.display().to_string();
    let pins = bpffs();
    let detach = ["detach", cgroup.as_str(), &pins];
    assert!(world.run(Place::Gateway, &[], &detach)[0].contains("stop it, then detach"));
    relay.kill();
    assert_eq!(world.run(Place::Gateway, &[], &detach), ["detached"]);
    assert_eq!(before, traces(&world));
    assert_eq!(
        world.run(Place::Gateway, &[], &detach),
        ["detached"],
        "detaching twice is fine"
    );
    target.lines();
    expect_direct(&world, &target);
    std::fs::remove_file(log_file()).unwrap();
}

fn step(name: &str) {
    println!("kernel_plane:   {name}");
}

fn relay_role(world: &World, targets: &[&str]) -> Role {
    let cgroup = world.cgroup.display().to_string();
    let pins = bpffs();
    let role = [["relay", cgroup.as_str(), &pins].as_slice(), targets].concat();
    world.start(Place::Gateway, &[("ICPT_KT_LOG", &log_file())], &role)
}

fn start_relay(world: &World) -> Role {
    start_relay_for(world, &TARGETS)
}

fn start_relay_for(world: &World, targets: &[&str]) -> Role {
    let relay = relay_role(world, targets);
    assert_eq!(relay.line(), "ready");
    relay
}

fn relay_says(world: &World) -> String {
    relay_role(world, &TARGETS).line()
}

fn preconditions_are_told(world: &World) {
    let cgroup = world.cgroup.display().to_string();
    let absent = format!("{cgroup}/absent");
    let told = |environment: &[(&str, &str)], cgroup: &str, target: &str| {
        let pins = bpffs();
        let role = ["relay", cgroup, &pins, target];
        world.run(Place::Gateway, environment, &role).remove(0)
    };
    let nobody = [("ICPT_KT_USER", "65534")];
    assert!(told(&nobody, &cgroup, TARGETS[0]).contains("needs the capabilities CAP_NET_ADMIN"));
    assert!(told(&[], &absent, TARGETS[0]).contains("absent does not exist; create it"));
    assert!(told(&[], "/tmp", TARGETS[0]).contains("not a cgroup2 directory"));
    assert!(told(&[], &cgroup, "10.0.0.0/8=15001").contains("the proxy's own port 15001"));
}

fn client(world: &World, address: &str) -> String {
    world.run(Place::Client, &[], &["tcp", address]).remove(0)
}

fn app(world: &World, address: &str) -> String {
    world.app(&["tcp", address]).remove(0)
}

/// As the gateway names a cgroup of ours.
fn cgroup_path(end: &str) -> String {
    format!("/{}/{end}", name("root"))
}

/// The client's own and the peer's address in `echo LOCAL PEER`.
fn echoed(line: &str) -> (&str, &str) {
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!((words[0], words.len()), ("echo", 3), "{line}");
    (words[1], words[2])
}

fn expect_direct(world: &World, target: &Role) {
    for address in [TARGET_V4, TARGET_V6] {
        for line in [client(world, address), app(world, address)] {
            let (local, peer) = echoed(&line);
            assert_eq!(peer, address);
            assert_eq!(target.line(), format!("connection {local}"));
        }
    }
}

fn routed_clients_are_carried(world: &World, relay: &Role, target: &Role) {
    for (address, index, gateway) in [(TARGET_V4, 0, "10.77.2.1:"), (TARGET_V6, 1, "[fd77:2::1]:")]
    {
        let line = client(world, address);
        let (local, peer) = echoed(&line);
        assert_eq!(peer, address);
        assert_eq!(
            relay.line(),
            format!("session {local} {address} target=Some({index}) unknown")
        );
        let connection = target.line();
        assert!(
            connection.starts_with(&format!("connection {gateway}")),
            "{connection}"
        );
    }
}

fn local_clients_are_carried(world: &World, relay: &Role, target: &Role) {
    let cgroup = world.app_cgroup().display().to_string();
    let environment = [
        ("ICPT_KT_CGROUP", cgroup.as_str()),
        ("ICPT_KT_USER", "65534"),
    ];
    // The last is IPv4 spoken by an IPv6 socket.
    let mapped = "[::ffff:10.77.2.2]:5432";
    for (address, seen, gateway) in [
        (TARGET_V4, TARGET_V4, "10.77.2.1"),
        (TARGET_V6, TARGET_V6, "[fd77:2::1]"),
        (mapped, TARGET_V4, "10.77.2.1"),
    ] {
        let role = world.start(Place::Gateway, &environment, &["tcp", address]);
        let line = role.line();
        let (local, peer) = echoed(&line);
        assert_eq!(peer, seen);
        assert!(
            local.starts_with(gateway),
            "the source must be the gateway's own address: {local}"
        );
        let session = relay.line();
        assert!(
            session.starts_with(&format!("session {local} {seen} target=Some(")),
            "{session}"
        );
        let executable = std::env::current_exe().unwrap();
        let comm: String = executable
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .chars()
            .take(15)
            .collect();
        let who = format!(
            "uid=65534 gid=65534 pid={} comm={comm} exe={} cgroup={}",
            role.pid(),
            executable.display(),
            cgroup_path("app")
        );
        assert!(session.ends_with(&who), "{session} should end with {who}");
        assert!(target.line().starts_with(&format!("connection {gateway}:")));
    }
}

fn others_are_untouched(world: &World, relay: &Role, other: &Role) {
    for line in [client(world, OTHER_V4), app(world, OTHER_V4)] {
        let (local, _) = echoed(&line);
        assert_eq!(other.line(), format!("connection {local}"));
    }
    assert_eq!(world.app(&["udp", OTHER_V4]), ["connect ok", "sendto ok"]);
    assert!(other.line().starts_with("datagram 10.77.2.1:"));
    assert_eq!(relay.lines(), [""; 0]);
}

fn local_services_are_targets(world: &World, relay: &Role) {
    let service = world.start(Place::Gateway, &[], &["echo", "6543"]);
    assert_eq!(service.line(), "ready");
    let line = app(world, LOCAL);
    let (local, _) = echoed(&line);
    let session = relay.line();
    assert!(
        session.starts_with(&format!("session {local} {LOCAL} target=Some(3) uid=0")),
        "{session}"
    );
    assert!(service.line().starts_with("connection 127.0.0.1:"));
    // Outside the cgroup that the programs see, the backstop is in the way.
    let line = world.run(Place::Gateway, &[], &["tcp", LOCAL]).remove(0);
    assert!(line.starts_with("ConnectionRefused"), "{line}");
    assert_eq!(service.lines(), [""; 0]);
}

fn raw_packets_are_dropped(world: &World, target: &Role) {
    assert_eq!(world.app(&["frame", &name("g1")]), ["dropped"]);
    assert_eq!(target.lines(), [""; 0]);
}

fn targets_are_replaced(world: &World, relay: &mut Role, target: &Role) {
    relay.say("fd77:2::2/128=5432 10.77.2.2/32=81");
    assert_eq!(relay.line(), "replaced");
    for line in [client(world, TARGET_V4), app(world, TARGET_V4)] {
        let (local, _) = echoed(&line);
        assert_eq!(
            target.line(),
            format!("connection {local}"),
            "no target any more: it goes directly"
        );
    }
    echoed(&client(world, TARGET_V6));
    assert!(relay.line().contains("target=Some(0)"));
    target.lines();
    relay.say(&TARGETS.join(" "));
    assert_eq!(relay.line(), "replaced");
    routed_clients_are_carried(world, relay, target);
    local_clients_are_carried(world, relay, target);
}

fn reverse_path_filters(world: &World, relay: &Role) {
    for (filter, valid_mark) in [
        ("1", "0"),
        ("1", "1"),
        ("2", "1"),
        ("0", "1"),
        ("0", "0"),
        ("2", "0"),
    ] {
        for device in ["all", "default", "lo", &name("g0"), &name("g1")] {
            world.sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), filter);
            world.sysctl(
                &format!("net.ipv4.conf.{device}.src_valid_mark"),
                valid_mark,
            );
        }
        echoed(&client(world, TARGET_V4));
        echoed(&app(world, TARGET_V4));
        assert_eq!(
            relay.lines().len(),
            2,
            "rp_filter={filter} src_valid_mark={valid_mark}"
        );
    }
}

fn bypasses_are_refused(world: &World, relay: &Role, target: &Role) {
    target.lines();
    for address in [TARGET_V4, TARGET_V6, "[::ffff:10.77.2.2]:5432"] {
        assert_eq!(
            world.app(&["udp", address]),
            ["connect ConnectionRefused", "sendto ConnectionRefused"]
        );
    }
    world.run(Place::Client, &[], &["udp", TARGET_V4]);
    for address in [TARGET_V4, TARGET_V6] {
        let line = world.app(&["bound", &name("g1"), address]).remove(0);
        assert!(line.starts_with("ConnectionRefused"), "{line}");
    }
    for (mark, outcome) in [
        ("10000000", "PermissionDenied"),
        ("20000001", "PermissionDenied"),
        ("1", "ok"),
    ] {
        assert_eq!(world.app(&["mark", mark]), [format!("mark {outcome}")]);
    }
    assert_eq!(world.app(&["bind", "15001"]), ["bind PermissionDenied"]);
    // Outside the cgroup that the programs see, only nft is in the way.
    let line = world
        .run(Place::Gateway, &[], &["tcp", TARGET_V4])
        .remove(0);
    assert!(line.starts_with("ConnectionRefused"), "{line}");
    // The proxy's port is for nobody to talk to.
    for port in [
        client(world, "10.77.1.1:15001"),
        app(world, "10.77.1.1:15001"),
    ] {
        assert!(port.starts_with("ConnectionRefused"), "{port}");
    }
    assert_eq!(target.lines(), [""; 0], "the target must have seen nothing");
    assert_eq!(relay.lines(), [""; 0]);
    // A socket from elsewhere does not become the proxy's by moving: it is carried, as that task's.
    let proxy = world.proxy_cgroup().display().to_string();
    let line = world.app(&["moved", &proxy, TARGET_V4]).remove(0);
    echoed(&line);
    assert!(
        relay
            .line()
            .contains(&format!("cgroup={}", cgroup_path("interceptor")))
    );
    target.lines();
}

/// The proxy closes while the target is busy; the target's end comes when the proxy's socket is gone.
fn closed_connections_end(world: &World, target: &Role) {
    let proxy = world.proxy_cgroup().display().to_string();
    let before = count(&status(world), "egress_closing");
    target.signal("STOP");
    world.run(
        Place::Gateway,
        &[("ICPT_KT_CGROUP", &proxy)],
        &["brief", TARGET_V4],
    );
    // The target's kernel acknowledges the end with a delay; with it the proxy's socket goes.
    std::thread::sleep(Duration::from_millis(500));
    target.signal("CONT");
    assert!(target.line().starts_with("connection 10.77.2.1:"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(world.target(&["ss", "-Htan", "state", "last-ack"]), "");
    assert!(count(&status(world), "egress_closing") > before);
}

fn dead_proxy_refuses(world: &World, relay: &mut Role, target: &Role) {
    let held = world.start(Place::Client, &[], &["hold", TARGET_V4]);
    assert_eq!(held.line(), "connected");
    std::thread::sleep(Duration::from_millis(200));
    relay.kill();
    assert!(
        held.line().starts_with("end"),
        "an open connection ends with the proxy"
    );
    target.lines();
    for address in [TARGET_V4, TARGET_V6] {
        for line in [client(world, address), app(world, address)] {
            let Some(after) = line.strip_prefix("ConnectionRefused after ") else {
                panic!("{line}")
            };
            let milliseconds = after.strip_suffix(" ms").unwrap().parse().unwrap();
            let limit = scaled(Duration::from_secs(1));
            assert!(Duration::from_millis(milliseconds) < limit, "{line}");
        }
    }
    assert_eq!(target.lines(), [""; 0], "the target must have seen nothing");
    let status = status(world);
    assert_eq!(
        (&status["listener"], &status["nft_table"]),
        (&false.into(), &true.into())
    );
    let links = 10 + usize::from(has_unix_hook()) + 3 * 2;
    assert_eq!(status["links"].as_array().unwrap().len(), links);
}

/// Whether this kernel asks programs before a unix socket connects (since 6.7), by a symbol of its own.
fn has_unix_hook() -> bool {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap();
    symbols.contains(" bpf_sock_addr_set_sun_path")
}

fn guard_holds_alone(world: &World, target: &Role) {
    world.gateway(&["nft", "delete", "table", "inet", "interceptor"]);
    world.gateway(&["nft", "delete", "table", "netdev", "interceptor"]);
    let dropped = count(&status(world), "egress_dropped");
    for place in [Place::Client, Place::Gateway] {
        let line = world.run(place, &[], &["tcp", TARGET_V4]).remove(0);
        assert!(line.starts_with("TimedOut"), "{line}");
    }
    assert_eq!(world.app(&["frame", &name("g1")]), ["dropped"]);
    assert!(count(&status(world), "egress_dropped") >= dropped + 3);
    assert_eq!(target.lines(), [""; 0], "the target must have seen nothing");
}

fn verdicts_moved(world: &World) {
    let moved = [
        "connect_steered",
        "connect_exempt",
        "connect_refused_no_listener",
        "connect_refused_udp",
        "connect_refused_device",
        "sendmsg_refused_udp",
        "mark_refused",
        "bind_refused",
        "ingress_to_listener",
        "ingress_to_connection",
        "ingress_no_listener",
        "ingress_dropped_udp",
        "egress_proxy",
        "egress_closing",
        "egress_dropped",
    ];
    let status = status(world);
    for name in moved {
        assert!(count(&status, name) > 0, "{name} did not move");
    }
    for name in ["connect_refused_error", "ingress_dropped_error"] {
        assert_eq!(count(&status, name), 0, "{name}");
    }
}

fn status(world: &World) -> serde_json::Value {
    serde_json::from_str(&world.run(Place::Gateway, &[], &["status", &bpffs()])[0]).unwrap()
}

fn count(status: &serde_json::Value, name: &str) -> u64 {
    let verdicts = status["verdicts"].as_array().unwrap();
    verdicts
        .iter()
        .find(|verdict| verdict["name"] == name)
        .unwrap()["count"]
        .as_u64()
        .unwrap()
}

/// The links by name; a tc filter has no id.
fn link_ids(world: &World) -> Vec<(String, Option<u64>)> {
    let status = status(world);
    let link = |link: &serde_json::Value| {
        let name = link["name"].as_str().unwrap().to_owned();
        (name, link["link_id"].as_u64())
    };
    status["links"]
        .as_array()
        .unwrap()
        .iter()
        .map(link)
        .collect()
}

/// Everything that the plane may leave behind.
fn traces(world: &World) -> [String; 6] {
    let pins = format!("{}", Path::new(&bpffs()).exists());
    let routes = world.gateway(&["ip", "route", "show", "table", "all"]);
    // The kernel adds link-local routes by itself, some time after a device comes up.
    let routes: String = routes
        .lines()
        .filter(|line| !line.contains("fe80:") && !line.contains("ff00:"))
        .collect();
    [
        world.gateway(&["ip", "rule", "show"]),
        world.gateway(&["ip", "-6", "rule", "show"]),
        routes,
        world.gateway(&["nft", "list", "ruleset"]),
        pins,
        format!("{}", world.proxy_cgroup().exists()),
    ]
}
