//! Clients in other network namespaces, and those that only look like them.

use std::time::Duration;

use crate::processes::targets;
use crate::step;
use crate::world::{CONTAINER, Place, TARGET_V4, TARGET_V6, World};

const SOURCE: &str = "10.78.1.2:40000";
const SOON: Duration = Duration::from_secs(3);

pub(crate) fn containers_are_known(world: &World) {
    step("a container in its own network namespace is known");
    let _targets = targets(world);
    let relay = world.relay(0);
    let cgroup = world.container_cgroup();
    for address in [TARGET_V4, TARGET_V6] {
        let role = world.role(Place::Container, Some(&cgroup), &["tcp", address]);
        let process = relay.session()["process"].take();
        assert_eq!(process["pid"], role.pid());
        assert_eq!(process["container"], format!("docker://{CONTAINER}"));
        assert_eq!(process["unit"], format!("docker-{CONTAINER}.scope"));
        assert_eq!(process["netns"], Place::Container.netns());
        assert_eq!(process["own"], false);
        assert_ne!(process["hash"], "");
    }
    step("a user's cgroup can name itself, and is not believed");
    std::fs::create_dir(cgroup.join("inner")).unwrap();
    let users = world.app_cgroup().join(format!("docker-{CONTAINER}.scope"));
    std::fs::create_dir(&users).unwrap();
    nix::unistd::chown(&users, Some(65534.into()), None).unwrap();
    let mut role = world.role(Place::Container, Some(&users), &["tcp", TARGET_V4]);
    let process = relay.session()["process"].take();
    assert_eq!(
        (&process["container"], &process["unit"]),
        (&"".into(), &"".into())
    );
    assert_eq!(process["pid"], role.pid());
    role.kill();
    std::fs::remove_dir(&users).unwrap();
    std::fs::remove_dir(cgroup.join("inner")).unwrap();
}

/// The processes here are outside the cgroup, as clients on other machines are: the gateway sees
/// nothing of them but packets.
pub(crate) fn strangers_stay_unknown(world: &World) {
    let _targets = targets(world);
    let relay = world.relay(0);
    let cgroup = world.container_cgroup();
    let from = ["from", SOURCE, TARGET_V4];
    step("a routed client is unknown");
    let mut stranger = world.role(Place::Container, None, &from);
    assert!(relay.session()["process"].is_null());
    stranger.kill();

    step("also with the address and port of a local client of a moment ago");
    for _ in 0..3 {
        let mut known = world.role(Place::Container, Some(&cgroup), &from);
        let session = relay.session();
        assert_eq!(session["client"], SOURCE);
        assert_eq!(session["process"]["pid"], known.pid());
        known.kill();
        let mut stranger = world.role(Place::Container, None, &from);
        let session = relay.session();
        assert_eq!(
            (&session["client"], session["process"].is_null()),
            (&SOURCE.into(), true)
        );
        stranger.kill();
    }

    step("also with those of a local client that never arrived");
    let set_neighbour = |words: &[&str]| {
        let words = [
            &["ip", "neigh", "replace", "10.78.1.1", "dev", "icpt-id-c0"],
            words,
        ]
        .concat();
        world.at(Place::Container, &words);
    };
    let links = world.at(Place::Gateway, &["ip", "-br", "link", "show", "icpt-id-g0"]);
    let real = links.split_whitespace().nth(2).unwrap();
    set_neighbour(&["lladdr", "02:00:00:00:00:99", "nud", "permanent"]);
    let mut lost = world.role(Place::Container, Some(&cgroup), &from);
    assert_eq!(lost.line(), "connecting");
    std::thread::sleep(Duration::from_millis(300));
    lost.kill();
    set_neighbour(&["lladdr", real, "nud", "permanent"]);
    let mut stranger = world.role(Place::Container, None, &from);
    let session = relay.session();
    assert_eq!(
        (&session["client"], session["process"].is_null()),
        (&SOURCE.into(), true)
    );
    stranger.kill();

    step("a forged address in another container does not make its process the client");
    for device in ["all", "icpt-id-g2"] {
        let setting = format!("net.ipv4.conf.{device}.rp_filter=0");
        world.at(Place::Gateway, &["sysctl", "-qw", &setting]);
    }
    for attempt in 0..3 {
        let source = format!("10.78.1.2:{}", 41000 + attempt);
        let from = ["from", source.as_str(), TARGET_V4];
        let forger = world.role(Place::Forger, Some(&cgroup), &from);
        assert_eq!(forger.line(), "connecting");
        let mut client = world.role(Place::Container, Some(&cgroup), &from);
        assert_eq!(client.line(), "connecting");
        let Some(session) = relay.session_within(SOON * 2) else {
            println!("identity:   neither arrived");
            continue;
        };
        assert_eq!(session["client"], source);
        let pid = &session["process"]["pid"];
        assert!(
            pid.is_null() || *pid == client.pid(),
            "{session}, but the client is {}",
            client.pid()
        );
        client.kill();
    }
}
