//! The server's messages: each is matched with what is expected, masked and counted.

use alloc::string::String;
use alloc::sync::Arc;

use bytes::Buf as _;

use super::cells::RowPlan;
use super::copy::CopyMasker;
use super::queue::{Expected, Running};
use super::{
    Action, BACKLOG_BYTES_MAX, Phase, SERVER_MESSAGE_BYTES_MAX, Session, function_call, replies,
    submit,
};
use crate::audit::event::{self, Kind};
use crate::mask::Masks;
use crate::wire::DecodeError;
use crate::wire::postgres::backend::{self, TransactionStatus, kind};
use crate::wire::postgres::encode::{self, ErrorText, Severity};
use crate::wire::postgres::frame::{self, FrameError, HEADER_BYTES, Header};

/// Bytes of command tags that are kept of one Query.
const TAG_BYTES_MAX: usize = 200;

/// Why the server's side cannot go on.
pub(super) enum Stop {
    /// The catalogue is needed and not there.
    Catalog,
    /// The server broke the protocol.
    Violation(String),
    /// Something cannot be masked, and the session must end: what the client reads.
    Unmaskable(String),
    /// A command met a limit, and the session must end.
    Limit(ErrorText),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Self::Violation(alloc::format!("{error}"))
    }
}

impl Stop {
    pub(super) fn unexpected(kind: u8) -> Self {
        Self::Violation(alloc::format!(
            "a message of type {} came unasked",
            kind.escape_ascii()
        ))
    }
}

impl Session {
    /// Works on what the server sent.
    pub(super) fn advance_server(&mut self) {
        while self.phase != Phase::Closed && self.to_client.len() < BACKLOG_BYTES_MAX {
            if self.pass_down > 0 {
                if self.server_in.is_empty() {
                    return;
                }
                let passing = self
                    .server_in
                    .split_to(self.pass_down.min(self.server_in.len()));
                self.pass_down -= passing.len();
                self.to_client.extend_from_slice(&passing);
                self.flush_notices();
                continue;
            }
            if self.drop_down > 0 {
                if self.server_in.is_empty() {
                    return;
                }
                let dropped = self.drop_down.min(self.server_in.len());
                self.server_in.advance(dropped);
                self.drop_down -= dropped;
                continue;
            }
            let header = match frame::header(&self.server_in) {
                Ok(Some(header)) => header,
                Ok(None) => return,
                Err(error) => return self.violate("the target", error),
            };
            match self.reply(header) {
                Ok(true) => {}
                Ok(false) | Err(Stop::Catalog) => return,
                Err(Stop::Violation(what)) => return self.violate("the target", what),
                Err(Stop::Unmaskable(what)) => {
                    let error =
                        ErrorText::new("42501", &alloc::format!("refused by interceptor: {what}"));
                    return self.close_with(&what, false, &error);
                }
                Err(Stop::Limit(error)) => return self.close_with(&error.message, false, &error),
            }
        }
    }

    /// Takes one message, or a run of rows. `false`: more bytes are needed.
    fn reply(&mut self, header: Header) -> Result<bool, Stop> {
        if matches!(header.kind, kind::DATA_ROW | kind::COPY_DATA) && self.is_cut() {
            self.admits(1, header.size);
            self.drop_down = header.size;
            return Ok(true);
        }
        if self.phase == Phase::Running && self.rows_pass(header.kind)? {
            return Ok(self.pass_rows(header));
        }
        if header.size > SERVER_MESSAGE_BYTES_MAX {
            let limit = SERVER_MESSAGE_BYTES_MAX;
            if matches!(header.kind, kind::DATA_ROW | kind::COPY_DATA) {
                return Err(Stop::Unmaskable(alloc::format!(
                    "a row of {} bytes is larger than the {limit} that can be masked",
                    header.size
                )));
            }
            let error = FrameError::TooLarge {
                kind: header.kind,
                size: header.size,
                limit,
            };
            return Err(Stop::Violation(alloc::format!("{error}")));
        }
        if self.server_in.len() < header.size {
            self.server_wants = header.size;
            return Ok(false);
        }
        self.server_wants = 0;
        if self.phase < Phase::Running {
            self.starting_reply(header.kind, header.size);
            return Ok(true);
        }
        // The message stays in the buffer until it is dealt with: it may have to wait.
        let message = self.server_in.split_to(header.size);
        match self.running_reply(header.kind, &message) {
            Err(Stop::Catalog) => {
                // The buffer is put together again; the two parts still lie side by side.
                let rest = core::mem::replace(&mut self.server_in, message);
                self.server_in.unsplit(rest);
                Err(Stop::Catalog)
            }
            other => other.map(|()| true),
        }
    }

