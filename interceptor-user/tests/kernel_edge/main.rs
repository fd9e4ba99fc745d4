//! The edges of the kernel plane on a real kernel: raw frames, devices that come and go, unix sockets.
//!
//! It needs root and fails without. `ICPT_KE_VERBOSE=1` shows what each process says.
#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod frames;
mod roles;
mod world;

use std::time::{Duration, Instant};

use serde_json::Value;
use world::{BPFFS, Place, Role, World, command, lines, scaled, until};

const TARGET: &str = "10.78.2.2:5432";
const TARGETS: [&str; 3] = [
    "10.78.2.2/32=5432",
    "fd78:2::2/128=5432",
    "127.0.0.1/32=6543",
];
/// The most that a new device may take until its clients are carried.
const COVER_MAX: Duration = Duration::from_secs(2);
/// How many shapes of frames there are that show their port.
const SHOWN: usize = 13;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--role", role @ ..] => roles::play(role),
        // What a test runner asks before it runs anything.
        words if words.contains(&"--list") => println!("kernel_edge: test"),
        _ => scenario(),
    }
}

fn scenario() {
    let world = World::new();
    let target = world.start(Place::Target, None, &["echo", "5432"]);
    assert_eq!(target.line(), "ready");
    let mut relay = start_relay(&world, "all");
    assert!(app(&world).starts_with("echo"));
    target.wait_for("connection 10.78.2.1");

    step("raw frames reach no target, with or without the queueing discipline");
    raw_frames(&world);
    step("a frame with our mark does not get past on lo");
    marked_frames_on_lo(&world);
    step("nor by a device without link headers");
    bare_frames(&world, &relay);
    step("the source address follows the routes");
    sources_follow(&world);
    step("a client behind a new device is carried");
    new_device(&world, &relay, &target);
    step("a device that nobody covers yet is closed");
    uncovered_device(&world, &relay, &target);
    step("a device may change its name, and join a bridge");
    renamed_and_bridged(&world, &relay, &target);
    step("a device may move into a container");
    moved_device(&world, &relay, &target);
    step("devices may come and go by the dozen");
    many_devices(&world, &relay, &target);
    if has_unix_hook() {
        step("unix sockets are refused by name");
        unix_sockets(&world, &mut relay);
    } else {
        step("this kernel has no hook for unix sockets");
    }
    relay.kill();

    step("of named devices only those are covered, whenever they come");
    named_devices(&world, &target);
    let cgroup = world.cgroup.display().to_string();
    let detached = world.run(Place::Gateway, &["detach", &cgroup, BPFFS]);
    assert_eq!(detached, ["detached"]);
    assert_eq!(world.gateway(&["nft", "list", "ruleset"]), "");
    println!("kernel_edge: all steps passed");
}

fn step(name: &str) {
    println!("kernel_edge: {name}");
}

fn start_relay(world: &World, devices: &str) -> Role {
    let cgroup = world.cgroup.display().to_string();
    let role = [["relay", &cgroup, BPFFS, devices].as_slice(), &TARGETS].concat();
    let relay = world.start(Place::Gateway, None, &role);
    assert_eq!(relay.line(), "ready");
    relay
}

fn app(world: &World) -> String {
    world.app(&["tcp", TARGET]).remove(0)
}

fn status(world: &World) -> Value {
    serde_json::from_str(&world.run(Place::Gateway, &["status", BPFFS])[0]).unwrap()
}

