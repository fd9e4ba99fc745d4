//! Three network namespaces in a row (client, gateway, target) and a cgroup, made and removed here.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// What every name begins with, so that the leftovers of a killed run are found.
const PREFIX: &str = "icpt-kt-";
const WAIT: Duration = Duration::from_secs(20);

pub(crate) const BPFFS: &str = "/sys/fs/bpf/icpt-kt-pins";

#[derive(Clone, Copy)]
pub(crate) enum Place {
    Client,
    Gateway,
    Target,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::Client => "icpt-kt-c",
            Place::Gateway => "icpt-kt-g",
            Place::Target => "icpt-kt-t",
        }
    }
}

pub(crate) struct World {
    /// Where the programs attach.
    pub(crate) cgroup: PathBuf,
}

/// The namespaces, their addresses and their way to each other.
const NETWORK: &str = "
ip link add icpt-kt-c0 netns icpt-kt-c type veth peer name icpt-kt-g0 netns icpt-kt-g
ip link add icpt-kt-t0 netns icpt-kt-t type veth peer name icpt-kt-g1 netns icpt-kt-g
ip -n icpt-kt-c addr add 10.77.1.2/24 dev icpt-kt-c0
ip -n icpt-kt-c addr add fd77:1::2/64 dev icpt-kt-c0 nodad
ip -n icpt-kt-g addr add 10.77.1.1/24 dev icpt-kt-g0
ip -n icpt-kt-g addr add fd77:1::1/64 dev icpt-kt-g0 nodad
ip -n icpt-kt-g addr add 10.77.2.1/24 dev icpt-kt-g1
ip -n icpt-kt-g addr add fd77:2::1/64 dev icpt-kt-g1 nodad
ip -n icpt-kt-t addr add 10.77.2.2/24 dev icpt-kt-t0
ip -n icpt-kt-t addr add fd77:2::2/64 dev icpt-kt-t0 nodad
ip -n icpt-kt-c link set lo up
ip -n icpt-kt-g link set lo up
ip -n icpt-kt-t link set lo up
ip -n icpt-kt-c link set icpt-kt-c0 up
ip -n icpt-kt-g link set icpt-kt-g0 up
ip -n icpt-kt-g link set icpt-kt-g1 up
ip -n icpt-kt-t link set icpt-kt-t0 up
ip -n icpt-kt-c route add default via 10.77.1.1
ip -n icpt-kt-c route add default via fd77:1::1
ip -n icpt-kt-t route add default via 10.77.2.1
ip -n icpt-kt-t route add default via fd77:2::1
";

impl World {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and loads programs: run it as root"
        );
        let mount = cgroup_mount();
        let world = World {
            cgroup: mount.join("icpt-kt-root"),
        };
        world.remove();
        for place in [Place::Client, Place::Gateway, Place::Target] {
            command(&["ip", "netns", "add", place.name()]);
        }
        for line in NETWORK.lines().filter(|line| !line.is_empty()) {
            command(&line.split(' ').collect::<Vec<_>>());
        }
        world.sysctl("net.ipv4.ip_forward", "1");
        world.sysctl("net.ipv6.conf.all.forwarding", "1");
        std::fs::create_dir(&world.cgroup).unwrap();
        std::fs::create_dir(world.app_cgroup()).unwrap();
        world
    }

    /// Where this host's clients run.
    pub(crate) fn app_cgroup(&self) -> PathBuf {
        self.cgroup.join("app")
    }

    pub(crate) fn proxy_cgroup(&self) -> PathBuf {
        self.cgroup.join("interceptor")
    }

    /// Sets a value in the gateway.
    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        self.gateway(&["sysctl", "-qw", &format!("{name}={value}")]);
    }

    /// Runs a program in the gateway; its standard output.
    pub(crate) fn gateway(&self, words: &[&str]) -> String {
        command(&[&["nsenter", "--net=/run/netns/icpt-kt-g"], words].concat())
    }

    /// Runs a program in the target; its standard output.
    pub(crate) fn target(&self, words: &[&str]) -> String {
        command(&[&["nsenter", "--net=/run/netns/icpt-kt-t"], words].concat())
    }

    /// Starts this program again somewhere, in a role.
    pub(crate) fn start(&self, place: Place, environment: &[(&str, &str)], role: &[&str]) -> Role {
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", place.name()))
            .arg(std::env::current_exe().unwrap())
            .arg("--role")
            .args(role)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if std::env::var_os("ICPT_KT_VERBOSE").is_some() {
                    let _ = writeln!(std::io::stderr(), "  | {line}");
                }
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Role { child, lines }
    }

    /// Starts a role, waits for its end, returns its lines.
    pub(crate) fn run(
        &self,
        place: Place,
        environment: &[(&str, &str)],
        role: &[&str],
    ) -> Vec<String> {
        let mut role = self.start(place, environment, role);
        let lines = role.lines.iter().collect();
        role.child.wait().unwrap();
        lines
    }

    /// A role of a process that runs on the gateway and is subject to it.
    pub(crate) fn app(&self, role: &[&str]) -> Vec<String> {
        let cgroup = self.app_cgroup().display().to_string();
        self.run(Place::Gateway, &[("ICPT_KT_CGROUP", &cgroup)], role)
    }

    fn remove(&self) {
        for place in [Place::Client, Place::Gateway, Place::Target] {
            if std::path::Path::new("/run/netns")
                .join(place.name())
                .exists()
            {
                end_processes(place);
                command(&["ip", "netns", "del", place.name()]);
            }
        }
        let _ = std::fs::remove_dir_all(BPFFS);
        for cgroup in [self.app_cgroup(), self.proxy_cgroup(), self.cgroup.clone()] {
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

/// Processes of a killed run keep its namespace. Only those are ended: the namespace is ours by name.
fn end_processes(place: Place) {
    assert!(place.name().starts_with(PREFIX));
    for pid in command(&["ip", "netns", "pids", place.name()]).split_whitespace() {
        let _ = Command::new("kill").args(["-9", pid]).status();
    }
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

fn command(words: &[&str]) -> String {
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
    pub(crate) fn pid(&self) -> u32 {
        self.child.id() // nsenter executes the program in its own place.
    }

    /// The next line; a failure if there is none.
    pub(crate) fn line(&self) -> String {
        self.lines
            .recv_timeout(WAIT)
            .expect("the process said nothing more")
    }

    /// The lines that are there now.
    pub(crate) fn lines(&self) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(100));
        self.lines.try_iter().collect()
    }

    /// Gives the process a line to read.
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        command(&["kill", &format!("-{name}"), &self.pid().to_string()]);
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
