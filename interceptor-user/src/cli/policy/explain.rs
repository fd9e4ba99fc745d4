//! `interceptor policy explain`: what the policy says to a command, and why.

use std::io::{self, Write};
use std::sync::Arc;

use interceptor_core::audit::render::Escaped;
use interceptor_core::command::{CONNECT, Facts, Process};
use interceptor_core::policy::{
    Decision, Explanation, Input, Met, Obligations, Outcome, Protocol, RuleExplanation, Snapshot,
    View,
};
use serde_json::{Value, json};

use super::super::CliError;
use super::super::output::{self, Colour, Colours};
use super::analysis;
use super::asker;
use super::files::PolicyFiles;
use super::questions::ExplainArgs;
use crate::audit::json::{now_unix_ns, process as process_json, time};

/// A question with its answer.
struct Answer {
    view: View,
    /// How the client came about.
    origin: String,
    facts: Facts,
    now_unix_ns: u64,
    explanation: Explanation,
}

pub(super) fn run(arguments: &ExplainArgs, out: &mut impl Write) -> Result<(), CliError> {
    let files = PolicyFiles::of(arguments.policies.as_deref(), &arguments.source)?;
    let answer = answer(arguments, &files.load()?).map_err(CliError::Question)?;
    if arguments.source.common.json {
        return Ok(output::json(out, &as_json(&answer))?);
    }
    Ok(print(&answer, arguments.all, out)?)
}

fn answer(arguments: &ExplainArgs, snapshot: &Arc<Snapshot>) -> Result<Answer, String> {
    let name = &arguments.target;
    let Some(target) = snapshot.target(name) else {
        let known: Vec<&str> = snapshot.targets.iter().map(|it| it.name.as_str()).collect();
        let known = known.join(", ");
        return Err(format!("there is no target {name}; there is: {known}"));
    };
    let (subject, origin) = asker::client(arguments, snapshot, target.protocol)?;
    let view = View::new(Arc::clone(snapshot), name, subject);
    let view = view.ok_or_else(|| format!("there is no target {name}"))?;
    let now_unix_ns = match arguments.at {
        Some(at) => u64::try_from(at.as_nanosecond()).unwrap_or(0),
        None => now_unix_ns(),
    };
    let text = arguments.statement.as_deref();
    let facts = match (target.protocol, text) {
        (Protocol::Postgres, Some(text)) => {
            analysis::facts(&view, text, now_unix_ns, arguments.estimated_rows)?
        }
        (Protocol::Postgres, None) => {
            return Err(format!("what is sent to {name}? give a statement"));
        }
        (Protocol::Tcp, None) => Facts {
            kinds: vec![CONNECT],
            ..Facts::default()
        },
        (Protocol::Tcp, Some(_)) => {
            return Err(format!(
                "the protocol of {name} is tcp: the gateway sees connections there and no statements; leave the statement out"
            ));
        }
    };
    let input = Input {
        facts: &facts,
        text: text.unwrap_or_default(),
        now_unix_ns,
    };
    let explanation = view.explain(&input);
    Ok(Answer {
        view,
        origin,
        facts,
        now_unix_ns,
        explanation,
    })
}

fn print(answer: &Answer, all: bool, out: &mut impl Write) -> io::Result<()> {
    let colours = Colours::for_stdout();
    print_client(answer, out)?;
    print_facts(&answer.facts, out)?;
    print_decision(answer, colours, out)?;
    writeln!(out, "\ndocuments, in the order in which they are asked")?;
    for document in &answer.explanation.rules {
        print_document(document, all, colours, out)?;
    }
    Ok(())
}

fn field(name: &str, value: &str, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "  {name:<16}{}", Escaped(value))
}

fn print_client(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    let (subject, who) = (answer.view.subject(), answer.view.who());
    writeln!(out, "client: {}", Escaped(&answer.origin))?;
    if answer.view.target().protocol == Protocol::Postgres {
        field("user", &subject.user, out)?;
        field("database", &subject.database, out)?;
    }
    field("address", &subject.client.ip().to_string(), out)?;
    field("process", &process_words(subject.process.as_ref()), out)?;
    let person = match (&who.person, answer.explanation.identities.as_slice()) {
        (Some(person), _) if who.groups.is_empty() => person.to_string(),
        (Some(person), _) => format!("{person}, in {}", who.groups.join(", ")),
        (None, []) => "unknown: no Identity fits".to_owned(),
        (None, several) => format!("unknown: several Identities fit ({})", several.join(", ")),
    };
    field("person", &person, out)?;
    field("time", &time(answer.now_unix_ns), out)
}

