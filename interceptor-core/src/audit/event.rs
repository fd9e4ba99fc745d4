//! What is written down: one message per event. Shape: `docs/audit-log.md`.
//!
//! Nothing in here may carry a credential or a value that a mask hides: texts are recorded after
//! [`crate::mask`] went over them.

use alloc::string::String;
use alloc::vec::Vec;

/// One event, with its time and session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// Nanoseconds since the Unix epoch.
    #[prost(uint64, tag = "1")]
    pub time_unix_ns: u64,
    /// The session's UUID, 16 bytes; empty for events of the gateway itself.
    #[prost(bytes = "vec", tag = "2")]
    pub session: Vec<u8>,
    /// What happened.
    #[prost(
        oneof = "Kind",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25"
    )]
    pub kind: Option<Kind>,
}

/// What happened.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// A client reached the gateway.
    #[prost(message, tag = "10")]
    Connection(Connection),
    /// The client said who it is, and the target agreed or not.
    #[prost(message, tag = "11")]
    Identity(Identity),
    /// The intent: a command, with the decision on it. Durable before the command goes upstream.
    #[prost(message, tag = "12")]
    Command(Command),
    /// A command waits for a person.
    #[prost(message, tag = "13")]
    Hold(Hold),
    /// A hold ended.
    #[prost(message, tag = "14")]
    Approval(Approval),
    /// A command ended.
    #[prost(message, tag = "15")]
    Outcome(Outcome),
    /// A session ended.
    #[prost(message, tag = "16")]
    Close(Close),
    /// The gateway started; `detail` says with which version.
    #[prost(message, tag = "17")]
    GatewayStarted(GatewayNote),
    /// The gateway stopped in order.
    #[prost(message, tag = "18")]
    GatewayStopped(GatewayNote),
    /// The policy in force; `detail` holds its hash and file names.
    #[prost(message, tag = "19")]
    PolicyLoaded(GatewayNote),
    /// A person used the administration socket.
    #[prost(message, tag = "20")]
    Administration(Administration),
    /// Policy files were refused, and the policy stayed as it was; `detail` holds the errors.
    #[prost(message, tag = "21")]
    PolicyRefused(GatewayNote),
    /// The kernel plane changed by itself or was repaired; `detail` says what: connections that
    /// were severed, a link that was attached anew, a device that came, the addresses of a name.
    #[prost(message, tag = "22")]
    KernelChanged(GatewayNote),
    /// Policy files, before the first command that they decide: what decided can be read and asked
    /// again. `PolicyLoaded` says when they are in force.
    #[prost(message, tag = "23")]
    PolicySnapshot(PolicySnapshot),
    /// A rule wants somebody to know of a command.
    #[prost(message, tag = "24")]
    Notification(Notification),
    /// A command met a limit that a rule sets.
    #[prost(message, tag = "25")]
    LimitReached(LimitReached),
}

/// A client reached the gateway.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Connection {
    /// The client's address and port.
    #[prost(string, tag = "1")]
    pub client: String,
    /// The address and port that the client dialled.
    #[prost(string, tag = "2")]
    pub target_address: String,
    /// The policy's name for the target.
    #[prost(string, tag = "3")]
    pub target: String,
    /// The protocol spoken.
    #[prost(string, tag = "4")]
    pub protocol: String,
    /// The local process; absent for routed clients.
    #[prost(message, optional, tag = "5")]
    pub process: Option<Process>,
}

/// The local process behind a connection, as the kernel saw it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Process {
    /// User id.
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    /// Group id.
    #[prost(uint32, tag = "2")]
    pub gid: u32,
    /// Process id.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// Thread name.
    #[prost(string, tag = "4")]
    pub comm: String,
    /// Path of the executable; empty if unknown.
    #[prost(string, tag = "5")]
    pub executable: String,
    /// Path of the cgroup; empty if unknown.
    #[prost(string, tag = "6")]
    pub cgroup: String,
    /// Thread id.
    #[prost(uint32, tag = "7")]
    pub tid: u32,
    /// When the process started, in nanoseconds since the Unix epoch; 0 if unknown.
    #[prost(uint64, tag = "8")]
    pub started_unix_ns: u64,
    /// Path of an executable that the gateway does not see under that name; empty otherwise.
    #[prost(string, tag = "9")]
    pub executable_elsewhere: String,
    /// SHA-256 of the executable's file; empty if unknown.
    #[prost(bytes = "vec", tag = "10")]
    pub executable_sha256: Vec<u8>,
    /// The command line without its secrets; empty if unknown.
    #[prost(string, tag = "11")]
    pub command_line: String,
    /// The container's runtime and id; empty if there is none or it is unknown.
    #[prost(string, tag = "12")]
    pub container: String,
    /// Uid of the Kubernetes pod; empty as above.
    #[prost(string, tag = "13")]
    pub pod: String,
    /// The systemd service or scope; empty as above.
    #[prost(string, tag = "14")]
    pub unit: String,
    /// Inode number of the network namespace; 0 if unknown.
    #[prost(uint32, tag = "15")]
    pub netns: u32,
    /// The network namespace is the gateway's own.
    #[prost(bool, tag = "16")]
    pub is_own_netns: bool,
}

