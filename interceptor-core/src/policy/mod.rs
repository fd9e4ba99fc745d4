//! Policy: from files to one decision a command.
//!
//! It owns the language of the policy files and what a decision is. It must not know how a
//! protocol's bytes look, nor where the files come from: their text is handed in.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use ipnet::IpNet;

use crate::command::{Facts, Subject};
use crate::mask::Masks;

/// A policy file's text and the name to report it by.
pub struct Source<'a> {
    /// Path, as the user would write it.
    pub file: &'a str,
    /// The YAML documents in it.
    pub text: &'a str,
}

/// The protocol that a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// PostgreSQL's frontend/backend protocol.
    Postgres,
}

/// One address of a target: a prefix (a full-length one for a single address) and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address or CIDR.
    pub network: IpNet,
    /// TCP port.
    pub port: u16,
}

/// Credentials for reading a target's catalogue on a side connection.
#[derive(Clone, PartialEq, Eq)]
pub struct CatalogAccess {
    /// The role to connect as: it needs no right beyond CONNECT.
    pub user: String,
    /// File that holds its password; `None` where the target asks for none.
    pub password_file: Option<String>,
}

/// A protected server.
#[derive(Clone)]
pub struct Target {
    /// Its name in policy files, logs and messages.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it listens.
    pub endpoints: Vec<Endpoint>,
    /// What happens to commands that no rule names.
    pub default: Outcome,
    /// How to read its catalogue; needed by masks on columns.
    pub catalog: Option<CatalogAccess>,
    /// The masks in force on its replies.
    pub masks: Arc<Masks>,
}

/// What is to happen to a command. Ordered by strictness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It goes upstream.
    Allow,
    /// It waits for a person.
    Hold {
        /// After this it is refused.
        timeout: Duration,
    },
    /// It is refused.
    Deny,
}

/// Which rule spoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleReference {
    /// The rule's name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// The line its document starts on, from 1.
    pub line: u32,
}

/// The decision on one command: a value that later stages act on and never compute again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is to happen.
    pub outcome: Outcome,
    /// The rule that decided; `None` for the target's default.
    pub rule: Option<Arc<RuleReference>>,
    /// Why, for the client, the approver and the record; one line.
    pub reason: String,
}