    /// Rows, or COPY data, that no mask touches.
    fn rows_pass(&mut self, kind: u8) -> Result<bool, Stop> {
        match kind {
            kind::DATA_ROW => Ok(self.row_plan()?.is_none_or(|plan| plan.is_idle())),
            kind::COPY_DATA => match self.expected.front() {
                Some(Expected::Query(running) | Expected::Execute(running)) => {
                    Ok(running.copy.is_none())
                }
                _ => Err(Stop::unexpected(kind)),
            },
            _ => Ok(false),
        }
    }

    /// How the rows that come now are rewritten; `None` where no mask is in force at all.
    fn row_plan(&mut self) -> Result<Option<Arc<RowPlan>>, Stop> {
        let (judged, plan) = match self.expected.front() {
            Some(Expected::Query(running)) => (&running.judged, running.plan.clone()),
            Some(Expected::Execute(running)) => {
                let plan = self.plans.get(&running.judged.number);
                (&running.judged, plan.cloned())
            }
            _ => return Err(Stop::unexpected(kind::DATA_ROW)),
        };
        let masked = judged.masks.has_columns() || judged.masks.has_patterns();
        match plan {
            None if masked => Err(Stop::Violation(String::from(
                "rows came that were not described",
            ))),
            plan => Ok(plan),
        }
    }

    /// Passes all whole rows at hand in one piece, and a row that is not whole as it comes.
    fn pass_rows(&mut self, first: Header) -> bool {
        let counted = self.is_counted();
        let mut end = 0;
        let mut rows = 0;
        while end < self.server_in.len() {
            let rest = self.server_in.get(end..).unwrap_or_default();
            let header = match frame::header(rest) {
                Ok(Some(header)) if header.kind == first.kind => header,
                _ => break,
            };
            // Beyond a limit the rest is thrown away.
            if counted && !self.admits(1, header.size) {
                break;
            }
            rows += 1;
            end += header.size;
        }
        let passing = self.server_in.split_to(end.min(self.server_in.len()));
        self.pass_down = end.saturating_sub(passing.len());
        self.to_client.extend_from_slice(&passing);
        if let Some(running) = self.expected.front_mut().and_then(Expected::running) {
            running.rows += rows;
        }
        true
    }

