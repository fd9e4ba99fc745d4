//! What the server owes: one entry for each message that it will answer, in order.

use alloc::string::String;
use alloc::sync::Arc;

use super::cells::RowPlan;
use super::copy::CopyMasker;
use super::judge::Judged;
use super::limits::Cut;
use crate::wire::postgres::encode::ErrorText;

/// One reply, or run of replies, to come.
pub(super) enum Expected {
    /// Query or FunctionCall: anything up to ReadyForQuery.
    Query(Running),
    /// ParseComplete; the statement takes its name then.
    Parse,
    /// BindComplete; the portal takes its name then.
    Bind,
    /// CloseComplete.
    Close,
    /// RowDescription or NoData, after ParameterDescription for a statement.
    Describe {
        /// The portal spoken of, if it is one.
        portal: Option<Arc<Judged>>,
        /// The client did not ask: the answer is for the gateway.
        ours: bool,
    },
    /// Rows up to CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute(Running),
    /// ReadyForQuery.
    Sync,
    /// No reply: here the client ended a COPY that it sends.
    CopyEnd,
    /// An error in place of a refused message; nothing up to Sync runs.
    Refused(Running),
}

impl Expected {
    /// What is running, for those that run a command.
    pub(super) fn running(&mut self) -> Option<&mut Running> {
        match self {
            Self::Query(running) | Self::Execute(running) | Self::Refused(running) => Some(running),
            _ => None,
        }
    }
}

/// A command on its way.
pub(super) struct Running {
    /// The command.
    pub(super) judged: Arc<Judged>,
    /// When it was let go, for its duration.
    pub(super) started_ns: u64,
    /// The error that the client gets in place of the server's.
    pub(super) refusal: Option<ErrorText>,
    pub(super) rows: u64,
    pub(super) masked: u64,
    pub(super) tag: String,
    pub(super) error_code: String,
    /// How rows are rewritten; `None` until they are described.
    pub(super) plan: Option<Arc<RowPlan>>,
    pub(super) copy: Option<CopyMasker>,
    /// COPYs to the client that began, of those in the text.
    pub(super) copies: usize,
    /// Statements that ended, of those in the text: the server completes each once.
    pub(super) statements: usize,
    /// Names that it prepares in SQL.
    pub(super) prepares: usize,
    /// Of them, those that the server completed.
    pub(super) prepared: usize,
    /// The server waits for COPY data.
    pub(super) copying_in: bool,
    /// Since when it is what the server works on.
    pub(super) front_since_ns: Option<u64>,
    /// It met a limit.
    pub(super) cut: Option<Cut>,
}

impl Running {
    pub(super) fn new(judged: Arc<Judged>, started_ns: u64, refusal: Option<ErrorText>) -> Self {
        Self {
            judged,
            started_ns,
            refusal,
            rows: 0,
            masked: 0,
            tag: String::new(),
            error_code: String::new(),
            plan: None,
            copy: None,
            copies: 0,
            statements: 0,
            prepares: 0,
            prepared: 0,
            copying_in: false,
            front_since_ns: None,
            cut: None,
        }
    }
}