fn process_words(process: Option<&Process>) -> String {
    let Some(process) = process else {
        return "unknown".to_owned();
    };
    let mut words = vec![format!("uid {}", process.uid)];
    for (name, value) in [
        ("executable", &process.executable),
        ("cgroup", &process.cgroup),
        ("container", &process.container),
        ("unit", &process.unit),
    ] {
        words.extend(value.as_ref().map(|value| format!("{name} {value}")));
    }
    words.join(", ")
}

fn print_facts(facts: &Facts, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nfacts")?;
    for (name, list) in [
        ("kinds", texts(&facts.kinds)),
        ("reads", texts(&facts.reads)),
        ("writes", texts(&facts.writes)),
        ("columns read", texts(&facts.columns_read)),
        ("columns written", texts(&facts.columns_written)),
        ("functions", texts(&facts.functions)),
        ("uses masked columns to", texts(&facts.masked_uses)),
    ] {
        if !list.is_empty() {
            field(name, &list.join(", "), out)?;
        }
    }
    if facts.unfiltered {
        field("no WHERE", "an UPDATE or DELETE without it", out)?;
    }
    if let Some(rows) = facts.estimated_rows {
        field("estimated rows", &rows.to_string(), out)?;
    }
    field("incomplete", facts.incomplete.unwrap_or("no"), out)
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn print_decision(answer: &Answer, colours: Colours, out: &mut impl Write) -> io::Result<()> {
    let decision = &answer.explanation.decision;
    let colour = match decision.outcome {
        Outcome::Allow => Colour::Green,
        Outcome::Hold(_) => Colour::Yellow,
        Outcome::Deny | Outcome::Terminate => Colour::Red,
    };
    let word = colours.paint(colour, decision.outcome.word());
    let reason = Escaped(&decision.reason);
    writeln!(out, "\ndecision: {word}: {reason}")?;
    field("decided by", &decider(answer), out)?;
    if let Outcome::Hold(plan) = &decision.outcome {
        let required = match plan.required() {
            required if required.is_empty() => "anybody".to_owned(),
            required => required.join(" and "),
        };
        let timeout = humantime::format_duration(plan.timeout).to_string();
        field("approvers", &required, out)?;
        field("timeout", &timeout, out)?;
    }
    if let Some(lift) = &decision.lift {
        let (kind, by) = (lift.kind, &lift.by);
        let words = format!(
            "{} by {kind} {} ({}:{})",
            lift.rule, by.name, by.file, by.line
        );
        field("lifted", &words, out)?;
    }
    match &decision.obligations {
        Some(obligations) => print_obligations(obligations, out),
        None => Ok(()),
    }
}

fn decider(answer: &Answer) -> String {
    match &answer.explanation.decision.rule {
        Some(rule) => format!("{} ({}:{})", rule.name, rule.file, rule.line),
        None => format!("no rule, so the target {}", answer.view.target().name),
    }
}

fn print_obligations(obligations: &Obligations, out: &mut impl Write) -> io::Result<()> {
    for (name, value) in obligation_words(obligations) {
        field(name, &value, out)?;
    }
    Ok(())
}

fn obligation_words(obligations: &Obligations) -> Vec<(&'static str, String)> {
    let limits = &obligations.limits;
    let mut words = Vec::new();
    let mut add = |name, value: String, rule: &str| words.push((name, format!("{value} ({rule})")));
    if let Some(limit) = &limits.rows {
        add("limit", format!("{} rows", limit.at), &limit.rule.name);
    }
    if let Some(limit) = &limits.bytes {
        add("limit", format!("{} bytes", limit.at), &limit.rule.name);
    }
    if let Some(limit) = &limits.duration {
        let time = humantime::format_duration(limit.at).to_string();
        add("limit", time, &limit.rule.name);
    }
    for limit in &limits.rates {
        let per = humantime::format_duration(limit.at.per);
        add(
            "limit",
            format!("{} in {per}", limit.at.count),
            &limit.rule.name,
        );
    }
    for (rule, groups) in &obligations.notify {
        add("notify", groups.join(", "), &rule.name);
    }
    if obligations.read_only {
        words.push(("read-only", "yes".to_owned()));
    }
    if obligations.masks.is_some() {
        words.push(("masks", "more than the target's own".to_owned()));
    }
    let rules: Vec<&str> = obligations
        .rules
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    words.push(("bound by", rules.join(", ")));
    words
}

fn print_document(
    document: &RuleExplanation,
    all: bool,
    colours: Colours,
    out: &mut impl Write,
) -> io::Result<()> {
    let RuleExplanation {
        reference,
        kind,
        outcome,
        priority,
        met,
        counts,
        conditions,
        note,
    } = document;
    let mark = if *counts { '*' } else { ' ' };
    let met = painted(*met, colours);
    let outcome = outcome.map(|word| format!(" ({word})")).unwrap_or_default();
    let priority = match priority {
        0 => String::new(),
        priority => format!(" priority {priority}"),
    };
    let place = format!("{}:{}", reference.file, reference.line);
    let place = colours.paint(Colour::Dim, &Escaped(&place).to_string());
    writeln!(
        out,
        "{mark} {met} {kind} {}{outcome}{priority}  {place}",
        reference.name
    )?;
    // The first key that is not met says why; a doubt is worth a line where nothing fails.
    let failing = |met| {
        conditions
            .iter()
            .find(move |condition| condition.met == met)
    };
    let why = failing(Met::No).or(failing(Met::Doubt));
    match why.filter(|_| !all) {
        Some(why) => {
            let (key, detail) = (why.key, Escaped(&why.detail));
            writeln!(out, "          {}: {key} {detail}", Escaped(note))?;
        }
        None if note.is_empty() => {}
        None => writeln!(out, "          {}", Escaped(note))?,
    }
    for condition in conditions {
        if all {
            let met = painted(condition.met, colours);
            writeln!(
                out,
                "          {met} {}: {}",
                condition.key,
                Escaped(&condition.detail)
            )?;
        }
    }
    Ok(())
}

fn painted(met: Met, colours: Colours) -> String {
    match met {
        Met::Yes => colours.paint(Colour::Green, "yes  "),
        Met::Doubt => colours.paint(Colour::Yellow, "doubt"),
        Met::No => colours.paint(Colour::Dim, "no   "),
    }
}

fn word(met: Met) -> &'static str {
    match met {
        Met::Yes => "yes",
        Met::Doubt => "doubt",
        Met::No => "no",
    }
}