impl From<&crate::command::Process> for Process {
    fn from(process: &crate::command::Process) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            uid: process.uid,
            gid: process.gid,
            pid: process.pid,
            comm: process.comm.clone(),
            executable: text(&process.executable),
            cgroup: text(&process.cgroup),
            tid: process.tid,
            started_unix_ns: process.started_unix_ns.unwrap_or_default(),
            executable_elsewhere: text(&process.executable_elsewhere),
            executable_sha256: process.executable_sha256.map(Vec::from).unwrap_or_default(),
            command_line: text(&process.command_line),
            container: text(&process.container),
            pod: text(&process.pod),
            unit: text(&process.unit),
            netns: process.netns.unwrap_or_default(),
            is_own_netns: process.is_own_netns,
        }
    }
}

/// The client said who it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Identity {
    /// The target's user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The target's database.
    #[prost(string, tag = "2")]
    pub database: String,
    /// What the client calls itself.
    #[prost(string, tag = "3")]
    pub application: String,
    /// The target accepted the credentials.
    #[prost(bool, tag = "4")]
    pub authenticated: bool,
    /// The target's error code if it did not.
    #[prost(string, tag = "5")]
    pub error_code: String,
    /// Who asked for the proof: the word of the target's `login`.
    #[prost(string, tag = "6")]
    pub login: String,
    /// How the client proved who it is; empty if it did not come to that.
    #[prost(string, tag = "7")]
    pub method: String,
    /// The target's user that the gateway logged in as, where it is another one.
    #[prost(string, tag = "8")]
    pub server_user: String,
    /// The version of TLS between client and gateway; empty where that leg is plain.
    #[prost(string, tag = "9")]
    pub client_tls: String,
    /// The same between gateway and target.
    #[prost(string, tag = "10")]
    pub target_tls: String,
}

/// A command and the decision on it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// Number within the session, from 1.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The text, with passwords and masked patterns replaced.
    #[prost(string, tag = "2")]
    pub text: String,
    /// SHA-256 of the exact bytes of text and parameters.
    #[prost(bytes = "vec", tag = "3")]
    pub digest: Vec<u8>,
    /// Number of parameters bound to it.
    #[prost(uint32, tag = "4")]
    pub parameters: u32,
    /// Statement kinds.
    #[prost(string, repeated, tag = "5")]
    pub kinds: Vec<String>,
    /// Relations read.
    #[prost(string, repeated, tag = "6")]
    pub reads: Vec<String>,
    /// Relations written.
    #[prost(string, repeated, tag = "7")]
    pub writes: Vec<String>,
    /// Why the facts may not be all; empty if they are.
    #[prost(string, tag = "8")]
    pub incomplete: String,
    /// The decision: `allow`, `hold`, `deny` or `terminate`.
    #[prost(string, tag = "9")]
    pub decision: String,
    /// The rule that decided; empty for the target's default.
    #[prost(string, tag = "10")]
    pub rule: String,
    /// Where the rule stands: `file:line`.
    #[prost(string, tag = "11")]
    pub rule_source: String,
    /// Why: the rule's message.
    #[prost(string, tag = "12")]
    pub reason: String,
    /// SHA-256 of the policy snapshot that decided.
    #[prost(bytes = "vec", tag = "13")]
    pub policy: Vec<u8>,
    /// Which facts an analysis gave: 1 since the fields from here on exist, 0 before.
    #[prost(uint32, tag = "14")]
    pub facts: u32,
    /// Functions called.
    #[prost(string, repeated, tag = "15")]
    pub functions: Vec<String>,
    /// An UPDATE or DELETE without a WHERE clause is in it.
    #[prost(bool, tag = "16")]
    pub unfiltered: bool,
    /// What it uses masked columns for, beside showing them.
    #[prost(string, repeated, tag = "40")]
    pub masked_uses: Vec<String>,
    /// Columns read, as `schema.table.column`; `*` for every column.
    #[prost(string, repeated, tag = "17")]
    pub columns_read: Vec<String>,
    /// Columns set, likewise.
    #[prost(string, repeated, tag = "18")]
    pub columns_written: Vec<String>,
    /// The most rows that statistics give a table of it; absent if unknown.
    #[prost(uint64, optional, tag = "19")]
    pub estimated_rows: Option<u64>,
    /// The person whom the policy's identities name; empty if none or not certain.
    #[prost(string, tag = "20")]
    pub person: String,
    /// That person's groups.
    #[prost(string, repeated, tag = "21")]
    pub groups: Vec<String>,
    /// The grant or bypass that lifted a rule, as in `Grant incident-4711`; empty if none did.
    #[prost(string, tag = "22")]
    pub lifted_by: String,
    /// The rule that it lifted.
    #[prost(string, tag = "23")]
    pub lifted_rule: String,
    /// Rules that set limits, add masks, keep it read-only or notify.
    #[prost(string, repeated, tag = "24")]
    pub obliged_by: Vec<String>,
}

