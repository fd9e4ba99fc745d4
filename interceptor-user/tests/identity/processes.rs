//! Processes of the gateway host: the right answer, or none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::step;
use crate::world::{Place, Relay, Role, SECOND_V4, TARGET_V4, TARGET_V6, World, hash, program};

const NOBODY: &str = "65534";

/// Targets of this part; they live as long as the result.
pub(crate) fn targets(world: &World) -> [Role; 2] {
    ["5432", "5433"].map(|port| {
        let role = world.role(Place::Target, None, &["echo", port]);
        assert_eq!(role.line(), "ready");
        role
    })
}

pub(crate) fn processes_are_known(world: &World) {
    step("a process is known with all that there is to know");
    let _targets = targets(world);
    let relay = world.relay(0);
    let this = std::env::current_exe().unwrap().display().to_string();
    let this_hash = hash(&this);
    for address in [TARGET_V4, TARGET_V6, "[::ffff:10.78.2.2]:5432"] {
        for user in ["0", NOBODY] {
            let role = world.app(&["as", user, address]);
            let (session, id) = (relay.session(), user.parse::<u32>().unwrap());
            let process = &session["process"];
            let expected = json!({
                "uid": id, "gid": id, "pid": role.pid(), "tid": role.pid(),
                "comm": process["comm"], "started": process["started"],
                "executable": this, "elsewhere": "", "hash": this_hash,
                "command_line": format!("{this} --role as {user} {address}"),
                "cgroup": "/icpt-id-root/app", "container": "", "unit": "",
                "netns": Place::Gateway.netns(), "own": true,
            });
            assert_eq!(process, &expected);
            assert_started_lately(process);
            role.line();
        }
    }
    step("a thread that connects is told apart from its process");
    let role = world.app(&["thread", TARGET_V4]);
    let process = relay.session()["process"].take();
    let line = role.line();
    let (_, tid) = line.rsplit_once(' ').unwrap();
    assert_eq!(process["tid"].to_string(), tid);
    assert_eq!(process["pid"], role.pid());
    assert_ne!(process["tid"], process["pid"]);
    assert_eq!(process["hash"], this_hash);
}

fn assert_started_lately(process: &Value) {
    let started = process["started"].as_u64().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    assert!(now - started < 60_000_000_000, "{started} {now}");
}

/// A shell of one of the two programs.
fn shell(world: &World, name: &str, script: &str) -> Role {
    let path = program(name);
    let words = [path.as_str(), "-c", script];
    world.start(Place::Gateway, Some(&world.app_cgroup()), &words)
}

/// For a shell: open a connection as descriptor 3.
fn dial(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap();
    format!("exec 3<>/dev/tcp/{host}/{port}")
}

fn assert_unknown_program(process: &Value) {
    for field in ["executable", "elsewhere", "hash", "command_line"] {
        assert_eq!(process[field], "", "{process}");
    }
    assert_eq!(process["cgroup"], "/icpt-id-root/app");
}

pub(crate) fn another_program_is_never_taken_for_it(world: &World) {
    let _targets = targets(world);
    let slow = world.relay(300);
    let (dial, two) = (dial(TARGET_V4), program("two"));

    step("a program that was executed since is not the one that connected");
    for script in [
        format!("{dial}; exec {two} -c 'read line'"),
        // Twice, so that it is the same program again.
        format!(
            "{dial}; exec {two} -c 'exec {} -c \"read line\"'",
            program("one")
        ),
    ] {
        let role = shell(world, "one", &script);
        let session = slow.session();
        assert_eq!(session["process"]["pid"], role.pid());
        assert_unknown_program(&session["process"]);
    }
    step("nor is one that another thread executed");
    let role = world.app(&["thread-exec", &two, TARGET_V4]);
    let session = slow.session();
    assert_eq!(session["process"]["pid"], role.pid());
    assert_ne!(session["process"]["tid"], role.pid());
    assert_unknown_program(&session["process"]);
    drop(role);
    step("a process that is gone has no program");
    let mut role = shell(world, "one", &format!("{dial}; echo hello >&3"));
    role.wait();
    let session = slow.session();
    assert_eq!(session["process"]["pid"], role.pid());
    assert_unknown_program(&session["process"]);
    drop(slow);

    let relay = world.relay(0);
    step("an inherited descriptor is the connector's");
    let script = format!("{dial}; {two} -c 'echo hello >&3; read line <&3; read line'; read line");
    let role = shell(world, "one", &script);
    let session = relay.session();
    assert_eq!(session["process"]["pid"], role.pid());
    assert_eq!(session["process"]["hash"], hash(&program("one")));
    step("a connection that is put off has no program");
    let role = world.app(&["deferred", TARGET_V4]);
    let session = relay.session();
    assert_eq!(session["process"]["pid"], role.pid());
    assert_unknown_program(&session["process"]);
    a_path_elsewhere_is_not_taken_for_ours(world, &relay);
    a_users_own_mount_has_no_hash(world, &relay);
    races(world, &relay);
}

