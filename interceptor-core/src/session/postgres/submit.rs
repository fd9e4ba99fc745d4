//! A judged command on its way: it goes, waits, is refused, or ends the session.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Session;
use super::hold::shown_parameters;
use super::judge::{self, Judged};
use super::queue::{Expected, Running};
use super::resolve;
use crate::audit::event::Kind;
use crate::command::Facts;
use crate::policy::{Decision, Outcome};
use crate::session::duties;
use crate::sql::{Analysis, Forgotten};
use crate::wire::postgres::encode::{self, ErrorText};
use crate::wire::postgres::frontend;

/// Goes upstream in place of a refused command: certain to fail before it does anything, in any
/// state of a transaction, so that the server itself aborts the transaction or skips to Sync.
const REFUSED_TEXT: &str = "refused_by_interceptor";
/// Relations changed in one transaction that are told apart.
const CHANGES_MAX: usize = 1_000;

/// What the server answers to [`REFUSED_TEXT`]: syntax_error.
pub(super) const REFUSED_CODE: &str = "42601";

/// A judged command and the very bytes that carry it.
pub(super) struct Pending {
    message: Bytes,
    form: Form,
    pub(super) judged: Judged,
    /// Its text as the client sent it, for what is decided when the time for an answer is over.
    pub(super) text: String,
    /// Its text as it may be recorded and shown.
    pub(super) recorded: String,
    /// Its parameters as they may be shown.
    pub(super) parameters: Vec<String>,
}

/// Which messages carry a command.
pub(super) enum Form {
    /// Query, or FunctionCall.
    Query,
    /// Parse that is refused.
    Parse {
        /// Of the unnamed statement, which the server drops before it reads the new one.
        unnamed: bool,
    },
    /// Bind, or another message of an extended query that is refused.
    Extended {
        /// The portal that Bind makes.
        portal: Vec<u8>,
    },
}

