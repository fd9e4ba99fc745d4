//! One decision a command: from text to [`Judged`], which later stages carry and never ask again.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use super::Session;
use super::analyses::Analyses;
use super::limits::{LIMIT_CODE, Used};
use super::queue::Expected;
use super::standing::{Added, Parts, Standing};
use crate::command::{Facts, Relation};
use crate::mask::{Masks, Method};
use crate::policy::{Decision, Input, View};
use crate::sql::{self, Analysis, AnalysisError, Body, CopySource, Lineage};
use crate::wire::postgres::encode::ErrorText;

/// Bodies that are kept under one name by PREPARE or DECLARE, and names kept.
const BODIES_MAX: usize = 16;
const NAMES_MAX: usize = 10_000;

pub(super) const COPIES_MASKED: &str = "it copies masked columns to where they would be seen";
/// Said before the command goes, or at the server's announcement where only that tells.
pub(super) const BINARY_COPY: &str =
    "COPY in binary format cannot be searched for patterns here: use the text or CSV format";
pub(super) const GONE: &str = "the target is no longer in the policy";
pub(super) const UNSEEN: &str =
    "it runs a prepared statement that the gateway did not see prepared";

/// A command with the decision on it.
pub(super) struct Judged {
    /// Number within the session, from 1.
    pub(super) number: u64,
    pub(super) analysis: Arc<Analysis>,
    /// What the session adds to it.
    added: Added,
    pub(super) decision: Decision,
    /// The masks in force for all that it shows, up to its end.
    pub(super) masks: Arc<Masks>,
    /// What it used up of its limits.
    pub(super) used: Used,
    /// The limit that it met before it began, and is refused for.
    pub(super) reached: Option<String>,
}

impl Judged {
    pub(super) fn facts(&self) -> &Facts {
        self.added.facts(&self.analysis)
    }

    pub(super) fn lineage(&self) -> &Lineage {
        self.added.lineage(&self.analysis)
    }

    /// It is no text at all, but a FunctionCall.
    pub(super) fn is_function_call(&self) -> bool {
        self.analysis.facts.kinds == ["FUNCTION CALL"]
    }

    /// The lineage of one statement's results, where its own text tells it all: nothing runs by
    /// name, and nothing made it doubtful later.
    pub(super) fn lineage_of(&self, statement: usize) -> &Lineage {
        let all = self.lineage();
        let by_name = !self.analysis.executes.is_empty() || !self.analysis.fetches.is_empty();
        let apart = !by_name && !self.analysis.single && !all.opaque;
        let own = self.analysis.results.get(statement);
        own.filter(|_| apart).unwrap_or(all)
    }
}

/// When a text can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
    Now,
    /// After the next ReadyForQuery.
    Later,
    /// The client waits for replies before it sends what would bring ReadyForQuery.
    Never,
}

/// A command after which the server may read texts in another way.
pub(super) fn may_change_reading(facts: &Facts) -> bool {
    const KINDS: &[&str] = &[
        "CALL", "DISCARD", "DO", "EXECUTE", "RESET", "ROLLBACK", "SET", "SET ROLE",
    ];
    facts.incomplete.is_some()
        || facts.kinds.iter().any(|kind| KINDS.contains(kind))
        || facts
            .functions
            .iter()
            .any(|function| function.ends_with("set_config"))
}

/// What SQL keeps under names (PREPARE, DECLARE CURSOR), and analyses of recent texts.
///
/// Whether the server really took a PREPARE shows only later, if at all. So a name stands for
/// every body that it was ever given: too strict at times, never too lax.
#[derive(Default)]
pub(super) struct Statements {
    prepared: Bodies,
    cursors: Bodies,
    analyses: Analyses,
    pub(super) standing: Standing,
}

/// Bodies by name.
#[derive(Default)]
struct Bodies {
    by_name: HashMap<Box<str>, Vec<Arc<Body>>>,
    /// There were too many names, or code that cannot be seen ran: any name may be anything.
    unknown: bool,
}

impl Bodies {
    fn keep(&mut self, name: &str, body: Arc<Body>) {
        if self.unknown {
            return;
        }
        if self.by_name.len() >= NAMES_MAX && !self.by_name.contains_key(name) {
            self.doubt();
            return;
        }
        let bodies = self.by_name.entry(name.into()).or_default();
        if bodies.contains(&body) {
            return;
        }
        if bodies.len() < BODIES_MAX {
            bodies.push(body);
        } else if let Some(first) = bodies.first_mut() {
            // Too many to tell: from now on the name stands for something unknown.
            *first = Arc::new(unknown_body());
        }
    }