/// A user can mount anything over a path, in a namespace of their own.
fn a_path_elsewhere_is_not_taken_for_ours(world: &World, relay: &Relay) {
    step("a path in another mount namespace is not taken for ours");
    let (one, two) = (program("one"), program("two"));
    let script = format!(
        "mount --bind {two} {one}; exec {one} -c '{}; read line'",
        dial(TARGET_V4)
    );
    let words = ["unshare", "-m", "sh", "-c", &script];
    let role = world.start(Place::Gateway, Some(&world.app_cgroup()), &words);
    let process = relay.session()["process"].take();
    assert_eq!(process["pid"], role.pid());
    assert_eq!(process["executable"], "");
    assert_eq!(process["elsewhere"], one);
    assert_eq!(process["hash"], hash(&two));
}

/// Who mounts a file system decides what a reader of it gets.
fn a_users_own_mount_has_no_hash(world: &World, relay: &Relay) {
    step("a file that a user's own namespace mounted has no hash");
    let script = format!(
        "mount -t tmpfs none /mnt; cp {} /mnt/one; exec /mnt/one -c '{}; read line'",
        program("one"),
        dial(TARGET_V4)
    );
    let words = ["unshare", "-U", "-r", "-m", "sh", "-c", &script];
    let role = world.start(Place::Gateway, Some(&world.app_cgroup()), &words);
    let process = relay.session()["process"].take();
    assert_eq!(process["pid"], role.pid());
    assert_eq!(process["elsewhere"], "/mnt/one");
    assert_eq!(
        (&process["executable"], &process["hash"]),
        (&json!(""), &json!(""))
    );
}

/// Executes at about the moment at which the proxy looks, many times.
fn races(world: &World, relay: &Relay) {
    step("a race between looking and executing is never lost");
    let (one, script) = (
        hash(&program("one")),
        format!(
            "{}; exec {} -c 'read line'",
            dial(TARGET_V4),
            program("two")
        ),
    );
    let (mut known, mut unknown) = (0, 0);
    for _ in 0..10 {
        let roles: Vec<Role> = (0..10).map(|_| shell(world, "one", &script)).collect();
        let sessions = relay.sessions(roles.len());
        for role in roles {
            let process = &sessions[&role.pid()]["process"];
            if process["hash"] == "" {
                assert_unknown_program(process);
                unknown += 1;
            } else {
                assert_eq!(
                    (&process["hash"], &process["executable"]),
                    (&json!(one), &json!(program("one")))
                );
                assert!(
                    process["command_line"]
                        .as_str()
                        .unwrap()
                        .starts_with(&program("one"))
                );
                known += 1;
            }
        }
    }
    println!("identity:   {known} known, {unknown} unknown, none wrong");
}

pub(crate) fn io_uring_is_its_process(world: &World) {
    step("a connection by io_uring is its process's");
    let _targets = targets(world);
    let relay = world.relay(0);
    let this_hash = hash(std::env::current_exe().unwrap().to_str().unwrap());
    for way in ["plain", "worker", "polled"] {
        let role = world.app(&["uring", way, TARGET_V4]);
        let process = relay.session()["process"].take();
        assert_eq!(process["pid"], role.pid(), "{way}");
        assert_eq!(process["uid"], 0, "{way}");
        assert_eq!(process["hash"], this_hash, "{way}");
        assert_eq!(
            process["tid"] == process["pid"],
            way == "plain",
            "{way}: {process}"
        );
    }
}

/// Two programs, a target for each: a wrong answer would show as the other's hash or pid.
pub(crate) fn many_at_once(world: &World) {
    step("two hundred at once are not mistaken for each other");
    let _targets = targets(world);
    let relay = world.relay(0);
    let mut roles: BTreeMap<u64, (Role, &str)> = BTreeMap::new();
    for index in 0..200 {
        let (name, address) = [("one", TARGET_V4), ("two", SECOND_V4)][index % 2];
        // A half leaves at once.
        let rest = if index % 4 < 2 { "" } else { "; read line" };
        let role = shell(
            world,
            name,
            &format!("{}; echo hello >&3{rest}", dial(address)),
        );
        roles.insert(role.pid(), (role, name));
    }
    let mut known = 0;
    for (pid, session) in relay.sessions(roles.len()) {
        let name = roles[&pid].1;
        let process = &session["process"];
        let port = if name == "one" { ":5432" } else { ":5433" };
        assert!(
            session["target"].as_str().unwrap().ends_with(port),
            "{session}"
        );
        if process["hash"] == "" {
            assert_unknown_program(process);
            continue;
        }
        known += 1;
        assert_eq!(process["hash"], hash(&program(name)), "{session}");
        assert_eq!(process["executable"], program(name), "{session}");
    }
    println!(
        "identity:   {known} of {} programs known, none wrong",
        roles.len()
    );
    assert!(known >= roles.len() / 2, "those that stayed must be known");
}

/// Not a test: a figure for the person who reads.
pub(crate) fn cost(world: &World) {
    step("what it costs to look at a client");
    let _targets = targets(world);
    let relay = world.relay(0);
    let count = 500;
    // The program's file is read once, for its hash.
    let first = world.app(&["rate", "1", TARGET_V4]);
    let first_us = relay.session()["looked_ns"].as_u64().unwrap() / 1000;
    first.line();
    let role = world.app(&["rate", "500", TARGET_V4]);
    let mut looked: Vec<u64> = (0..count)
        .map(|_| relay.session()["looked_ns"].as_u64().unwrap())
        .collect();
    looked.sort_unstable();
    println!(
        "identity:   {} us in the middle of {count}, {first_us} us the first time, {} us for a connection with its first answer",
        looked[count / 2] / 1000,
        role.line().parse::<u64>().unwrap() / 1000
    );
}