fn as_json(answer: &Answer) -> Value {
    let (subject, who) = (answer.view.subject(), answer.view.who());
    let facts = &answer.facts;
    json!({
        "target": answer.view.target().name,
        "client": {
            "origin": answer.origin,
            "user": subject.user,
            "database": subject.database,
            "address": subject.client.ip().to_string(),
            "process": subject.process.as_ref().map(|process| process_json(&process.into())),
            "person": who.person.as_deref(),
            "groups": texts(&who.groups),
            "identities": texts(&answer.explanation.identities),
        },
        "time": time(answer.now_unix_ns),
        "facts": {
            "kinds": facts.kinds,
            "reads": texts(&facts.reads),
            "writes": texts(&facts.writes),
            "columns_read": texts(&facts.columns_read),
            "columns_written": texts(&facts.columns_written),
            "functions": facts.functions,
            "unfiltered": facts.unfiltered,
            "estimated_rows": facts.estimated_rows,
            "incomplete": facts.incomplete,
        },
        "decision": decision_json(&answer.explanation.decision),
        "documents": answer.explanation.rules.iter().map(document_json).collect::<Vec<_>>(),
    })
}

fn decision_json(decision: &Decision) -> Value {
    let hold = match &decision.outcome {
        Outcome::Hold(plan) => json!({
            "timeout_ms": u64::try_from(plan.timeout.as_millis()).unwrap_or(u64::MAX),
            "required": plan.required(),
        }),
        _ => Value::Null,
    };
    let obligations = decision.obligations.as_ref().map(|obligations| {
        let words = obligation_words(obligations);
        let words = words
            .into_iter()
            .map(|(key, value)| json!({ "what": key, "value": value }));
        words.collect::<Vec<_>>()
    });
    json!({
        "outcome": decision.outcome.word(),
        "rule": decision.rule.as_ref().map(|rule| &rule.name),
        "rule_source": decision.rule.as_ref().map(|rule| format!("{}:{}", rule.file, rule.line)),
        "reason": &*decision.reason,
        "hold": hold,
        "lifted_by": decision.lift.as_ref().map(|lift| format!("{} {}", lift.kind, lift.by.name)),
        "lifted_rule": decision.lift.as_ref().map(|lift| &*lift.rule),
        "obligations": obligations,
    })
}

