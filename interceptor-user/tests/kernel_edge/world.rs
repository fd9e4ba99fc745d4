//! Three namespaces (a gateway, a target behind it, a client that is not connected yet) and a cgroup,
//! made and removed here.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// What every name begins with, so that the leftovers of a killed run are found.
pub(crate) const PREFIX: &str = "icpt-ke-";
/// How long a machine under load may take for anything.
const WAIT: Duration = Duration::from_secs(60);

/// A time, longer where the environment says that the machine is slow, as an emulated one is.
pub(crate) fn scaled(time: Duration) -> Duration {
    let slowness = std::env::var("INTERCEPTOR_TEST_SLOWNESS");
    time * slowness
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

pub(crate) const BPFFS: &str = "/sys/fs/bpf/icpt-ke-pins";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Client,
    Gateway,
    Target,
}

impl Place {
    const ALL: [Place; 3] = [Place::Client, Place::Gateway, Place::Target];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Place::Client => "icpt-ke-c",
            Place::Gateway => "icpt-ke-g",
            Place::Target => "icpt-ke-t",
        }
    }
}

pub(crate) struct World {
    pub(crate) cgroup: PathBuf,
    /// For unix sockets.
    pub(crate) directory: tempfile::TempDir,
}

const NETWORK: &str = "
ip link add icpt-ke-t0 netns icpt-ke-t type veth peer name icpt-ke-g1 netns icpt-ke-g
ip -n icpt-ke-g addr add 10.78.2.1/24 dev icpt-ke-g1
ip -n icpt-ke-g addr add fd78:2::1/64 dev icpt-ke-g1 nodad
ip -n icpt-ke-t addr add 10.78.2.2/24 dev icpt-ke-t0
ip -n icpt-ke-t addr add fd78:2::2/64 dev icpt-ke-t0 nodad
ip -n icpt-ke-c link set lo up
ip -n icpt-ke-g link set lo up
ip -n icpt-ke-t link set lo up
ip -n icpt-ke-g link set icpt-ke-g1 up
ip -n icpt-ke-t link set icpt-ke-t0 up
ip -n icpt-ke-t route add default via 10.78.2.1
nsenter --net=/run/netns/icpt-ke-g sysctl -qw net.ipv4.ip_forward=1
";

impl World {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and loads programs: run it as root"
        );
        let world = World {
            cgroup: cgroup_mount().join("icpt-ke-root"),
            directory: tempfile::Builder::new().prefix(PREFIX).tempdir().unwrap(),
        };
        world.remove();
        for place in Place::ALL {
            command(&["ip", "netns", "add", place.name()]);
        }
        lines(NETWORK);
        std::fs::create_dir(&world.cgroup).unwrap();
        std::fs::create_dir(world.app_cgroup()).unwrap();
        world
    }

    /// Where this host's clients run.
    pub(crate) fn app_cgroup(&self) -> PathBuf {
        self.cgroup.join("app")
    }

    fn proxy_cgroup(&self) -> PathBuf {
        self.cgroup.join("interceptor")
    }

    /// Runs a program in the gateway; its standard output.
    pub(crate) fn gateway(&self, words: &[&str]) -> String {
        command(&[&["nsenter", "--net=/run/netns/icpt-ke-g"], words].concat())
    }

    /// Starts this program again somewhere, in a role.
    pub(crate) fn start(&self, place: Place, cgroup: Option<&Path>, role: &[&str]) -> Role {
        let mut program = Command::new("nsenter");
        program
            .arg(format!("--net=/run/netns/{}", place.name()))
            .arg(std::env::current_exe().unwrap())
            .arg("--role")
            .args(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(cgroup) = cgroup {
            program.env("ICPT_KE_CGROUP", cgroup);
        }
        let mut child = program.spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if std::env::var_os("ICPT_KE_VERBOSE").is_some() {
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
    pub(crate) fn run(&self, place: Place, role: &[&str]) -> Vec<String> {
        self.start(place, None, role).finish()
    }

    /// A role of a process that runs on the gateway and is subject to it.
    pub(crate) fn app(&self, role: &[&str]) -> Vec<String> {
        self.start(Place::Gateway, Some(&self.app_cgroup()), role)
            .finish()
    }

    fn remove(&self) {
        for place in Place::ALL {
            if Path::new("/run/netns").join(place.name()).exists() {
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

/// Runs a command for each line.
pub(crate) fn lines(text: &str) {
    for line in text.lines().filter(|line| !line.is_empty()) {
        command(&line.split(' ').collect::<Vec<_>>());
    }
}

pub(crate) fn command(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {text}");
    String::from_utf8(output.stdout).unwrap()
}

/// Looks until it is so; how long that took.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < scaled(WAIT),
            "not so after {WAIT:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// A process of the scenario.
pub(crate) struct Role {
    child: Child,
    lines: Receiver<String>,
}

impl Role {
    /// The next line; a failure if there is none.
    pub(crate) fn line(&self) -> String {
        self.lines
            .recv_timeout(scaled(WAIT))
            .expect("the process said nothing more")
    }

    /// The lines that are there now.
    pub(crate) fn lines(&self) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(100));
        self.lines.try_iter().collect()
    }

    /// Waits for a line, passing over others.
    pub(crate) fn wait_for(&self, wanted: &str) {
        while self.line() != wanted {}
    }

    /// Gives the process a line to read.
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        command(&["kill", &format!("-{name}"), &self.child.id().to_string()]);
    }

    fn finish(mut self) -> Vec<String> {
        let lines = self.lines.iter().collect();
        self.child.wait().unwrap();
        lines
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