/// A policy snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PolicySnapshot {
    /// Its SHA-256, as in the commands that it decided.
    #[prost(bytes = "vec", tag = "1")]
    pub hash: Vec<u8>,
    /// Its files by name. A file that does not fit goes on in the next part, under its name.
    #[prost(message, repeated, tag = "2")]
    pub files: Vec<PolicyFile>,
    /// Which part of it this is, from 1. They follow each other, perhaps with other events between.
    #[prost(uint32, tag = "3")]
    pub part: u32,
    /// How many parts there are.
    #[prost(uint32, tag = "4")]
    pub parts: u32,
}

/// A policy file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PolicyFile {
    /// Its path as errors and rules' sources give it.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What was in it.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// A rule wants somebody to know of a command.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Notification {
    /// The command's number within the session.
    #[prost(uint64, tag = "1")]
    pub command: u64,
    /// The rule.
    #[prost(string, tag = "2")]
    pub rule: String,
    /// The approver groups that should know.
    #[prost(string, repeated, tag = "3")]
    pub groups: Vec<String>,
}

/// A command met a limit that a rule sets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LimitReached {
    /// The command's number within the session.
    #[prost(uint64, tag = "1")]
    pub command: u64,
    /// The rule.
    #[prost(string, tag = "2")]
    pub rule: String,
    /// Which limit, as in `1000 rows`.
    #[prost(string, tag = "3")]
    pub limit: String,
}

/// A command waits for a person.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hold {
    /// The request's number, unique in this log.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// The command's number within the session.
    #[prost(uint64, tag = "2")]
    pub command: u64,
    /// Milliseconds until the time for an answer is over.
    #[prost(uint64, tag = "3")]
    pub timeout_ms: u64,
    /// Who has to approve, as in `2 of dba`; empty where anybody with access to the socket may.
    #[prost(string, repeated, tag = "4")]
    pub required: Vec<String>,
    /// 0 at first, then one more for each escalation.
    #[prost(uint32, tag = "5")]
    pub stage: u32,
}

/// A hold ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Approval {
    /// The request's number.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// The command's number within the session.
    #[prost(uint64, tag = "2")]
    pub command: u64,
    /// `vote` for one approval of several; at the end `approved`, `denied`, `timed_out`, `escalated`,
    /// `automatic`, `cancelled` or `client_gone`.
    #[prost(string, tag = "3")]
    pub resolution: String,
    /// Who: the local user's name and uid; empty if nobody did.
    #[prost(string, tag = "4")]
    pub by: String,
    /// What they said.
    #[prost(string, tag = "5")]
    pub reason: String,
}

/// A command ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    /// The command's number within the session.
    #[prost(uint64, tag = "1")]
    pub command: u64,
    /// The target's words: a command tag such as `DELETE 3`; empty on error.
    #[prost(string, tag = "2")]
    pub tag: String,
    /// Rows sent to the client.
    #[prost(uint64, tag = "3")]
    pub rows: u64,
    /// Cells masked, by column or by pattern.
    #[prost(uint64, tag = "4")]
    pub cells_masked: u64,
    /// The error code that the client saw; empty on success.
    #[prost(string, tag = "5")]
    pub error_code: String,
    /// Microseconds from the decision to the end.
    #[prost(uint64, tag = "6")]
    pub duration_us: u64,
}