    fn running_reply(&mut self, kind: u8, message: &[u8]) -> Result<(), Stop> {
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        match kind {
            kind::NOTICE_RESPONSE => {
                return self.notice(body);
            }
            kind::NOTIFICATION_RESPONSE => {
                let masks = self.loose_masks();
                return Ok(replies::notification(body, &masks, &mut self.to_client)?);
            }
            kind::PARAMETER_STATUS => self.parameter_status(body),
            kind::ERROR_RESPONSE => return self.error(body),
            kind::READY_FOR_QUERY => self.ready(body)?,
            kind::PARSE_COMPLETE => {
                self.complete(kind, |front| matches!(front, Expected::Parse))?
            }
            kind::BIND_COMPLETE => self.complete(kind, |front| matches!(front, Expected::Bind))?,
            kind::CLOSE_COMPLETE => {
                self.complete(kind, |front| matches!(front, Expected::Close))?
            }
            kind::PARAMETER_DESCRIPTION => match self.expected.front() {
                Some(Expected::Describe { portal: None, .. }) => {}
                _ => return Err(Stop::unexpected(kind)),
            },
            kind::ROW_DESCRIPTION => {
                if self.described(body)? {
                    return Ok(());
                }
            }
            kind::NO_DATA => match self.expected.pop_front() {
                Some(Expected::Describe { ours: true, .. }) => return Ok(()),
                Some(Expected::Describe { .. }) => {}
                _ => return Err(Stop::unexpected(kind)),
            },
            kind::DATA_ROW => return self.row(body),
            kind::COMMAND_COMPLETE | kind::EMPTY_QUERY_RESPONSE | kind::PORTAL_SUSPENDED => {
                if self.ends_cut()? {
                    self.after_copy();
                    return Ok(());
                }
                self.command_end(kind, body)?
            }
            kind::COPY_IN_RESPONSE => self.copy_in(body)?,
            kind::COPY_OUT_RESPONSE => self.copy_out(body)?,
            kind::COPY_BOTH_RESPONSE => self.copy_both()?,
            kind::COPY_DATA => return self.copy_data(body),
            kind::COPY_DONE if self.is_cut() => {
                self.admits(0, 0);
                return Ok(());
            }
            kind::COPY_DONE => self.copy_done()?,
            kind::FUNCTION_CALL_RESPONSE => match self.expected.front_mut() {
                Some(Expected::Query(running))
                    if running.judged.is_function_call()
                        && function_call::returns_a_number(running.judged.facts()) => {}
                Some(Expected::Query(running)) if running.judged.is_function_call() => {
                    let (masks, start) = (running.judged.masks.clone(), self.to_client.len());
                    let masked = replies::function_result(body, &masks, &mut self.to_client)?;
                    running.masked += u64::from(masked);
                    self.take_back_beyond_limit(0, start);
                    return Ok(());
                }
                _ => return Err(Stop::unexpected(kind)),
            },
            _ => return Err(Stop::unexpected(kind)),
        }
        self.to_client.extend_from_slice(message);
        Ok(())
    }

    fn notice(&mut self, body: &[u8]) -> Result<(), Stop> {
        let (masks, evaluates) = (self.masks_in_force(), self.evaluates());
        let start = self.to_client.len();
        let kind = kind::NOTICE_RESPONSE;
        replies::rewrite(kind, body, &masks, evaluates, &mut self.to_client)?;
        self.take_back_beyond_limit(0, start);
        Ok(())
    }

    /// Takes back what was just written for the client if it is beyond a limit. `false`: it was.
    pub(super) fn take_back_beyond_limit(&mut self, rows: u64, start: usize) -> bool {
        let bytes = self.to_client.len().saturating_sub(start);
        let admitted = self.admits(rows, bytes);
        if !admitted {
            self.to_client.truncate(start);
        }
        admitted
    }

    /// The masks on what the server says now.
    fn masks_in_force(&self) -> Arc<Masks> {
        match self.expected.front() {
            Some(
                Expected::Query(running) | Expected::Execute(running) | Expected::Refused(running),
            ) => running.judged.masks.clone(),
            _ => self.loose_masks(),
        }
    }

    /// The masks on what belongs to no command.
    fn loose_masks(&self) -> Arc<Masks> {
        let by_rule = self.loose_masks.clone();
        by_rule.unwrap_or_else(|| self.target.masks.clone())
    }

    /// The server completed Parse, Bind or Close: the name counts from now on.
    fn complete(&mut self, kind: u8, due: impl FnOnce(&Expected) -> bool) -> Result<(), Stop> {
        match self.expected.pop_front() {
            Some(front) if due(&front) => {
                // Another portal of that name takes its place: nothing more comes from the old one.
                if let Some(gone) = self.names.confirm() {
                    self.plans.remove(&gone.number);
                }
                Ok(())
            }
            _ => Err(Stop::unexpected(kind)),
        }
    }