    /// From now on every name stands for something unknown.
    fn doubt(&mut self) {
        self.unknown = true;
        self.by_name = HashMap::new();
    }

    /// All that the name may stand for.
    fn of(&self, name: &str) -> Vec<Arc<Body>> {
        match self.by_name.get(name) {
            Some(bodies) if !self.unknown => bodies.clone(),
            _ => alloc::vec![Arc::new(unknown_body())],
        }
    }
}

fn unknown_body() -> Body {
    Body {
        facts: Facts {
            incomplete: Some(UNSEEN),
            ..Facts::default()
        },
        lineage: Lineage {
            opaque: true,
            ..Lineage::default()
        },
    }
}

impl Statements {
    /// Remembers what the command keeps under names.
    pub(super) fn keep(&mut self, analysis: &Analysis) {
        for (name, body) in &analysis.prepares {
            self.prepared.keep(name, body.clone());
        }
        for (name, body) in &analysis.declares {
            self.cursors.keep(name, body.clone());
        }
    }

    /// Remembers a statement of the protocol: EXECUTE runs it as well.
    pub(super) fn keep_statement(&mut self, name: &[u8], analysis: &Analysis) {
        let Ok(name) = core::str::from_utf8(name) else {
            // SQL in UTF-8 cannot name it; in another encoding it could.
            return self.prepared.doubt();
        };
        if !name.is_empty() {
            let nested = !analysis.executes.is_empty() || !analysis.fetches.is_empty();
            let body = match nested {
                true => unknown_body(),
                false => Body {
                    facts: analysis.facts.clone(),
                    lineage: analysis.lineage.clone(),
                },
            };
            self.prepared.keep(name, Arc::new(body));
        }
    }

    /// Remembers a portal of the protocol: FETCH reads from it as well.
    pub(super) fn keep_portal(&mut self, name: &[u8], judged: &Judged) {
        let Ok(name) = core::str::from_utf8(name) else {
            return self.cursors.doubt();
        };
        if !name.is_empty() {
            let body = Body {
                facts: judged.facts().clone(),
                lineage: judged.lineage().clone(),
            };
            self.cursors.keep(name, Arc::new(body));
        }
    }

    /// Another policy is in force, more is known of the client, or names are found in another way: what
    /// was made of texts, and said of them, does not stand any more.
    pub(super) fn forget_verdicts(&mut self) {
        self.analyses.forget_verdicts();
        self.standing.forget();
    }

    /// Code that cannot be seen ran.
    pub(super) fn doubt(&mut self) {
        self.prepared.doubt();
        self.cursors.doubt();
    }
}

/// Code runs that the gateway does not see.
pub(super) fn hides_code(facts: &Facts) -> bool {
    const KINDS: &[&str] = &["CALL", "DO"];
    let by_number = facts.kinds.contains(&"FUNCTION CALL") && facts.incomplete.is_some();
    by_number || facts.kinds.iter().any(|kind| KINDS.contains(kind))
}

impl Session {
    /// Whether a text can be read now. How the server reads bytes beyond ASCII and backslashes
    /// depends on settings that it reports with ReadyForQuery only: such a text waits for the
    /// report where a command before it may have changed them.
    pub(super) fn readable(&self, text: &[u8]) -> Readable {
        let plain = text.is_ascii() && !text.contains(&b'\\');
        let reported =
            |expected: &Expected| matches!(expected, Expected::Sync | Expected::Query(_));
        match plain || !self.settings.unsettled {
            true => Readable::Now,
            false if self.expected.back().is_some_and(reported) => Readable::Later,
            false => Readable::Never,
        }
    }

