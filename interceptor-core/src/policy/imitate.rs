//! A client that an identity fits: for asking what the policy would say to a person.
//!
//! It owns the choice of facts that a person could have. Whether they make a session that person's is
//! [`View`]'s to say, as ever.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::condition::{Condition, Conditions, ProcessConditions};
use super::test_document::TEST_CLIENT;
use super::{NamePattern, Snapshot, View};
use crate::command::{Process, Subject};

/// What stands in a name for a pattern's `*`.
const ANY: &str = "x";
/// The port of a client that is not there.
const CLIENT_PORT: u16 = 50_000;

/// A client as whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imitation {
    /// There is no Identity of that name.
    Nobody,
    /// There is one, but no client of this target is that person for certain.
    Impossible,
    /// This client is that person.
    Client(Box<Subject>),
}

/// A client of a target that is this person: by the first entry of the Identity that can be had.
pub fn imitate(snapshot: &Arc<Snapshot>, person: &str, target: &str) -> Imitation {
    let mut identities = snapshot.identities.iter();
    let Some(identity) = identities.find(|identity| &*identity.person == person) else {
        return Imitation::Nobody;
    };
    let by_entry = identity.is.iter().map(|entry| client(person, entry));
    let by_uid = identity.uids.iter().map(|uid| {
        let process = Process {
            uid: *uid,
            is_own_netns: true,
            ..Process::default()
        };
        let mut client = client(person, &Conditions::default());
        client.client = local();
        client.process = Some(process);
        client
    });
    let fits = |client: &Subject| {
        let view = View::new(Arc::clone(snapshot), target, client.clone());
        view.is_some_and(|view| view.who().person.as_deref() == Some(person))
    };
    match by_entry.chain(by_uid).find(fits) {
        Some(client) => Imitation::Client(Box::new(client)),
        None => Imitation::Impossible,
    }
}

/// What an entry of `is` asks for; of each list the first.
fn client(person: &str, entry: &Conditions) -> Subject {
    let mut subject = Subject {
        client: SocketAddr::new(TEST_CLIENT, CLIENT_PORT),
        process: None,
        user: person.to_owned(),
        database: person.to_owned(),
    };
    for condition in &entry.0 {
        match condition {
            Condition::Users(list) => subject.user = name(list),
            Condition::Databases(list) => subject.database = name(list),
            Condition::ClientNetworks(list) => subject.client = address(list),
            Condition::Process(asked) => {
                subject.process = Some(process(asked));
                let elsewhere = subject.client.ip() == TEST_CLIENT;
                subject.client = if elsewhere { local() } else { subject.client };
            }
            _ => {}
        }
    }
    subject
}

fn local() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), CLIENT_PORT)
}

fn address(networks: &[IpNet]) -> SocketAddr {
    let first = networks.first();
    let address = first.and_then(|network| network.hosts().next());
    SocketAddr::new(address.unwrap_or(TEST_CLIENT), CLIENT_PORT)
}

fn process(asked: &ProcessConditions) -> Process {
    let text = |list: &Option<Vec<NamePattern>>| list.as_ref().map(|list| name(list));
    let uid = asked.uids.as_ref().and_then(|uids| uids.first());
    Process {
        uid: uid.copied().unwrap_or_default(),
        executable: text(&asked.executables),
        cgroup: text(&asked.cgroups),
        container: text(&asked.containers),
        unit: text(&asked.units),
        is_own_netns: true,
        ..Process::default()
    }
}

/// A name that the first pattern matches; one without `*` is the more telling.
fn name(patterns: &[NamePattern]) -> String {
    let exact = |pattern: &&NamePattern| !pattern.as_str().contains('*');
    let pattern = patterns.iter().find(exact).or(patterns.first());
    pattern.map_or_else(String::new, |pattern| pattern.as_str().replace('*', ANY))
}