fn document_json(document: &RuleExplanation) -> Value {
    let conditions = document.conditions.iter();
    let conditions = conditions.map(|condition| {
        json!({ "key": condition.key, "met": word(condition.met), "detail": condition.detail })
    });
    json!({
        "kind": document.kind,
        "name": document.reference.name,
        "source": format!("{}:{}", document.reference.file, document.reference.line),
        "outcome": document.outcome,
        "priority": document.priority,
        "met": word(document.met),
        "counts": document.counts,
        "note": document.note,
        "conditions": conditions.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use interceptor_core::mask::HashKey;
    use interceptor_core::policy::{self, Source};

    use super::*;

    const POLICY: &str = "
kind: Target
name: orders
spec: {protocol: postgres, endpoints: ['10.0.0.5:5432'], catalog: {user: c}}
---
kind: Target
name: cache
spec: {protocol: tcp, endpoints: ['10.0.0.7:6379']}
---
kind: Mask
name: emails
spec: {targets: [orders], columns: [customers.email]}
---
kind: Mask
name: cards
spec: {targets: [orders], patterns: [payment_card]}
---
kind: Rule
name: no-drop
spec: {match: {statements: [DROP], process: {executables: [/usr/bin/psql]}}, then: {deny: by migrations}}
---
kind: Rule
name: few-rows
spec: {match: {users: [alice]}, then: {limit: {rows: 7}}}
";

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ExplainArgs,
    }

    fn ask(line: &[&str]) -> Result<Answer, String> {
        let source = Source {
            file: "p.yaml",
            text: POLICY,
        };
        let snapshot = policy::load(&[source], &HashKey::new([0; 32]));
        let snapshot = Arc::new(snapshot.unwrap_or_else(|errors| panic!("{errors}")));
        let line = Line::try_parse_from([&["explain"], line].concat());
        answer(
            &line.unwrap_or_else(|error| panic!("{error}")).arguments,
            &snapshot,
        )
    }

    fn printed(line: &[&str], all: bool) -> String {
        let mut out = Vec::new();
        print(&ask(line).unwrap(), all, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_first_key_that_fails_is_told_or_all_of_them() {
        let line = [
            "DROP TABLE x",
            "--target",
            "orders",
            "--executable",
            "/bin/other",
        ];
        let text = printed(&line, false);
        assert!(text.contains("decision: allow"), "{text}");
        assert!(
            text.contains(
                "it does not match: process asks for executables /usr/bin/psql; is /bin/other"
            ),
            "{text}"
        );
        assert!(!text.contains("statements"), "{text}");
        let text = printed(&line, true);
        assert!(text.contains("yes   statements: asks for DROP"), "{text}");
    }

    #[test]
    fn doubt_binding_and_options_are_told() {
        // Without a process it is not known which program asks, and doubt restricts.
        let text = printed(
            &["DROP TABLE x", "--target", "orders", "--as", "alice"],
            false,
        );
        assert!(text.contains("decision: deny: by migrations"), "{text}");
        assert!(text.contains("* doubt Rule no-drop (deny)"), "{text}");
        let text = printed(
            &[
                "SELECT 1",
                "--target",
                "orders",
                "--as",
                "alice",
                "--client",
                "::1",
                "--database",
                "d",
            ],
            false,
        );
        assert!(text.contains("limit           7 rows (few-rows)"), "{text}");
        assert!(
            text.contains("database        d\n  address         ::1"),
            "{text}"
        );
        let text = printed(
            &[
                "INSERT INTO n SELECT email FROM customers",
                "--target",
                "orders",
            ],
            false,
        );
        assert!(
            text.contains("incomplete      it copies masked columns"),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_asked_is_an_error_that_says_what_can() {
        for (line, expected) in [
            (
                &["SELECT 1", "--target", "oders"][..],
                "there is: cache, orders",
            ),
            (&["--target", "orders"], "give a statement"),
            (&["GET x", "--target", "cache"], "leave the statement out"),
            (
                &["SELEC 1", "--target", "orders"],
                "before it asks the policy",
            ),
            (
                &[
                    "COPY (TABLE customers) TO STDOUT (FORMAT binary)",
                    "--target",
                    "orders",
                ],
                "refuses this itself",
            ),
        ] {
            let error = ask(line).err().unwrap();
            assert!(error.contains(expected), "{error}");
        }
        let answer = ask(&["--target", "cache", "--at", "2026-11-20T10:00:00Z"]).unwrap();
        assert_eq!(answer.facts.kinds, [CONNECT]);
        assert_eq!(as_json(&answer)["time"], "2026-11-20T10:00:00.000000Z");
        assert_eq!(as_json(&answer)["decision"]["outcome"], "deny");
    }
}