    /// A text as the server reads it, or the error that the client gets for it.
    pub(super) fn decoded<'t>(&self, text: &'t [u8]) -> Result<Cow<'t, str>, ErrorText> {
        let text = match (core::str::from_utf8(text), &self.settings.encoding[..]) {
            (_, b"LATIN1") => Cow::Owned(text.iter().map(|&byte| char::from(byte)).collect()),
            (Ok(text), b"UTF8" | b"SQL_ASCII") => Cow::Borrowed(text),
            (Ok(text), _) if text.is_ascii() => Cow::Borrowed(text),
            _ => {
                let message = "interceptor reads statements beyond ASCII in UTF8 and LATIN1 only: set client_encoding";
                return Err(ErrorText::new("22021", message));
            }
        };
        if !self.settings.conforming && text.contains('\\') {
            let message = "interceptor reads backslashes only with standard_conforming_strings on";
            return Err(ErrorText::new("0A000", message));
        }
        Ok(text)
    }

    /// The analysis of a text, or the error that the client gets for it.
    pub(super) fn analyze(&mut self, text: &str) -> Result<Arc<Analysis>, ErrorText> {
        if let Some(analysis) = self.kept.analyses.of(text) {
            return Ok(analysis);
        }
        let analysis = Arc::new(sql::analyze(text).map_err(analysis_error)?);
        self.kept.analyses.keep(text, &analysis);
        Ok(analysis)
    }

    /// Decides, without numbering: for Parse, which runs nothing yet.
    pub(super) fn decide(&mut self, analysis: &Arc<Analysis>, text: &str) -> Judged {
        let (mut parts, stands) = self.resolve(analysis, text);
        let usual = Arc::clone(&self.target.masks);
        let mut decision = self.verdict(&parts, text, stands);
        // Which masks are in force is part of the decision, and what they hide is one of its facts.
        let first = obliged_masks(&decision);
        if let Some(masks) = &first
            && !parts.added.copies_masked
            && self.copies_masked(masks, &parts)
        {
            parts.own().incomplete.get_or_insert(COPIES_MASKED);
            decision = self.ask(parts.facts(), text);
        }
        self.oblige_as_its_cursors(&mut decision, &parts, text);
        let masks = obliged_masks(&decision).or(first).unwrap_or(usual);
        if !decision.outcome.refuses() && copies_unmaskable(&masks, analysis) {
            // Found out only when the server announces the stream, it would end the session.
            decision = Decision::refusal(BINARY_COPY);
        }
        Judged {
            number: 0,
            analysis: analysis.clone(),
            added: parts.added,
            decision,
            masks,
            used: Used::default(),
            reached: None,
        }
    }

    /// What the policy says of a text, as it said before where it would say the same again: the same
    /// client, policy, text and facts, and nothing in the policy that looks at the time. Facts that do
    /// not stand may be others the next time.
    fn verdict(&mut self, parts: &Parts<'_>, text: &str, stands: bool) -> Decision {
        let known = self.kept.analyses.verdict(text, parts.analysis);
        if let Some(known) = known.filter(|_| stands) {
            return known.clone();
        }
        let decision = self.ask(parts.facts(), text);
        if stands && self.view.as_ref().is_some_and(View::is_timeless) {
            let analyses = &mut self.kept.analyses;
            analyses.keep_verdict(text, parts.analysis, &decision);
        }
        decision
    }

    /// Asks the policy: the only place where a session does.
    fn ask(&self, facts: &Facts, text: &str) -> Decision {
        let input = Input {
            facts,
            text,
            now_unix_ns: self.now_unix_ns,
        };
        match &self.view {
            Some(view) => view.decide(&input),
            None => Decision::refusal(GONE),
        }
    }

    /// What a FETCH shows is bound to what the cursor's query is bound to: a rule on SELECT limits
    /// and masks its rows, though the command is no SELECT.
    fn oblige_as_its_cursors(&self, decision: &mut Decision, parts: &Parts<'_>, text: &str) {
        if parts.analysis.fetches.is_empty() || decision.outcome.refuses() {
            return;
        }
        let mut facts = parts.facts().clone();
        for name in &parts.analysis.fetches {
            for body in self.kept.cursors.of(name) {
                sql::absorb(&mut facts, &body.facts);
            }
        }
        decision.obligations = self.ask(&facts, text).obligations;
    }

    /// The command writes what masked columns hold to a place that no mask covers: from there it
    /// could be read at will. Names alone decide where the catalogue is not at hand.
    pub(super) fn copies_masked(&mut self, masks: &Arc<Masks>, parts: &Parts<'_>) -> bool {
        let (facts, lineage) = (parts.facts(), parts.lineage());
        if let Some(copies) = copies_by_name(masks, facts, lineage) {
            return copies;
        }
        // Without a catalogue nothing tells whether a view or a function shows what is masked.
        let Some(known) = self.known_provenance(masks) else {
            return true;
        };
        let outdated = self.catalog.changing.as_ref().is_some_and(|changes| {
            changes.anything || known.is_outdated(&changes.relations, facts)
        });
        outdated || known.may_carry(&lineage.moved, lineage, facts)
    }

    /// Decides on a command that is about to run and gives it its number.
    pub(super) fn judge(&mut self, analysis: &Arc<Analysis>, text: &str) -> Judged {
        let mut judged = self.decide(analysis, text);
        self.number(&mut judged);
        self.keep_read_only(&mut judged, text);
        self.keep_rates(&mut judged);
        judged
    }

    pub(super) fn number(&mut self, judged: &mut Judged) {
        self.commands += 1;
        judged.number = self.commands;
    }

    /// Facts and lineage with those of what it runs by name.
    pub(super) fn joined(&self, analysis: &Analysis) -> Option<Added> {
        if analysis.executes.is_empty() && analysis.fetches.is_empty() {
            return None;
        }
        let mut facts = analysis.facts.clone();
        let mut lineage = analysis.lineage.clone();
        let mut results = Vec::new();
        for name in &analysis.executes {
            for body in self.kept.prepared.of(name) {
                sql::absorb(&mut facts, &body.facts);
                sql::merge_lineage(&mut lineage, body.lineage.clone());
                results.push(body);
            }
        }
        for name in &analysis.fetches {
            for body in self.kept.cursors.of(name) {
                sql::merge_lineage(&mut lineage, body.lineage.clone());
                // What masking asks of: the relations behind the rows.
                for relation in &body.facts.reads {
                    if !facts.reads.contains(relation) {
                        facts.reads.push(relation.clone());
                    }
                }
                sql::absorb_columns(&mut facts.columns_read, &body.facts.columns_read);
                results.push(body);
            }
        }
        // Columns are told apart by position only where there is no doubt whose they are.
        lineage.columns = match results.as_slice() {
            [body] if analysis.single => body.lineage.columns.clone(),
            _ => None,
        };
        Some(Added::new(facts, lineage))
    }
}

