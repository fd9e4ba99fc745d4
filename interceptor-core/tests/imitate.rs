//! A client that an identity fits is that person's, or there is none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

use std::sync::Arc;

use interceptor_core::command::Subject;
use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, Imitation, Snapshot, Source, View, imitate};

const POLICY: &str = "
kind: Target
name: orders
spec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}
---
kind: Target
name: other
spec: {protocol: postgres, endpoints: ['10.0.0.6:5432']}
---
kind: Identity
name: alice
spec:
  groups: [dba]
  is:
    - {targets: [other], users: [alice]}
    - {users: ['adm_*'], databases: [shop], clientNetworks: [10.8.0.0/16], process: {uids: [1000], executables: [/usr/bin/psql], units: ['*.service']}}
---
kind: Identity
name: by-number
spec: {uids: [4711]}
---
kind: Identity
name: twin
spec: {is: [{users: [shared]}]}
---
kind: Identity
name: other-twin
spec: {is: [{users: [shared]}]}
---
kind: Identity
name: of-the-host
spec: {localUsers: [somebody]}
";

fn snapshot() -> Arc<Snapshot> {
    let source = Source {
        file: "p.yaml",
        text: POLICY,
    };
    let loaded = policy::load(&[source], &HashKey::new([0; 32]));
    Arc::new(loaded.unwrap_or_else(|errors| panic!("\n{errors}")))
}

fn client(person: &str, target: &str) -> Subject {
    let snapshot = snapshot();
    let Imitation::Client(subject) = imitate(&snapshot, person, target) else {
        panic!("nobody is {person}")
    };
    let view = View::new(snapshot, target, (*subject).clone()).unwrap();
    assert_eq!(view.who().person.as_deref(), Some(person));
    *subject
}

#[test]
fn the_first_entry_that_can_be_had_on_the_target_counts() {
    let there = client("alice", "other");
    assert_eq!((&*there.user, there.process), ("alice", None));
    let here = client("alice", "orders");
    assert_eq!((&*here.user, &*here.database), ("adm_x", "shop"));
    assert_eq!(here.client.ip().to_string(), "10.8.0.1");
    let process = here.process.unwrap();
    assert_eq!(process.uid, 1000);
    assert_eq!(process.executable.as_deref(), Some("/usr/bin/psql"));
    assert_eq!(process.unit.as_deref(), Some("x.service"));
}

#[test]
fn a_local_user_id_makes_a_person() {
    let subject = client("by-number", "orders");
    assert_eq!(subject.process.unwrap().uid, 4711);
    assert!(subject.client.ip().is_loopback());
}

#[test]
fn who_cannot_be_told_apart_or_recognised_is_not_imitated() {
    let snapshot = snapshot();
    for (name, expected) in [
        ("twin", Imitation::Impossible),
        ("of-the-host", Imitation::Impossible),
        ("stranger", Imitation::Nobody),
    ] {
        assert_eq!(imitate(&snapshot, name, "orders"), expected, "{name}");
    }
}
