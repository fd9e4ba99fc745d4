//! The tc filters of kernels without tcx, on any kernel: where they sit, and whose they leave alone.
//!
//! What they do to packets is `kernel_plane`'s, which runs with them too (`ICPT_KT_FILTERS=1`, and on
//! older kernels by `cargo xtask kernels`). Like that, it needs root and fails without.
#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use interceptor_user::kernel::{Plane, PlaneConfig, TargetRoute, detach, feature, status};
use serde_json::Value;

const NAMESPACE: &str = "icpt-kf";
const BPFFS: &str = "/sys/fs/bpf/icpt-kf-pins";
/// Pairs of devices in one namespace: one to ourselves, one with a filter of somebody else's, and one
/// with somebody's empty qdisc.
const PAIRS: [(&str, &str); 3] = [
    ("ours", "ours-p"),
    ("shared", "shared-p"),
    ("empty", "empty-p"),
];
/// A classic program that matches nothing: somebody else's.
const FOREIGN: &str = "1,6 0 0 0,";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    feature::assume_no_tcx();
    match arguments.as_slice() {
        ["--role", "attach"] => attach(),
        ["--role", "detach"] => println!("{:?}", detach(Some(&cgroup()), Path::new(BPFFS))),
        ["--role", "status"] => println!(
            "{}",
            serde_json::to_string(&status(Path::new(BPFFS)).unwrap()).unwrap()
        ),
        // What a test runner asks before it runs anything.
        words if words.contains(&"--list") => println!("filters: test"),
        _ => scenario(),
    }
}

fn scenario() {
    let world = World::new();
    tc("qdisc add dev shared clsact");
    tc("qdisc add dev empty clsact");
    add_foreign("shared", 7, None);

    // Each device has one of ours in each direction, first in line.
    assert_eq!(role("attach"), "attached\n");
    let before = ours("ours", "ingress");
    for device in devices() {
        for direction in ["ingress", "egress"] {
            assert_eq!(filters(&device, direction)[0]["pref"], 1, "{device}");
            let name = ours(&device, direction)["bpf_name"].to_string();
            let framing = if device == "lo" { "lo" } else { "ether" };
            let program = format!("{direction}_{framing}:");
            assert!(name.contains(&program), "{device}: {name}");
        }
    }
    let status: Value = serde_json::from_str(&role("status")).unwrap();
    let links = status["links"].as_array().unwrap();
    let listed = links.iter().filter(|link| link["link_id"].is_null());
    assert_eq!(listed.count(), devices().len() * 2);

    // The next gateway takes the place of the first.
    assert_eq!(role("attach"), "attached\n");
    let after = ours("ours", "ingress");
    assert_ne!(before["prog"]["id"], after["prog"]["id"]);
    assert_eq!(filters("ours", "ingress").len(), 1);

    // Somebody else in our place is not thrown out.
    tc("filter del dev ours ingress");
    add_foreign("ours", 1, Some("0x3a99"));
    let refused = role("attach");
    assert!(
        refused.contains("cannot attach ingress_ether to ours: another program has the tc filter"),
        "{refused}"
    );
    tc("filter del dev ours ingress");
    assert_eq!(role("attach"), "attached\n");

    // Detached, what was there before is there, and nothing more.
    add_foreign("ours", 9, None);
    assert_eq!(role("detach"), "Ok(())\n");
    for (device, foreign, has_qdisc) in [
        ("ours", 1, true),
        ("ours-p", 0, false),
        ("shared", 1, true),
        ("empty", 0, true),
        ("lo", 0, false),
    ] {
        assert_eq!(filters(device, "ingress").len(), foreign, "{device}");
        assert_eq!(filters(device, "egress").len(), 0, "{device}");
        let qdiscs = tc(&format!("qdisc show dev {device}"));
        assert_eq!(qdiscs.contains("clsact"), has_qdisc, "{device}: {qdiscs}");
    }
    drop(world);
    println!("filters: all steps passed");
}

/// Attaches the plane and leaves it behind.
fn attach() {
    let config = PlaneConfig {
        cgroup: Some(cgroup()),
        bpffs: BPFFS.into(),
        targets: vec![TargetRoute {
            network: "10.77.2.2/32".parse().unwrap(),
            ports: 5432..=5432,
            target: 0,
            preserve_client_address: false,
        }],
        ..PlaneConfig::default()
    };
    match Plane::attach(&config) {
        Ok(_) => println!("attached"),
        Err(error) => println!("{error}"),
    }
}

fn add_foreign(device: &str, priority: u32, handle: Option<&str>) {
    let handle = handle.map_or(String::new(), |handle| format!("handle {handle} "));
    let words = format!("filter add dev {device} ingress prio {priority} {handle}bpf bytecode");
    let words: Vec<&str> = words.split(' ').chain([FOREIGN]).collect();
    inside("tc", &words);
}

/// Our filter's `options`, of which there must be one.
fn ours(device: &str, direction: &str) -> Value {
    let mut ours: Vec<Value> = filters(device, direction)
        .into_iter()
        .map(|filter| filter["options"].clone())
        .filter(|options| options["handle"] == "0x3a99" && options["direct-action"] == true)
        .collect();
    assert_eq!(ours.len(), 1, "{device} {direction}");
    ours.remove(0)
}

/// The filters of a device, first to last. `tc` also lists a priority without its filters.
fn filters(device: &str, direction: &str) -> Vec<Value> {
    let text = tc(&format!("-json filter show dev {device} {direction}"));
    let list: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    list.into_iter()
        .filter(|filter| filter.get("options").is_some())
        .collect()
}

fn tc(words: &str) -> String {
    inside("tc", &words.split(' ').collect::<Vec<_>>())
}

/// Runs this program again in the namespace; what it says.
fn role(name: &str) -> String {
    let myself = std::env::current_exe().unwrap();
    inside(myself.to_str().unwrap(), &["--role", name])
}

fn inside(program: &str, words: &[&str]) -> String {
    let net = format!("--net=/run/netns/{NAMESPACE}");
    run("nsenter", &[&[net.as_str(), program], words].concat())
}

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {text}");
    String::from_utf8(output.stdout).unwrap()
}

fn devices() -> Vec<String> {
    let pairs = PAIRS.iter().flat_map(|(one, other)| [*one, *other]);
    ["lo"].into_iter().chain(pairs).map(str::to_owned).collect()
}

fn cgroup() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut lines = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = lines.find(|fields| fields[2] == "cgroup2");
    Path::new(mount.expect("cgroup2 is not mounted")[1]).join("icpt-kf-root")
}

/// The namespace and the cgroup; made and removed here.
struct World;

impl World {
    fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes a network namespace and loads programs: run it as root"
        );
        let world = World;
        world.remove();
        run("ip", &["netns", "add", NAMESPACE]);
        std::fs::create_dir(cgroup()).unwrap();
        inside("ip", &["link", "set", "lo", "up"]);
        for (one, other) in PAIRS {
            inside(
                "ip",
                &["link", "add", one, "type", "veth", "peer", "name", other],
            );
        }
        world
    }

    fn remove(&self) {
        if Path::new("/run/netns").join(NAMESPACE).exists() {
            run("ip", &["netns", "del", NAMESPACE]);
        }
        let _ = std::fs::remove_dir_all(BPFFS);
        for directory in [cgroup().join("interceptor"), cgroup()] {
            for _ in 0..100 {
                if !directory.exists() || std::fs::remove_dir(&directory).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.remove();
    }
}
