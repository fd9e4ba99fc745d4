//! What a row of the catalogue says.

use serde_json::{Map, Value, json};

/// Where an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A process of the gateway host, in a cgroup that the gateway watches.
    Host,
    /// The same in a network namespace of its own, behind a veth pair: a container.
    Container,
    /// Another machine, whose packets are routed through the gateway.
    Client,
    /// Another machine behind a device that appeared after the gateway's start.
    Late,
}

impl Place {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Container => "container",
            Self::Client => "client",
            Self::Late => "new device",
        }
    }
}

/// Who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// An account without any privilege.
    User,
    /// The same with one capability.
    NetRaw,
    /// The same with another.
    NetAdmin,
    /// Root whose capabilities are gone.
    BareRoot,
    /// Root, where another machine's or the operator's is meant.
    Root,
}

impl Who {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::NetRaw => "CAP_NET_RAW",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::BareRoot => "uid 0, no caps",
            Self::Root => "root",
        }
    }
}

/// What the gateway does at the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It serves; the attempt has begun before it started.
    Held,
    /// It serves.
    Serving,
    /// Its process is stopped.
    Stopped,
    /// It serves, and the attempt breaks a part of the plane; the gateway starts anew after it.
    Broken,
    /// Its process was killed.
    Dead,
}

/// What should come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The gateway takes the connection; nothing reaches the target.
    Carried,
    /// Nothing reaches the target, and no connection comes to be.
    Refused,
    /// One or the other: it depends on how soon the gateway mends what the attempt broke, or closes
    /// the connection.
    Kept,
    /// It reaches the target: no gateway on this host stops it.
    Passes,
}

impl Expected {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Carried => "carried",
            Self::Refused => "refused",
            Self::Kept => "kept",
            Self::Passes => "passes",
        }
    }
}

/// Something that is done on the gateway host before the attempt, and undone after it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) who: Who,
    pub(crate) line: &'static str,
}

/// A parameter of the attempt that exists once the gateway runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Live {
    /// The gateway's process.
    Pid,
    /// The proxy's cgroup.
    Cgroup,
}

/// One way past the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) place: Place,
    pub(crate) who: Who,
    /// The attempt that `bypass-attempt` makes.
    pub(crate) attempt: &'static str,
    pub(crate) parameters: Map<String, Value>,
    pub(crate) live: Vec<Live>,
    pub(crate) before: Vec<Step>,
    pub(crate) after: Vec<&'static str>,
    pub(crate) stage: Stage,
    pub(crate) expected: Expected,
    /// Why it cannot reach the target without a gateway either.
    pub(crate) no_control: Option<&'static str>,
    /// Not every kernel has what it needs.
    pub(crate) may_be_absent: bool,
    pub(crate) ipv6: bool,
    /// The target is on the gateway host.
    pub(crate) local_target: bool,
    /// No policy names its port.
    pub(crate) unnamed_port: bool,
    /// Its own, by which the witness knows it.
    pub(crate) port: u16,
}

impl Row {
    pub(crate) fn new(name: &'static str, attempt: &'static str, expected: Expected) -> Self {
        Self {
            name,
            what: "",
            place: Place::Host,
            who: Who::User,
            attempt,
            parameters: Map::new(),
            live: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            stage: Stage::Serving,
            expected,
            no_control: None,
            may_be_absent: false,
            ipv6: false,
            local_target: false,
            unnamed_port: false,
            port: 0,
        }
    }

    /// What it is, for people.
    pub(crate) fn what(mut self, what: &'static str) -> Self {
        self.what = what;
        self
    }

    pub(crate) fn who(mut self, who: Who) -> Self {
        self.who = who;
        self
    }

    pub(crate) fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    pub(crate) fn stage(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    pub(crate) fn ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.parameters.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn live(mut self, parameter: Live) -> Self {
        self.live.push(parameter);
        self
    }

    pub(crate) fn before(mut self, who: Who, line: &'static str) -> Self {
        self.before.push(Step { who, line });
        self
    }

    pub(crate) fn after(mut self, line: &'static str) -> Self {
        self.after.push(line);
        self
    }

    pub(crate) fn no_control(mut self, why: &'static str) -> Self {
        self.no_control = Some(why);
        self
    }

    pub(crate) fn may_be_absent(mut self) -> Self {
        self.may_be_absent = true;
        self
    }

    /// A target on the gateway host, at this address.
    pub(crate) fn on_host(mut self, address: &str) -> Self {
        self.local_target = true;
        self.set("target", address)
    }

    /// At a port of the target that no policy names.
    pub(crate) fn unnamed_port(mut self) -> Self {
        self.unnamed_port = true;
        self
    }

    pub(crate) fn as_json(&self) -> Value {
        json!({"name": self.name, "what": self.what, "place": self.place.name(),
            "as": self.who.name(), "expected": self.expected.name()})
    }
}
