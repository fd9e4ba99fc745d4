//! How clients of a target log in: who asks them for proof, and what the gateway proves to the server.
//!
//! It owns that choice, as the policy says it. Secrets are not in here: only where they are kept.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{NamePattern, Who};

/// How clients of a target log in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Login {
    /// The server asks, and its question and the answer pass.
    #[default]
    Relay,
    /// The gateway asks for the password in clear, inside TLS, and logs in with it.
    Password,
    /// The gateway asks for a proof by SCRAM, and logs in with what the proof lets it recover.
    Recover {
        /// Where the users' verifiers are.
        verifier_file: Arc<str>,
    },
    /// The gateway holds the credentials that the server wants.
    Gateway(Arc<GatewayLogin>),
}

impl Login {
    /// Its name in policy files and on record.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Password => "password",
            Self::Recover { .. } => "recover",
            Self::Gateway(_) => "gateway",
        }
    }
}

/// A login with credentials that the gateway holds.
#[derive(Debug, PartialEq, Eq)]
pub struct GatewayLogin {
    /// How clients prove to the gateway who they are.
    pub proof: ClientProof,
    /// In the order of the file.
    pub(super) credentials: Vec<LoginCredential>,
}

/// How a client proves to the gateway who it is.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// By SCRAM, against the verifier of its user in this file.
    Verifier(Arc<str>),
    /// By being a process of the gateway's host that exactly one Identity names.
    Process,
}

/// A credential that the gateway holds, and who may log in with it.
#[derive(Debug, PartialEq, Eq)]
pub struct LoginCredential {
    pub(super) users: Option<Vec<NamePattern>>,
    pub(super) persons: Option<Vec<NamePattern>>,
    pub(super) groups: Option<Vec<NamePattern>>,
    /// The server's user, if it is not the one that the client names.
    pub log_in_as: Option<String>,
    /// Where the password is.
    pub source: PasswordSource,
}

/// Where a password is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// A file: an absolute path.
    File(String),
    /// A variable of the gateway's environment.
    Environment(String),
    /// A credential that systemd hands to the gateway's unit.
    SystemdCredential(String),
    /// What a program prints: its absolute path, and its arguments.
    Command(Vec<String>),
}

impl GatewayLogin {
    /// The first credential that this user and this person may log in with.
    pub fn credential(&self, user: &str, who: &Who) -> Option<&LoginCredential> {
        self.credentials
            .iter()
            .find(|credential| credential.is_for(user, who))
    }
}

impl LoginCredential {
    /// A person who is not known for certain is nobody.
    fn is_for(&self, user: &str, who: &Who) -> bool {
        let has = |names: &Option<Vec<NamePattern>>, fits: &dyn Fn(&NamePattern) -> bool| {
            names.as_ref().is_none_or(|names| names.iter().any(fits))
        };
        has(&self.users, &|name| name.matches(user))
            && has(&self.persons, &|name| {
                who.person
                    .as_ref()
                    .is_some_and(|person| name.matches(person))
            })
            && has(&self.groups, &|name| {
                who.groups.iter().any(|group| name.matches(group))
            })
    }
}