/// What names alone tell of a command that writes what masked columns hold to another place; `None`
/// where the catalogue has to be asked.
pub(super) fn copies_by_name(masks: &Masks, facts: &Facts, lineage: &Lineage) -> Option<bool> {
    if !lineage.moves() || !masks.has_columns() {
        return Some(false);
    }
    let method = |relation: &Relation, column: &str| {
        masks.method(relation.schema.as_deref(), &relation.name, column)
    };
    // It stays where it shows nothing, whatever is made of it.
    let stays = !lineage.destinations.is_empty()
        && facts.kinds.iter().all(|kind| *kind == "UPDATE")
        && facts.writes.iter().all(|relation| {
            let hidden = |column: &str| method(relation, column) >= Some(Method::Full);
            lineage.destinations.iter().all(|column| hidden(column))
        });
    let moved = &lineage.moved;
    let whole_row = moved.star
        || moved
            .columns
            .iter()
            .any(|column| lineage.row_names.contains(column));
    let by_name = facts.reads.iter().chain(&facts.writes).any(|relation| {
        masks.masks_table(relation.schema.as_deref(), &relation.name)
            && (whole_row
                || moved
                    .columns
                    .iter()
                    .any(|column| method(relation, column).is_some()))
    });
    (stays || by_name).then_some(!stays)
}

/// The command copies out in the binary format what patterns are looked for in, where nothing will
/// tell the types of its columns.
pub(super) fn copies_unmaskable(masks: &Masks, analysis: &Analysis) -> bool {
    let mut copies = analysis.copies_out.iter();
    copies.any(|copy| {
        let has_types = matches!(copy.source, CopySource::Relation(..)) && masks.has_columns();
        copy.format.binary && masks.has_patterns() && !has_types
    })
}

/// The masks that a decision's rules put in force.
pub(super) fn obliged_masks(decision: &Decision) -> Option<Arc<Masks>> {
    decision.obligations.as_ref()?.masks.clone()
}

/// SHA-256 over the exact bytes of a command: each part with its length before it.
pub(super) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn analysis_error(error: AnalysisError) -> ErrorText {
    let (code, position) = match error {
        AnalysisError::Syntax { position, .. } => ("42601", position),
        AnalysisError::TooDeep | AnalysisError::TooManyTokens | AnalysisError::TooLong(_) => {
            ("54001", 0)
        }
    };
    let mut text = ErrorText::new(code, &error.to_string());
    text.position = position;
    text
}

/// The error for a refused command: which rule, and why.
pub(super) fn refusal(judged: &Judged) -> ErrorText {
    let decision = &judged.decision;
    let message = match &decision.rule {
        Some(rule) => format!(
            "refused by interceptor rule \"{}\": {}",
            rule.name, decision.reason
        ),
        None => format!("refused by interceptor: {}", decision.reason),
    };
    let code = judged.reached.as_ref().map_or("42501", |_| LIMIT_CODE);
    ErrorText::new(code, &message)
}