    /// RowDescription: plans how rows are rewritten. True if it is not for the client.
    fn described(&mut self, body: &[u8]) -> Result<bool, Stop> {
        let (judged, statement) = match self.expected.front() {
            Some(Expected::Query(running)) => (running.judged.clone(), running.statements),
            Some(Expected::Describe {
                portal: Some(portal),
                ..
            }) => (portal.clone(), 0),
            Some(Expected::Describe { portal: None, .. }) => {
                self.expected.pop_front();
                return Ok(false);
            }
            _ => return Err(Stop::unexpected(kind::ROW_DESCRIPTION)),
        };
        let columns = backend::row_description(body)?;
        let methods = self.methods(&columns, &judged, statement)?;
        let plan = Arc::new(RowPlan::new(&columns, methods, &judged.masks));
        match self.expected.front_mut() {
            Some(Expected::Query(running)) => running.plan = Some(plan),
            _ => {
                self.plans.insert(judged.number, plan);
                if let Some(Expected::Describe { ours: true, .. }) = self.expected.pop_front() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// A row that has to be looked at.
    fn row(&mut self, body: &[u8]) -> Result<(), Stop> {
        let plan = self.row_plan()?;
        let (Some(plan), Some(running)) =
            (plan, self.expected.front_mut().and_then(Expected::running))
        else {
            return Err(Stop::unexpected(kind::DATA_ROW));
        };
        let (masks, start) = (running.judged.masks.clone(), self.to_client.len());
        let masked = match plan.rewrite(body, &masks, &mut self.to_client) {
            Ok(masked) => masked,
            Err(error) => {
                self.to_client.truncate(start);
                return Err(Stop::Violation(alloc::format!("{error}")));
            }
        };
        if self.take_back_beyond_limit(1, start)
            && let Some(running) = self.expected.front_mut().and_then(Expected::running)
        {
            running.rows += 1;
            running.masked += masked;
        }
        Ok(())
    }

    /// CommandComplete and its like end one statement of a Query, or an Execute.
    fn command_end(&mut self, kind: u8, body: &[u8]) -> Result<(), Stop> {
        let tag = match kind {
            kind::COMMAND_COMPLETE => {
                String::from_utf8_lossy(backend::command_complete(body)?).into_owned()
            }
            kind::PORTAL_SUSPENDED => String::from("(suspended)"),
            _ => String::from("(empty)"),
        };
        match self.expected.front_mut() {
            Some(Expected::Query(running)) => {
                running.end_statement(&tag);
                Ok(())
            }
            Some(Expected::Execute(running)) => {
                running.end_statement(&tag);
                if let Some(Expected::Execute(running)) = self.expected.pop_front() {
                    self.finish(running);
                }
                self.after_copy();
                Ok(())
            }
            _ => Err(Stop::unexpected(kind)),
        }
        .inspect(|()| self.after_copy())
    }

    fn ready(&mut self, body: &[u8]) -> Result<(), Stop> {
        let status = backend::ready_for_query(body)?;
        self.reported();
        self.after_copy();
        self.refuse_cut_end()?;
        match self.expected.pop_front() {
            Some(Expected::Query(running)) => self.finish(running),
            Some(Expected::Sync) => {}
            _ => return Err(Stop::unexpected(kind::READY_FOR_QUERY)),
        }
        self.after_copy();
        self.settings.idle = status == TransactionStatus::Idle;
        self.settings.unsettled &= !self.expected.is_empty();
        self.settle_finding();
        if self.settings.idle {
            self.names.end_transaction();
            self.plans.clear();
            if self.expected.is_empty() {
                self.loose_masks = None;
            }
            let changing = core::mem::take(&mut self.catalog.changing);
            if changing.is_some() && (self.may_mask_columns() || self.reads_catalog()) {
                self.actions.push_back(Action::CatalogChanged);
                self.catalog.newest += 1;
            }
        }
        Ok(())
    }

    fn error(&mut self, body: &[u8]) -> Result<(), Stop> {
        self.search_path.fails();
        let code = replies::code(body);
        let (masks, evaluates) = (self.masks_in_force(), self.evaluates());
        let refusal = match self.expected.front_mut() {
            // Most likely that it was cancelled; the limit is why.
            Some(Expected::Query(running) | Expected::Execute(running))
                if running.cut.is_some() =>
            {
                running.cut.take().map(|cut| cut.error)
            }
            // The error that the refused command was replaced by; any other is the server's own.
            Some(Expected::Query(running) | Expected::Refused(running))
                if code == submit::REFUSED_CODE =>
            {
                running.refusal.clone()
            }
            _ => self.cut_in_preparation(),
        };
        let code = refusal
            .as_ref()
            .map_or(code, |refusal| String::from(refusal.code));
        match self.expected.front_mut() {
            Some(Expected::Query(running)) => {
                running.error_code = code;
                running.copying_in = false;
                running.plan = None;
                running.copy = None;
            }
            Some(Expected::Sync) | None => {}
            Some(_) => self.skip_to_sync(code),
        }
        match refusal {
            Some(refusal) => encode::error(&mut self.to_client, Severity::Error, &refusal),
            None => replies::rewrite(
                kind::ERROR_RESPONSE,
                body,
                &masks,
                evaluates,
                &mut self.to_client,
            )?,
        }
        Ok(())
    }

    /// What runs computes with values, so that an error may quote one.
    fn evaluates(&self) -> bool {
        match self.expected.front() {
            Some(
                Expected::Query(running) | Expected::Execute(running) | Expected::Refused(running),
            ) => replies::evaluates(running.judged.facts()),
            // Planning computes constants, the end of a transaction runs deferred triggers.
            Some(_) => true,
            None => false,
        }
    }

    /// After an error in an extended query the server reads nothing up to Sync.
    fn skip_to_sync(&mut self, code: String) {
        let mut failed = Some(code);
        while let Some(front) = self.expected.front() {
            if matches!(front, Expected::Sync) {
                return;
            }
            let Some(mut skipped) = self.expected.pop_front() else {
                return;
            };
            match (&mut skipped, failed.take()) {
                (Expected::Execute(running) | Expected::Refused(running), Some(code)) => {
                    running.error_code = code;
                    if let Expected::Execute(running) | Expected::Refused(running) = skipped {
                        self.finish(running);
                    }
                }
                _ => self.not_run(skipped, "not_run"),
            }
        }
        self.discarding = true;
    }

    /// Something that the server never came to.
    pub(super) fn not_run(&mut self, mut expected: Expected, why: &str) {
        match &mut expected {
            Expected::Parse | Expected::Bind | Expected::Close => self.names.skip(),
            _ => {}
        }
        if let Expected::Query(mut running)
        | Expected::Execute(mut running)
        | Expected::Refused(mut running) = expected
        {
            if running.error_code.is_empty() {
                running.error_code = String::from(why);
            }
            self.finish(running);
        }
    }

    /// Writes a command's outcome down.
    pub(super) fn finish(&mut self, running: Running) {
        self.end_names(&running);
        self.found_after(&running.judged, running.error_code.is_empty());
        let (copied, copy_masked) = running.copy.as_ref().map_or((0, 0), CopyMasker::counts);
        self.record(Kind::Outcome(event::Outcome {
            command: running.judged.number,
            tag: running.tag,
            rows: running.rows + copied,
            cells_masked: running.masked + copy_masked,
            error_code: running.error_code,
            duration_us: self.now_ns.saturating_sub(running.started_ns) / 1_000,
        }));
    }
}

impl Running {
    /// One statement ended; a Query may hold more.
    fn end_statement(&mut self, tag: &str) {
        if !self.tag.is_empty() && self.tag.len() < TAG_BYTES_MAX {
            self.tag.push_str("; ");
        }
        if self.tag.len() < TAG_BYTES_MAX {
            self.tag.push_str(tag);
        }
        self.plan = None;
        self.copying_in = false;
        self.statements += 1;
        self.prepared += usize::from(tag == "PREPARE");
        if let Some(copy) = self.copy.take() {
            let (rows, masked) = copy.counts();
            self.rows += rows;
            self.masked += masked;
        }
    }
}