impl Session {
    /// Does with a judged command what its decision says. `exact` is what its digest covers.
    pub(super) fn submit(
        &mut self,
        judged: Judged,
        form: Form,
        text: &str,
        exact: &[&[u8]],
        parameters: &[frontend::Parameter<'_>],
        message: Bytes,
    ) {
        let event = self.command_event(&judged, text, judge::digest(exact), parameters.len());
        let outcome = judged.decision.outcome.clone();
        let notes = duties::notes(judged.number, &judged.decision, judged.reached.as_deref());
        let mut pending = Pending {
            message,
            form,
            judged,
            text: String::new(),
            recorded: String::new(),
            parameters: Vec::new(),
        };
        match outcome {
            Outcome::Allow => {
                match self.may_overlap(&pending.judged) {
                    true => self.record_beside(Kind::Command(event)),
                    false => self.record_before(Kind::Command(event)),
                }
                self.record_all(notes);
                self.release(pending);
            }
            Outcome::Deny => {
                self.record(Kind::Command(event));
                self.record_all(notes);
                let error = judge::refusal(&pending.judged);
                self.refuse(pending, error);
            }
            Outcome::Terminate => {
                self.record(Kind::Command(event));
                self.record_all(notes);
                self.end_by_rule(pending.judged);
            }
            Outcome::Hold(plan) => {
                pending.text = text.to_string();
                pending.recorded.clone_from(&event.text);
                pending.parameters = shown_parameters(&pending.judged.masks, parameters);
                self.record(Kind::Command(event));
                self.record_all(notes);
                self.hold(pending, plan, 0);
            }
        }
    }

    fn record_all(&mut self, notes: Vec<Kind>) {
        for note in notes {
            self.record(note);
        }
    }

    /// Ends the session, as the rule says that such a command ends it.
    fn end_by_rule(&mut self, judged: Judged) {
        let error = judge::refusal(&judged);
        let mut running = Running::new(Arc::new(judged), self.now_ns, None);
        running.error_code = String::from(error.code);
        self.finish(running);
        self.close_with(&error.message, false, &error);
    }

    /// Lets a command go: these very bytes, once.
    pub(super) fn release(&mut self, pending: Pending) {
        let judged = Arc::new(pending.judged);
        if !Arc::ptr_eq(&judged.masks, &self.target.masks) {
            self.loose_masks = Some(judged.masks.clone());
        }
        self.foresee(&judged);
        // Replies to what came before it without Sync must not hide that it runs.
        if judged.is_timed() && !self.expected.is_empty() {
            encode::flush(&mut self.to_server);
        }
        match pending.form {
            Form::Query => {
                let prepares = self.begin_names(&judged);
                let mut running = Running::new(judged, self.now_ns, None);
                running.prepares = prepares;
                self.pass(&pending.message, Some(Expected::Query(running)));
            }
            // Not taken anywhere: Parse is passed on by itself.
            Form::Parse { .. } => {}
            Form::Extended { portal } => {
                self.kept.keep_portal(&portal, &judged);
                self.names.bind(&portal, judged);
                self.pass(&pending.message, Some(Expected::Bind));
            }
        }
    }

    /// Takes into account what a command may change when it runs, for all that comes after it.
    pub(super) fn foresee(&mut self, judged: &Judged) {
        for (cursor, _) in &judged.analysis.declares {
            let cursor = Forgotten::Portal(cursor.clone());
            self.names.forget_portals(&cursor);
        }
        self.kept.keep(&judged.analysis);
        self.foresee_finding(judged);
        let facts = judged.facts();
        if judge::hides_code(facts) && self.may_mask_columns() {
            self.names.doubt();
            self.kept.doubt();
        }
        if changes_catalog(facts) {
            let changes = self.catalog.changing.get_or_insert_default();
            changes.anything |= facts.kinds.iter().any(|kind| changes_more(kind))
                || hides_change(facts)
                || changes.relations.len() > CHANGES_MAX;
            if !changes.anything {
                let names = facts.writes.iter().map(|relation| relation.name.clone());
                changes.relations.extend(names);
            }
        }
        self.settings.unsettled |= judge::may_change_reading(facts);
    }

    /// Refuses a command: the server fails in its place, the client reads `error`.
    pub(super) fn refuse(&mut self, pending: Pending, error: ErrorText) {
        let running = Running::new(Arc::new(pending.judged), self.now_ns, Some(error));
        match pending.form {
            Form::Query => {
                encode::query(&mut self.to_server, REFUSED_TEXT);
                self.expected.push_back(Expected::Query(running));
            }
            form => {
                let unnamed = matches!(form, Form::Parse { unnamed: true });
                let name = if unnamed { "" } else { REFUSED_TEXT };
                encode::parse(&mut self.to_server, name, REFUSED_TEXT);
                self.expected.push_back(Expected::Refused(running));
                self.discarding = true;
            }
        }
    }

    /// Refuses a message that could not be judged. Its text may be anything, so that only its
    /// length and digest are recorded.
    pub(super) fn refuse_unread(&mut self, form: Form, text: &[u8], error: ErrorText) {
        let facts = Facts {
            kinds: alloc::vec!["OTHER"],
            incomplete: Some("the gateway could not read it"),
            ..Facts::default()
        };
        let analysis = Arc::new(Analysis {
            facts,
            ..Analysis::default()
        });
        let mut judged = self.decide(&analysis, "");
        judged.decision = Decision::refusal(&error.message);
        self.number(&mut judged);
        let shown = alloc::format!("({} bytes that were not understood)", text.len());
        let mut event = self.command_event(&judged, &shown, judge::digest(&[text]), 0);
        // The grammar's words quote the text.
        event.reason = alloc::format!("refused with code {}", error.code);
        self.record(Kind::Command(event));
        let pending = Pending {
            message: Bytes::new(),
            form,
            judged,
            text: String::new(),
            recorded: String::new(),
            parameters: Vec::new(),
        };
        self.refuse(pending, error);
    }
}

/// What it does is not all seen. A function that somebody made seldom changes the catalogue, which would
/// be read anew after every call.
fn hides_change(facts: &Facts) -> bool {
    facts
        .incomplete
        .is_some_and(|why| !resolve::is_about_functions(why))
}

fn changes_catalog(facts: &Facts) -> bool {
    hides_change(facts)
        || facts.kinds.iter().any(|kind| {
            matches!(
                kind.split(' ').next(),
                Some("ALTER" | "CREATE" | "DROP" | "IMPORT" | "CALL" | "DO")
            )
        })
}

/// It changes something else than the relations that it names.
fn changes_more(kind: &str) -> bool {
    match kind.split_once(' ') {
        Some(("ALTER" | "CREATE" | "DROP", object)) => {
            !matches!(object, "TABLE" | "TABLE AS" | "VIEW" | "INDEX" | "SEQUENCE")
        }
        _ => matches!(kind, "IMPORT" | "CALL" | "DO"),
    }
}
