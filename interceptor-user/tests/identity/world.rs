//! Four network namespaces around a gateway, a cgroup and two small programs, made and removed here.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A SYN that meets an old connection's remains is tried again for so long.
const WAIT: Duration = Duration::from_secs(90);

pub(crate) const BPFFS: &str = "/sys/fs/bpf/icpt-id-pins";
/// Where the two programs are.
const PROGRAMS: &str = "/tmp/icpt-id-programs";

pub(crate) const TARGET_V4: &str = "10.78.2.2:5432";
pub(crate) const TARGET_V6: &str = "[fd78:2::2]:5432";
/// A second port of the target.
pub(crate) const SECOND_V4: &str = "10.78.2.2:5433";
/// The same host on a port that is nobody's target.
pub(crate) const OTHER_V4: &str = "10.78.2.2:80";
pub(crate) const TARGETS: [&str; 3] = [
    "10.78.2.2/32=5432-5433",
    "fd78:2::/64=5432",
    "10.78.0.0/16=53",
];

/// A container as Docker names it.
pub(crate) const CONTAINER: &str =
    "abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Gateway,
    Target,
    /// A container's namespace, at 10.78.1.2.
    Container,
    /// Another one, at 10.78.3.2 and, forged, at 10.78.1.2.
    Forger,
}

impl Place {
    const ALL: [Place; 4] = [
        Place::Gateway,
        Place::Target,
        Place::Container,
        Place::Forger,
    ];

    fn name(self) -> &'static str {
        match self {
            Place::Gateway => "icpt-id-g",
            Place::Target => "icpt-id-t",
            Place::Container => "icpt-id-c",
            Place::Forger => "icpt-id-f",
        }
    }

    /// Its namespace's inode number.
    pub(crate) fn netns(self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let path = Path::new("/run/netns").join(self.name());
        std::fs::metadata(path).unwrap().ino()
    }
}

const NETWORK: &str = "
ip link add icpt-id-c0 netns icpt-id-c type veth peer name icpt-id-g0 netns icpt-id-g
ip link add icpt-id-t0 netns icpt-id-t type veth peer name icpt-id-g1 netns icpt-id-g
ip link add icpt-id-f0 netns icpt-id-f type veth peer name icpt-id-g2 netns icpt-id-g
ip -n icpt-id-c addr add 10.78.1.2/24 dev icpt-id-c0
ip -n icpt-id-c addr add fd78:1::2/64 dev icpt-id-c0 nodad
ip -n icpt-id-g addr add 10.78.1.1/24 dev icpt-id-g0
ip -n icpt-id-g addr add fd78:1::1/64 dev icpt-id-g0 nodad
ip -n icpt-id-g addr add 10.78.2.1/24 dev icpt-id-g1
ip -n icpt-id-g addr add fd78:2::1/64 dev icpt-id-g1 nodad
ip -n icpt-id-g addr add 10.78.3.1/24 dev icpt-id-g2
ip -n icpt-id-t addr add 10.78.2.2/24 dev icpt-id-t0
ip -n icpt-id-t addr add fd78:2::2/64 dev icpt-id-t0 nodad
ip -n icpt-id-f addr add 10.78.3.2/24 dev icpt-id-f0
ip -n icpt-id-f addr add 10.78.1.2/32 dev icpt-id-f0
ip -n icpt-id-c link set lo up
ip -n icpt-id-g link set lo up
ip -n icpt-id-t link set lo up
ip -n icpt-id-f link set lo up
ip -n icpt-id-c link set icpt-id-c0 up
ip -n icpt-id-g link set icpt-id-g0 up
ip -n icpt-id-g link set icpt-id-g1 up
ip -n icpt-id-g link set icpt-id-g2 up
ip -n icpt-id-t link set icpt-id-t0 up
ip -n icpt-id-f link set icpt-id-f0 up
ip -n icpt-id-c route add default via 10.78.1.1
ip -n icpt-id-c route add default via fd78:1::1
ip -n icpt-id-t route add default via 10.78.2.1
ip -n icpt-id-t route add default via fd78:2::1
ip -n icpt-id-f route add default via 10.78.3.1
";

pub(crate) struct World {
    /// Where the programs attach.
    pub(crate) cgroup: PathBuf,
}

