//! The people whom identities name, as users of the gateway host.
//!
//! It owns who is the same person under two user ids. It must not know who may approve: that is the
//! approver groups' business.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Approver;

/// The people of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct People(pub Vec<Person>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The identity's name.
    pub name: Arc<str>,
    /// Users of the gateway host that they are, by name.
    pub users: Vec<String>,
    /// The same by number.
    pub uids: Vec<u32>,
}

impl People {
    /// Everybody whom a user of the gateway host may be: nobody whom the policy knows, one person, or,
    /// where users are shared, several.
    pub fn behind(&self, approver: &Approver<'_>) -> Vec<Arc<str>> {
        let is = |person: &&Person| {
            let named = |user: &str| person.users.iter().any(|own| own == user);
            person.uids.contains(&approver.uid) || approver.user.is_some_and(named)
        };
        let names = self.0.iter().filter(is);
        names.map(|person| Arc::clone(&person.name)).collect()
    }
}
