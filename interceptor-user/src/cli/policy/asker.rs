//! The client as whom `interceptor policy explain` asks.
//!
//! It owns how options and identities make one. It must not know what is asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use interceptor_core::command::{Process, Subject};
use interceptor_core::policy::{Imitation, Protocol, Snapshot, TEST_CLIENT, imitate};

use super::questions::ExplainArgs;

/// Somebody who asks without a name.
const NOBODY: &str = "app";
/// The port of a client that is not there.
const CLIENT_PORT: u16 = 50_000;

/// Who asks, and how that came about.
pub(super) fn client(
    arguments: &ExplainArgs,
    snapshot: &Arc<Snapshot>,
    protocol: Protocol,
) -> Result<(Subject, String), String> {
    let name = arguments.who.as_deref();
    let plain = |user: &str| Subject {
        client: SocketAddr::new(TEST_CLIENT, CLIENT_PORT),
        process: None,
        user: user.to_owned(),
        database: user.to_owned(),
    };
    let (mut subject, origin) = match name
        .map(|name| (name, imitate(snapshot, name, &arguments.target)))
    {
        None => (
            plain(NOBODY),
            format!("the target's user {NOBODY}, as --as is not given"),
        ),
        Some((name, Imitation::Nobody)) => {
            let origin = format!("the target's user {name}, as there is no Identity {name}");
            (plain(name), origin)
        }
        Some((name, Imitation::Client(subject))) => {
            (*subject, format!("a client that the Identity {name} fits"))
        }
        Some((name, Imitation::Impossible)) => {
            let origin = format!(
                "the target's user {name}, as nothing makes a client of this target the person {name} for certain"
            );
            (plain(name), origin)
        }
    };
    apply(arguments, &mut subject);
    if protocol == Protocol::Tcp {
        // Who logs in to what is not seen there.
        subject.user.clear();
        subject.database.clear();
    }
    Ok((subject, origin))
}

/// What the options say comes on top.
fn apply(arguments: &ExplainArgs, subject: &mut Subject) {
    if let Some(user) = &arguments.user {
        subject.user.clone_from(user);
    }
    if let Some(database) = &arguments.database {
        subject.database.clone_from(database);
    }
    let texts = [
        &arguments.executable,
        &arguments.cgroup,
        &arguments.container,
        &arguments.unit,
    ];
    if arguments.uid.is_some() || texts.iter().any(|text| text.is_some()) {
        if subject.process.is_none() {
            subject.client = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), CLIENT_PORT);
        }
        let process = subject.process.get_or_insert_with(|| Process {
            is_own_netns: true,
            ..Process::default()
        });
        process.uid = arguments.uid.unwrap_or(process.uid);
        let [executable, cgroup, container, unit] = texts;
        for (field, text) in [
            (&mut process.executable, executable),
            (&mut process.cgroup, cgroup),
            (&mut process.container, container),
            (&mut process.unit, unit),
        ] {
            if text.is_some() {
                field.clone_from(text);
            }
        }
    }
    if let Some(client) = arguments.client {
        subject.client = SocketAddr::new(client, CLIENT_PORT);
    }
}