/// The links on a device, `None` for those whose device is gone.
fn links_on(world: &World, device: Option<&str>) -> Vec<String> {
    let status = status(world);
    let links = status["links"].as_array().unwrap();
    links
        .iter()
        .filter(|link| link["place"].as_str() == device)
        .map(|link| link["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The numbers of the frames that the sniffer saw, and the names of all.
struct Sent {
    seen: Vec<usize>,
    names: Vec<String>,
}

/// Sends frames from the gateway.
fn send(world: &World, sniffer: &mut Role, device: &str, words: &[&str]) -> Sent {
    let role = [&["frames", device], words].concat();
    let names = world.app(&role).remove(0);
    sniffer.say("report");
    Sent {
        seen: numbers(&sniffer.line()),
        names: names.split(',').map(Into::into).collect(),
    }
}

/// The numbers in `{1, 2}`.
fn numbers(line: &str) -> Vec<usize> {
    let inner = line.trim_matches(['{', '}']);
    inner
        .split(", ")
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn raw_frames(world: &World) {
    assert_eq!(status(world)["nft_frames"], true);
    let mut sniffer = world.start(Place::Target, None, &["sniff"]);
    assert_eq!(sniffer.line(), "ready");
    let mut send = |kind, port, way| {
        let words = [kind, "10.78.2.2", "fd78:2::2", port, way, "0"];
        send(world, &mut sniffer, "icpt-ke-g1", &words)
    };
    for way in ["queued", "direct"] {
        for kind in ["shown", "hidden"] {
            let sent = send(kind, "5432", way);
            let through: Vec<&String> = sent.seen.iter().map(|n| &sent.names[*n]).collect();
            assert!(through.is_empty(), "{way} {kind}: {through:?}");
        }
        let sent = send("others", "0", way);
        assert_eq!(sent.seen.len(), sent.names.len(), "{way}: {:?}", sent.seen);
    }
    // A port that is nobody's: what the frame is can be seen, so it passes.
    let sent = send("shown", "80", "queued");
    assert_eq!((sent.seen.len(), sent.names.len()), (SHOWN, SHOWN));
    let sent = send("shown", "80", "direct");
    let honest = [
        "v4 unclaimed",
        "v4 as all protocols",
        "tagged v4",
        "twice tagged v4",
    ];
    for name in honest {
        let number = sent.names.iter().position(|other| other == name).unwrap();
        assert!(sent.seen.contains(&number), "{name}");
    }
    // Without the table the programs on tcx stop what is queued, and the rest gets past them.
    world.gateway(&["nft", "delete", "table", "netdev", "interceptor"]);
    assert_eq!(send("shown", "5432", "queued").seen, [0; 0]);
    assert_eq!(send("shown", "5432", "direct").seen.len(), SHOWN);
    // Another device has the table set again.
    add_device("icpt-ke-x0");
    until("the table is back", || status(world)["nft_frames"] == true);
    assert_eq!(send("shown", "5432", "direct").seen, [0; 0]);
    lines("ip -n icpt-ke-g link del icpt-ke-x0");
}

/// Outside the cgroup that the programs see, a process with CAP_NET_ADMIN has any mark.
fn marked_frames_on_lo(world: &World) {
    let mut sniffer = world.start(Place::Gateway, None, &["sniff"]);
    assert_eq!(sniffer.line(), "ready");
    for way in ["queued", "direct"] {
        for (port, arrives) in [("6543", false), ("80", true)] {
            let local = 0x1000_0000.to_string();
            let words = [
                "frames",
                "lo",
                "shown",
                "127.0.0.1",
                "::1",
                port,
                way,
                &local,
            ];
            world.run(Place::Gateway, &words);
            sniffer.say("report");
            // Number 1 is the plain one.
            let seen = numbers(&sniffer.line());
            assert_eq!(seen.contains(&1), arrives, "{way} {port}: {seen:?}");
        }
    }
}

/// By a tunnel whose other end is a process.
fn bare_frames(world: &World, relay: &Role) {
    let mut tunnel = world.start(Place::Gateway, None, &["tunnel", "icpt-ke-u0"]);
    assert_eq!(tunnel.line(), "ready");
    relay.wait_for("change device icpt-ke-u0 is covered");
    let mut send = |kind, port, way| {
        let words = [kind, "10.78.2.2", "fd78:2::2", port, way, "0"];
        send(world, &mut tunnel, "icpt-ke-u0", &words)
    };
    for way in ["queued", "direct"] {
        assert_eq!(send("bare", "5432", way).seen, [0; 0], "{way}");
        let other = send("bare", "80", way);
        let seen: Vec<&str> = other
            .seen
            .iter()
            .map(|n| other.names[*n].as_str())
            .collect();
        assert_eq!(
            seen,
            ["v4", "v4 unclaimed", "v4 as something else", "v6"],
            "{way}"
        );
    }
    world.gateway(&["nft", "flush", "chain", "netdev", "interceptor", "raw_bare"]);
    assert!(send("bare", "5432", "direct").seen.len() > 3);
    tunnel.kill();
    relay.wait_for("change device icpt-ke-u0 is gone");
}

fn sources_follow(world: &World) {
    let route = || world.gateway(&["ip", "route", "show", "table", "15001", "10.78.2.2"]);
    assert!(route().contains("src 10.78.2.1 "), "{}", route());
    lines(
        "
ip -n icpt-ke-g addr add 10.78.2.7/24 dev icpt-ke-g1
ip -n icpt-ke-g route replace 10.78.2.0/24 dev icpt-ke-g1 src 10.78.2.7
",
    );
    let took = until("the other source", || route().contains("src 10.78.2.7 "));
    println!(
        "kernel_edge: the source followed after {} ms",
        took.as_millis()
    );
    assert_eq!(app(world), "echo 10.78.2.7");
    lines("ip -n icpt-ke-g addr del 10.78.2.7/24 dev icpt-ke-g1");
    lines("ip -n icpt-ke-g route replace 10.78.2.0/24 dev icpt-ke-g1 src 10.78.2.1");
    until("the first source", || route().contains("src 10.78.2.1 "));
    assert_eq!(app(world), "echo 10.78.2.1");
}

/// A device of the gateway that leads to nowhere: its peer stays down.
fn add_device(name: &str) {
    let base = ["ip", "-n", "icpt-ke-g", "link", "add", name, "type", "veth"];
    command(
        &[
            &base[..],
            &["peer", "name", "icpt-ke-peer", "netns", "icpt-ke-t"],
        ]
        .concat(),
    );
    command(&[
        "ip",
        "-n",
        "icpt-ke-t",
        "link",
        "set",
        "icpt-ke-peer",
        "name",
        &format!("p{name}"),
    ]);
}

/// A client behind a device that was not there before.
fn add_client(device: &str) {
    lines(&format!(
        "
ip link add icpt-ke-c0 netns icpt-ke-c type veth peer name {device} netns icpt-ke-g
ip -n icpt-ke-c addr add 10.78.1.2/24 dev icpt-ke-c0
ip -n icpt-ke-g addr add 10.78.1.1/24 dev {device}
ip -n icpt-ke-c link set icpt-ke-c0 up
ip -n icpt-ke-g link set {device} up
ip -n icpt-ke-c route add default via 10.78.1.1
"
    ));
}

fn milliseconds(carried: &str) -> u64 {
    let words = carried.strip_prefix("carried after ").expect(carried);
    words.split(' ').next().unwrap().parse().unwrap()
}

/// Nobody but the gateway has talked to the target.
fn expect_no_direct(target: &Role) {
    for line in target.lines() {
        assert!(
            line == "connection 10.78.2.1" || line == "connection 10.78.2.7",
            "the target was reached directly: {line}"
        );
    }
}

/// Whether this kernel asks programs before a unix socket connects (since 6.7), by a symbol of its own.
fn has_unix_hook() -> bool {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap();
    symbols.contains(" bpf_sock_addr_set_sun_path")
}

fn expect_carried(world: &World, target: &Role) {
    let line = world.run(Place::Client, &["hammer", TARGET]).remove(0);
    println!("kernel_edge: {line}");
    assert!(
        milliseconds(&line) <= scaled(COVER_MAX).as_millis() as u64,
        "{line}"
    );
    expect_no_direct(target);
}

fn new_device(world: &World, relay: &Role, target: &Role) {
    relay.lines();
    add_client("icpt-ke-l0");
    expect_carried(world, target);
    // In any order: the device is covered bit by bit, and then it is reported.
    let said = [relay.line(), relay.line()];
    for line in [
        "change device icpt-ke-l0 is covered",
        "session 10.78.1.2 10.78.2.2:5432 unknown",
    ] {
        assert!(said.iter().any(|said| said == line), "{said:?}");
    }
    lines("ip -n icpt-ke-g link del icpt-ke-l0");
    relay.wait_for("change device icpt-ke-l0 is gone");
    until("the pins are gone", || links_on(world, None).is_empty());
}

fn uncovered_device(world: &World, relay: &Role, target: &Role) {
    relay.signal("STOP");
    add_client("icpt-ke-l0");
    for _ in 0..5 {
        let line = world.run(Place::Client, &["tcp", TARGET]).remove(0);
        assert_eq!(line, "ConnectionRefused");
    }
    assert_eq!(links_on(world, Some("icpt-ke-l0")), [""; 0]);
    relay.signal("CONT");
    expect_carried(world, target);
    relay.wait_for("change device icpt-ke-l0 is covered");
    assert_eq!(links_on(world, Some("icpt-ke-l0")).len(), 2);
}

fn renamed_and_bridged(world: &World, relay: &Role, target: &Role) {
    // Before 6.2, a device that is up keeps its name.
    lines(
        "ip -n icpt-ke-g link set icpt-ke-l0 down
ip -n icpt-ke-g link set icpt-ke-l0 name icpt-ke-r0
ip -n icpt-ke-g link set icpt-ke-r0 up",
    );
    relay.wait_for("change device icpt-ke-l0 is called icpt-ke-r0 now");
    expect_carried(world, target);
    assert_eq!(links_on(world, Some("icpt-ke-r0")).len(), 2);
    lines(
        "
ip -n icpt-ke-g link add icpt-ke-b0 type bridge
ip -n icpt-ke-g link set icpt-ke-b0 up
ip -n icpt-ke-g addr del 10.78.1.1/24 dev icpt-ke-r0
ip -n icpt-ke-g addr add 10.78.1.1/24 dev icpt-ke-b0
ip -n icpt-ke-g link set icpt-ke-r0 master icpt-ke-b0
",
    );
    relay.wait_for("change device icpt-ke-r0 joined a bridge or bond");
    expect_carried(world, target);
    let links = links_on(world, Some("icpt-ke-r0"));
    assert!(
        links.len() == 1 && links[0].starts_with("egress_"),
        "{links:?}"
    );
    assert_eq!(links_on(world, Some("icpt-ke-b0")).len(), 2);
    lines("ip -n icpt-ke-g link set icpt-ke-r0 nomaster");
    relay.wait_for("change device icpt-ke-r0 left its bridge or bond");
    assert_eq!(links_on(world, Some("icpt-ke-r0")).len(), 2);
    lines("ip -n icpt-ke-g link del icpt-ke-b0");
    lines("ip -n icpt-ke-g link del icpt-ke-r0");
    relay.wait_for("change device icpt-ke-r0 is gone");
}

/// Both ends of the cable begin on the gateway, and one is moved, as container engines do it.
fn moved_device(world: &World, relay: &Role, target: &Role) {
    lines("ip -n icpt-ke-g link add icpt-ke-v0 type veth peer name icpt-ke-c0");
    until("both ends are covered", || {
        ["icpt-ke-v0", "icpt-ke-c0"]
            .iter()
            .all(|name| links_on(world, Some(name)).len() == 2)
    });
    lines(
        "
ip -n icpt-ke-g link set icpt-ke-c0 netns icpt-ke-c
ip -n icpt-ke-c addr add 10.78.1.2/24 dev icpt-ke-c0
ip -n icpt-ke-g addr add 10.78.1.1/24 dev icpt-ke-v0
ip -n icpt-ke-c link set icpt-ke-c0 up
ip -n icpt-ke-g link set icpt-ke-v0 up
ip -n icpt-ke-c route add default via 10.78.1.1
",
    );
    relay.wait_for("change device icpt-ke-c0 is gone");
    expect_carried(world, target);
    lines("ip -n icpt-ke-g link del icpt-ke-v0");
    relay.wait_for("change device icpt-ke-v0 is gone");
}

/// Half of them vanish while they are being covered.
fn many_devices(world: &World, relay: &Role, target: &Role) {
    for index in 0..40 {
        let name = format!("icpt-ke-m{index}");
        add_device(&name);
        if index % 2 == 1 {
            let name = format!("icpt-ke-m{}", index - 1);
            command(&["ip", "-n", "icpt-ke-g", "link", "del", &name]);
        }
    }
    for index in (1..40).step_by(2) {
        let name = format!("icpt-ke-m{index}");
        until(&name, || links_on(world, Some(&name)).len() == 2);
    }
    hundreds_of_devices(world, relay);
    // A name that would end a word of nft, and begin a comment of ip.
    add_device("icpt-ke-\"#;");
    until("the odd name", || {
        links_on(world, Some("icpt-ke-\"#;")).len() == 2
    });
    relay.wait_for("change device \"icpt-ke-\\\"#;\" is guarded by eBPF alone: its name cannot be written in a rule");
    command(&["ip", "-n", "icpt-ke-g", "link", "del", "icpt-ke-\"#;"]);
    assert!(app(world).starts_with("echo"));
    for index in (1..40).step_by(2) {
        let name = format!("icpt-ke-m{index}");
        command(&["ip", "-n", "icpt-ke-g", "link", "del", &name]);
    }
    until("the pins are gone", || {
        links_on(world, None).is_empty() && links_on(world, Some("icpt-ke-m39")).is_empty()
    });
    add_client("icpt-ke-l1");
    expect_carried(world, target);
    lines("ip -n icpt-ke-g link del icpt-ke-l1");
}

/// More than one chain of nft takes.
fn hundreds_of_devices(world: &World, relay: &Role) {
    let pairs = 0..132;
    let batch = |line: &dyn Fn(u32) -> String| {
        let text: String = pairs.clone().map(line).collect();
        let path = world.directory.path().join("batch");
        std::fs::write(&path, text).unwrap();
        command(&["ip", "-n", "icpt-ke-g", "-batch", path.to_str().unwrap()]);
    };
    batch(&|n| format!("link add icpt-ke-h{n} type veth peer name icpt-ke-i{n}\n"));
    let start = Instant::now();
    relay.wait_for("change device icpt-ke-h131 is covered");
    println!(
        "kernel_edge: 264 devices were covered after {} ms",
        start.elapsed().as_millis()
    );
    let chains = world.gateway(&["nft", "list", "table", "netdev", "interceptor"]);
    for name in ["icpt-ke-h131", "icpt-ke-i0"] {
        assert!(chains.contains(name), "{name}");
    }
    assert!(app(world).starts_with("echo"));
    batch(&|n| format!("link del icpt-ke-h{n}\n"));
    relay.wait_for("change device icpt-ke-i131 is gone");
}

fn unix_sockets(world: &World, relay: &mut Role) {
    let directory = world.directory.path().display().to_string();
    let (path, other) = (
        format!("{directory}/.s.PGSQL.5432"),
        format!("{directory}/other"),
    );
    let names = [
        path.as_str(),
        &other,
        "@icpt-ke-database",
        "@icpt-ke-databases",
    ];
    let serve = [["serve", &directory].as_slice(), &names].concat();
    let server = world.start(Place::Gateway, None, &serve);
    assert_eq!(server.line(), "ready");
    let all = [["unix", &directory].as_slice(), &names].concat();
    assert!(world.app(&all).iter().all(|line| line.ends_with(" ok")));

    relay.say("/run/postgresql/.s.PGSQL.5432 @icpt-ke-database");
    relay.wait_for("replaced");
    let parent = format!("{directory}/../{}", directory.rsplit('/').next().unwrap());
    let detours = [
        path.clone(),
        format!("{parent}/.s.PGSQL.5432"),
        format!("{directory}//.s.PGSQL.5432"),
        format!("/proc/self/root/{path}"),
        ".s.PGSQL.5432".to_owned(),
        "./.s.PGSQL.5432".to_owned(),
        "@icpt-ke-database".to_owned(),
    ];
    for detour in &detours {
        let line = world.app(&["unix", &directory, detour]).remove(0);
        assert_eq!(line, format!("{detour} ConnectionRefused"));
    }
    for name in [&other, "other", "@icpt-ke-databases"] {
        let line = world.app(&["unix", &directory, name]).remove(0);
        assert_eq!(line, format!("{name} ok"));
    }
    let refused = |status: Value| {
        let verdicts = status["verdicts"].as_array().unwrap().clone();
        let found = verdicts
            .into_iter()
            .find(|one| one["name"] == "connect_refused_unix");
        found.unwrap()["count"].as_u64().unwrap()
    };
    assert_eq!(refused(status(world)), detours.len() as u64);
    relay.say("/run/");
    relay.wait_for("error: /run/ names no unix socket; give a path that ends in a file name of at most 107 bytes, or @ and an abstract name");
    relay.say("");
    relay.wait_for("replaced");
    assert!(world.app(&all).iter().all(|line| line.ends_with(" ok")));
}

fn named_devices(world: &World, target: &Role) {
    add_client("icpt-ke-n0");
    let relay = start_relay(world, "icpt-ke-n0,icpt-ke-g1");
    expect_carried(world, target);
    lines("ip -n icpt-ke-g link del icpt-ke-n0");
    relay.wait_for("change device icpt-ke-n0 is gone");
    add_device("icpt-ke-o0");
    add_client("icpt-ke-n0");
    expect_carried(world, target);
    relay.wait_for("change device icpt-ke-n0 is covered");
    assert_eq!(links_on(world, Some("icpt-ke-o0")), [""; 0]);
    let mut relay = relay;
    relay.kill();
    // At the start, a name that means nothing is a mistake.
    lines("ip -n icpt-ke-g link del icpt-ke-n0");
    let cgroup = world.cgroup.display().to_string();
    let role = ["relay", cgroup.as_str(), BPFFS, "icpt-ke-n0", TARGETS[0]];
    let told = world.run(Place::Gateway, &role).remove(0);
    assert!(told.contains("there is no device icpt-ke-n0"), "{told}");
}
