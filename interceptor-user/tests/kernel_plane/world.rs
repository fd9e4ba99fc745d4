//! Three network namespaces in a row (client, gateway, target) and a cgroup, made and removed here.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// What every name begins with, so that the leftovers of a killed run are found.
const PREFIX: &str = "icpt-kt-";
/// Gives another prefix, for runs beside each other: at most eight characters.
const PREFIX_VARIABLE: &str = "ICPT_KT_PREFIX";
const WAIT: Duration = Duration::from_secs(20);

/// A name of ours: of a namespace, a device, a cgroup or a file.
pub(crate) fn name(end: &str) -> String {
    let prefix = std::env::var(PREFIX_VARIABLE).unwrap_or_else(|_| PREFIX.into());
    assert!(prefix.starts_with("icpt-") && prefix.len() <= 8, "{prefix}");
    prefix + end
}

/// Where the pins are.
pub(crate) fn bpffs() -> String {
    format!("/sys/fs/bpf/{}", name("pins"))
}
/// A time, longer where the environment says that the machine is slow, as an emulated one is.
pub(crate) fn scaled(time: Duration) -> Duration {
    let slowness = std::env::var("INTERCEPTOR_TEST_SLOWNESS");
    time * slowness
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

#[derive(Clone, Copy)]
pub(crate) enum Place {
    Client,
    /// Between client and gateway where a scenario puts it there.
    Router,
    Gateway,
    Target,
}

impl Place {
    const ALL: [Place; 4] = [Place::Client, Place::Router, Place::Gateway, Place::Target];

    fn name(self) -> String {
        name(match self {
            Place::Client => "c",
            Place::Router => "r",
            Place::Gateway => "g",
            Place::Target => "t",
        })
    }
}

pub(crate) struct World {
    /// Where the programs attach.
    pub(crate) cgroup: PathBuf,
}

/// The namespaces, their addresses and their way to each other.
const NETWORK: &str = "
ip link add @c0 netns @c type veth peer name @g0 netns @g
ip link add @t0 netns @t type veth peer name @g1 netns @g
ip -n @c addr add 10.77.1.2/24 dev @c0
ip -n @c addr add fd77:1::2/64 dev @c0 nodad
ip -n @g addr add 10.77.1.1/24 dev @g0
ip -n @g addr add fd77:1::1/64 dev @g0 nodad
ip -n @g addr add 10.77.2.1/24 dev @g1
ip -n @g addr add fd77:2::1/64 dev @g1 nodad
ip -n @t addr add 10.77.2.2/24 dev @t0
ip -n @t addr add fd77:2::2/64 dev @t0 nodad
ip -n @c link set lo up
ip -n @g link set lo up
ip -n @t link set lo up
ip -n @c link set @c0 up
ip -n @g link set @g0 up
ip -n @g link set @g1 up
ip -n @t link set @t0 up
ip -n @c route add default via 10.77.1.1
ip -n @c route add default via fd77:1::1
ip -n @t route add default via 10.77.2.1
ip -n @t route add default via fd77:2::1
";

impl World {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and loads programs: run it as root"
        );
        let mount = cgroup_mount();
        let world = World {
            cgroup: mount.join(name("root")),
        };
        world.remove();
        for place in Place::ALL {
            command(&["ip", "netns", "add", &place.name()]);
        }
        world.network(NETWORK);
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

    /// Runs commands, a line each, in which `@` stands for the prefix of our names.
    pub(crate) fn network(&self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let line = line.replace('@', &name(""));
            command(&line.split(' ').collect::<Vec<_>>());
        }
    }

    /// Sets a value in the gateway.
    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        self.gateway(&["sysctl", "-qw", &format!("{name}={value}")]);
    }

    /// Runs a program in the gateway; its standard output.
    pub(crate) fn gateway(&self, words: &[&str]) -> String {
        self.inside(Place::Gateway, words)
    }

    /// Runs a program in the target; its standard output.
    pub(crate) fn target(&self, words: &[&str]) -> String {
        self.inside(Place::Target, words)
    }

    /// Runs a program in a namespace; its standard output.
    pub(crate) fn inside(&self, place: Place, words: &[&str]) -> String {
        let network = format!("--net=/run/netns/{}", place.name());
        command(&[&["nsenter", &network], words].concat())
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
        for place in Place::ALL {
            if std::path::Path::new("/run/netns")
                .join(place.name())
                .exists()
            {
                end_processes(place);
                command(&["ip", "netns", "del", &place.name()]);
            }
        }
        let _ = std::fs::remove_dir_all(bpffs());
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
    for pid in command(&["ip", "netns", "pids", &place.name()]).split_whitespace() {
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
        self.line_within(WAIT)
    }

    pub(crate) fn line_within(&self, wait: Duration) -> String {
        self.lines
            .recv_timeout(scaled(wait))
            .expect("the process said nothing more")
    }

    /// The lines that are there now.
    pub(crate) fn lines(&self) -> Vec<String> {
        std::thread::sleep(scaled(Duration::from_millis(100)));
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