/// A session ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Close {
    /// Why, in a sentence.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// The end was a violation of the protocol or of a limit.
    #[prost(bool, tag = "2")]
    pub violation: bool,
    /// Commands judged.
    #[prost(uint64, tag = "3")]
    pub commands: u64,
    /// Bytes sent to the target.
    #[prost(uint64, tag = "4")]
    pub bytes_up: u64,
    /// Bytes sent to the client.
    #[prost(uint64, tag = "5")]
    pub bytes_down: u64,
}

/// Something about the gateway itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GatewayNote {
    /// In a sentence.
    #[prost(string, tag = "1")]
    pub detail: String,
}

/// A person used the administration socket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Administration {
    /// The local user's name and uid.
    #[prost(string, tag = "1")]
    pub by: String,
    /// What they asked for.
    #[prost(string, tag = "2")]
    pub action: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::format;

    use super::*;

    /// `Message.field = tag` with its protobuf type, for each field in a `.proto` file.
    fn documented(proto: &str) -> BTreeSet<String> {
        let mut message = "";
        let mut fields = BTreeSet::new();
        for line in proto.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("message ") {
                message = name.trim_end_matches(" {");
            } else if let Some((kind, rest)) = line.trim_end_matches(';').rsplit_once(" = ")
                && !line.starts_with("//")
                && !line.starts_with("syntax")
            {
                let (kind, name) = kind.rsplit_once(' ').unwrap();
                let kind = kind.trim_start_matches("optional ");
                fields.insert(format!("{message}.{name} = {rest} {kind}"));
            }
        }
        fields
    }

    /// The same of this file, read as text: prost keeps no description of its messages.
    fn declared(source: &str) -> BTreeSet<String> {
        let (mut message, mut attribute) = ("", "");
        let mut fields = BTreeSet::new();
        let (source, _tests) = source.split_once("#[cfg(test)]").unwrap();
        for line in source.lines().map(str::trim) {
            let header = line
                .strip_prefix("pub struct ")
                .or(line.strip_prefix("pub enum "));
            if let Some(name) = header {
                message = name.trim_end_matches(" {");
            } else if let Some(inner) = line.strip_prefix("#[prost(") {
                attribute = inner;
            } else if line.ends_with(',') && !attribute.is_empty() {
                let (name, rust_type) = line
                    .trim_start_matches("pub ")
                    .trim_end_matches([',', ')', '>'])
                    .split_once([':', '('])
                    .unwrap();
                let rust_type = rust_type.trim();
                let rust_type = rust_type
                    .trim_start_matches("Option<")
                    .trim_start_matches("Vec<");
                fields.extend(field(message, attribute, name, rust_type));
                attribute = "";
            }
        }
        fields
    }

    fn field(message: &str, attribute: &str, name: &str, rust_type: &str) -> Option<String> {
        let wire = attribute
            .split(|c: char| !c.is_alphanumeric())
            .next()
            .unwrap();
        let (_, tag) = attribute.split_once("tag = \"")?;
        let (tag, _) = tag.split_once('"')?;
        let wire = if wire == "message" { rust_type } else { wire };
        let repeated = if attribute.contains("repeated") {
            "repeated "
        } else {
            ""
        };
        if message != "Kind" {
            return Some(format!("{message}.{name} = {tag} {repeated}{wire}"));
        }
        let mut snake = String::new();
        for (index, c) in name.chars().enumerate() {
            if c.is_uppercase() && index > 0 {
                snake.push('_');
            }
            snake.extend(c.to_lowercase());
        }
        Some(format!("Event.{snake} = {tag} {wire}"))
    }

    #[test]
    fn the_documented_schema_is_the_one_written() {
        let mut documented = documented(include_str!("../../../docs/audit-log.proto"));
        // `Record` is in chain.rs.
        documented.retain(|field| !field.starts_with("Record."));
        let declared = declared(include_str!("event.rs"));
        assert!(declared.len() > 50, "{declared:?}");
        assert_eq!(documented, declared);
    }

    #[test]
    fn the_stored_bytes_stay_readable() {
        // Written by hand from docs/audit-log.proto: field 1, then field 20 with its two texts.
        let bytes = b"\x08\x05\xa2\x01\x0a\x0a\x04root\x12\x02ok";
        let event = <Event as prost::Message>::decode(bytes.as_slice()).unwrap();
        let act = Administration {
            by: "root".into(),
            action: "ok".into(),
        };
        assert_eq!(event.time_unix_ns, 5);
        assert_eq!(event.kind, Some(Kind::Administration(act)));
    }
}
