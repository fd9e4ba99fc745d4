//! What goes over the socket. A request is one line of JSON; the answer is one line, but for
//! [`AdminRequest::Audit`], whose records come a line each until the head ends them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::approval::{Waiting, approvals};
use crate::audit::json::{self, time};

/// The longest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// The longest answer line, in bytes: a list of all requests that can wait.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Characters of a command's text in a list; `show` has it whole.
const SUMMARY_CHARS_MAX: usize = 200;

/// What the command line can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminRequest {
    /// How the gateway is.
    Status,
    /// The open sessions.
    Sessions,
    /// The requests that wait for a person.
    Approvals,
    /// One of them, whole.
    Approval {
        /// Its number.
        number: u64,
    },
    /// Decides one of them.
    Resolve {
        /// Its number.
        number: u64,
        /// The command may go.
        approve: bool,
        /// Why.
        reason: String,
    },
    /// Ends an open session at once.
    Kill {
        /// Its id, or as much of the start as no other session has.
        id: String,
        /// Why.
        reason: String,
    },
    /// Start the binary that is installed now, and hand over to it.
    Upgrade,
    /// What the gateway counts.
    Metrics,
    /// Read the policy files anew, and say what came of it.
    Reload,
    /// The log, as stored.
    Audit {
        /// The first record wanted; below 1 means 1.
        from: u64,
        /// Only so many at the end.
        last: Option<u64>,
        /// Go on with new records until the client hangs up.
        follow: bool,
    },
}

/// A line of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What was asked for.
    Ok(Value),
    /// Why not, and what to do.
    Error(String),
    /// A record of the log in hex, as stored.
    Record(String),
    /// The end of the log.
    Head {
        /// The last record's number.
        sequence: u64,
        /// The last record's hash in hex.
        hash: String,
    },
}

/// A session, for `interceptor sessions list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The session's UUID.
    pub id: String,
    /// The client's address and port.
    pub client: String,
    /// The policy's name for the target.
    pub target: String,
    /// The target's user; empty before the client named it.
    pub user: String,
    /// The target's database; empty before the client named it.
    pub database: String,
    /// The local process, as in `psql (pid 42, uid 1000)`; empty for routed clients.
    pub process: String,
    /// When it began.
    pub since_unix_ns: u64,
    /// What it is doing, in a word: `login`, `idle`, `active`, `held`.
    pub state: String,
    /// Commands judged so far.
    pub commands: u64,
}

/// Who ends a session, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Killing {
    /// The local user's name and uid.
    pub by: String,
    /// What they said; may be empty.
    pub reason: String,
}

impl Killing {
    /// In a sentence, for the record.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { by, reason } = self;
        if reason.is_empty() {
            format!("killed by {by}")
        } else {
            format!("killed by {by}: {reason}")
        }
    }
}

/// A request with all that the approver should see.
pub(super) fn whole(waiting: &Waiting) -> Value {
    let mut value = summary(waiting);
    let request = &waiting.request;
    if let Value::Object(object) = &mut value {
        object.insert("text".into(), request.text.as_str().into());
        object.insert("parameters".into(), request.parameters.as_slice().into());
        object.insert("kinds".into(), request.kinds.as_slice().into());
        object.insert("reads".into(), request.reads.as_slice().into());
        object.insert("writes".into(), request.writes.as_slice().into());
        object.insert("reason".into(), request.reason.as_str().into());
        object.insert("approvals".into(), votes(waiting));
        object.insert("groups".into(), groups(waiting));
        let requester = request.plan.requester_may_approve;
        object.insert("requester_may_approve".into(), requester.into());
    }
    value
}

/// The approvals so far.
fn votes(waiting: &Waiting) -> Value {
    let shown = waiting.votes.iter().map(|vote| {
        json!({
            "by": vote.by.to_string(),
            "uid": vote.by.user.uid,
            "reason": vote.reason,
            "time": time(vote.time_unix_ns),
        })
    });
    shown.collect()
}

/// Whose approvals it needs, and how many of them it has.
fn groups(waiting: &Waiting) -> Value {
    let requirements = waiting.request.plan.requirements.iter();
    let shown = requirements.map(|requirement| {
        json!({
            "name": &*requirement.group.name,
            "quorum": requirement.quorum,
            "approvals": approvals(requirement, &waiting.votes),
            "users": requirement.group.users,
            "uids": requirement.group.uids,
        })
    });
    shown.collect()
}

/// A request in a list.
pub(super) fn summary(waiting: &Waiting) -> Value {
    let request = &waiting.request;
    let process = request.subject.process.as_ref();
    let process = process.map(|process| json::process(&process.into()));
    json!({
        "number": request.number,
        "session": request.session.to_string(),
        "opened": time(request.opened_unix_ns),
        "expires": time(request.expires_unix_ns),
        "client": request.subject.client.to_string(),
        "process": process,
        "user": request.subject.user,
        "person": request.person.as_deref(),
        "database": request.subject.database,
        "target": request.target,
        "rule": request.rule,
        "required": request.plan.required(),
        "missing": waiting.missing(),
        "text": shortened(&request.text),
    })
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SUMMARY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