impl World {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and loads programs: run it as root"
        );
        let world = World {
            cgroup: cgroup_mount().join("icpt-id-root"),
        };
        world.remove();
        for place in Place::ALL {
            command(&["ip", "netns", "add", place.name()]);
        }
        for line in NETWORK.lines().filter(|line| !line.is_empty()) {
            command(&line.split(' ').collect::<Vec<_>>());
        }
        for setting in [
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            // A client may send data in its SYN without having been there before.
            "net.ipv4.tcp_fastopen=5",
        ] {
            world.at(Place::Gateway, &["sysctl", "-qw", setting]);
        }
        std::fs::create_dir(&world.cgroup).unwrap();
        std::fs::create_dir(world.app_cgroup()).unwrap();
        std::fs::create_dir(world.container_cgroup()).unwrap();
        make_programs();
        world
    }

    /// Where this host's clients run.
    pub(crate) fn app_cgroup(&self) -> PathBuf {
        self.cgroup.join("app")
    }

    pub(crate) fn container_cgroup(&self) -> PathBuf {
        self.cgroup.join(format!("docker-{CONTAINER}.scope"))
    }

    /// Runs a program in a namespace; its standard output.
    pub(crate) fn at(&self, place: Place, words: &[&str]) -> String {
        let netns = format!("--net=/run/netns/{}", place.name());
        command(&[&["nsenter", &netns], words].concat())
    }

    /// Starts a program in a namespace, as one of the cgroup's processes if one is given.
    pub(crate) fn start(&self, place: Place, cgroup: Option<&Path>, words: &[&str]) -> Role {
        let procs = cgroup.map(|cgroup| cgroup.join("cgroup.procs").display().to_string());
        // The shell enters the cgroup and executes nsenter, which executes the program, in its place.
        let script = "[ -z \"$0\" ] || echo 0 > \"$0\"; exec nsenter \"$@\"";
        let netns = format!("--net=/run/netns/{}", place.name());
        let mut child = Command::new("sh")
            .args(["-c", script, &procs.unwrap_or_default(), &netns])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if std::env::var_os("ICPT_ID_VERBOSE").is_some() {
                    let _ = writeln!(std::io::stderr(), "  | {line}");
                }
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Role { child, lines }
    }

    /// Starts this program again in a role.
    pub(crate) fn role(&self, place: Place, cgroup: Option<&Path>, role: &[&str]) -> Role {
        let program = std::env::current_exe().unwrap();
        let words = [&[program.to_str().unwrap(), "--role"], role].concat();
        self.start(place, cgroup, &words)
    }

    /// A client process of the gateway host.
    pub(crate) fn app(&self, role: &[&str]) -> Role {
        self.role(Place::Gateway, Some(&self.app_cgroup()), role)
    }

    /// The gateway's proxy; `delay_ms` is how long it takes to look at a process.
    pub(crate) fn relay(&self, delay_ms: u32) -> Relay {
        let (cgroup, delay) = (self.cgroup.display().to_string(), delay_ms.to_string());
        let role = [["relay", &cgroup, BPFFS, &delay].as_slice(), &TARGETS].concat();
        let role = self.role(Place::Gateway, None, &role);
        let ready = role.line();
        let severed = ready
            .strip_prefix("ready ")
            .unwrap_or_else(|| panic!("{ready}"));
        Relay {
            severed: severed.to_owned(),
            role,
        }
    }

    fn remove(&self) {
        for place in Place::ALL {
            if Path::new("/run/netns").join(place.name()).exists() {
                // The namespace is ours by name; its processes are those of a killed run.
                for pid in command(&["ip", "netns", "pids", place.name()]).split_whitespace() {
                    let _ = Command::new("kill").args(["-9", pid]).status();
                }
                command(&["ip", "netns", "del", place.name()]);
            }
        }
        let _ = std::fs::remove_dir_all(BPFFS);
        let _ = std::fs::remove_dir_all(PROGRAMS);
        let proxy = self.cgroup.join("interceptor");
        for cgroup in [
            self.app_cgroup(),
            self.container_cgroup(),
            proxy,
            self.cgroup.clone(),
        ] {
            for _ in 0..100 {
                if !cgroup.exists() || std::fs::remove_dir(&cgroup).is_ok() {
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

/// Two shells that differ in a byte: small programs that connect, execute and leave.
fn make_programs() {
    std::fs::create_dir(PROGRAMS).unwrap();
    let shell = std::fs::read("/bin/bash").unwrap();
    for (name, end) in [("one", b"1"), ("two", b"2")] {
        let path = program(name);
        std::fs::write(&path, [shell.as_slice(), end].concat()).unwrap();
        command(&["chmod", "755", &path]);
    }
}

pub(crate) fn program(name: &str) -> String {
    format!("{PROGRAMS}/{name}")
}

/// SHA-256 of a file in hex.
pub(crate) fn hash(path: &str) -> String {
    hex::encode(Sha256::digest(std::fs::read(path).unwrap()))
}

fn cgroup_mount() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    line.expect("cgroup2 is not mounted")
        .split(' ')
        .nth(1)
        .unwrap()
        .into()
}

pub(crate) fn command(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {text}");
    String::from_utf8(output.stdout).unwrap()
}

/// A process of the scenario.
pub(crate) struct Role {
    child: Child,
    lines: Receiver<String>,
}

impl Role {
    pub(crate) fn pid(&self) -> u64 {
        u64::from(self.child.id())
    }

    /// The next line; a failure if there is none.
    pub(crate) fn line(&self) -> String {
        self.line_within(WAIT)
            .expect("the process said nothing more")
    }

    pub(crate) fn line_within(&self, limit: Duration) -> Option<String> {
        self.lines.recv_timeout(limit).ok()
    }

    pub(crate) fn wait(&mut self) {
        self.child.wait().unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The proxy, which says of each session whose it is.
pub(crate) struct Relay {
    pub(crate) role: Role,
    pub(crate) severed: String,
}

impl Relay {
    /// The next session: its addresses and its process, null if that is unknown.
    pub(crate) fn session(&self) -> Value {
        self.session_within(WAIT).unwrap_or_else(|| {
            panic!(
                "no session came: {}",
                command(&["nsenter", "--net=/run/netns/icpt-id-g", "ss", "-tanp"])
            )
        })
    }

    pub(crate) fn session_within(&self, limit: Duration) -> Option<Value> {
        let line = self.role.line_within(limit)?;
        Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")))
    }

    /// So many sessions by the pid of their processes.
    pub(crate) fn sessions(&self, count: usize) -> BTreeMap<u64, Value> {
        (0..count)
            .map(|_| {
                let session = self.session();
                (session["process"]["pid"].as_u64().unwrap_or(0), session)
            })
            .collect()
    }
}
