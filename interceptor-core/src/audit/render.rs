//! How a person reads an event: one line of text, safe to print on a terminal.
//!
//! It owns wording and escaping. It must not know time zones or colours: who prints a line puts
//! the time before it.

use alloc::string::String;
use core::fmt::{self, Write as _};

use super::event::{
    Approval, Close, Command, Connection, Event, Hold, Identity, Kind, Outcome, Process,
};

/// Text with everything escaped that would move a cursor, hide a letter or turn a line around.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\n' => f.write_str("\\n"),
            '\r' => f.write_str("\\r"),
            '\t' => f.write_str("\\t"),
            '\\' => f.write_str("\\\\"),
            c if c.is_control() || reorders_or_hides(c) => write!(f, "{}", c.escape_unicode()),
            c => f.write_char(c),
        })
    }
}

/// Format characters that change how a line looks without being seen.
const fn reorders_or_hides(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl Event {
    /// The event's kind in one word, as it stands in lines and in JSON.
    #[must_use]
    pub const fn kind_name(&self) -> &'static str {
        match self.kind {
            Some(Kind::Connection(_)) => "connection",
            Some(Kind::Identity(_)) => "identity",
            Some(Kind::Command(_)) => "command",
            Some(Kind::Hold(_)) => "hold",
            Some(Kind::Approval(_)) => "approval",
            Some(Kind::Outcome(_)) => "outcome",
            Some(Kind::Close(_)) => "close",
            Some(Kind::GatewayStarted(_)) => "gateway-started",
            Some(Kind::GatewayStopped(_)) => "gateway-stopped",
            Some(Kind::PolicyLoaded(_)) => "policy-loaded",
            Some(Kind::PolicyRefused(_)) => "policy-refused",
            Some(Kind::KernelChanged(_)) => "kernel-changed",
            Some(Kind::Administration(_)) => "administration",
            Some(Kind::PolicySnapshot(_)) => "policy-snapshot",
            Some(Kind::Notification(_)) => "notification",
            Some(Kind::LimitReached(_)) => "limit-reached",
            None => "unknown",
        }
    }

    /// What happened, in one line without its time and session.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = String::new();
        // Writing to a string cannot fail.
        let _ = write_kind(&mut line, self.kind.as_ref());
        line
    }
}

fn write_kind(out: &mut String, kind: Option<&Kind>) -> fmt::Result {
    match kind {
        Some(Kind::Connection(connection)) => write_connection(out, connection),
        Some(Kind::Identity(identity)) => write_identity(out, identity),
        Some(Kind::Command(command)) => write_command(out, command),
        Some(Kind::Hold(hold)) => write_hold(out, hold),
        Some(Kind::Approval(approval)) => write_approval(out, approval),
        Some(Kind::Outcome(outcome)) => write_outcome(out, outcome),
        Some(Kind::Close(close)) => write_close(out, close),
        Some(
            Kind::GatewayStarted(note)
            | Kind::GatewayStopped(note)
            | Kind::PolicyLoaded(note)
            | Kind::PolicyRefused(note)
            | Kind::KernelChanged(note),
        ) => {
            write!(out, "{}", Escaped(&note.detail))
        }
        Some(Kind::Administration(act)) => {
            write!(out, "{}: {}", Escaped(&act.by), Escaped(&act.action))
        }
        Some(Kind::PolicySnapshot(snapshot)) => {
            let hash = hex::encode(&snapshot.hash);
            write!(out, "{hash} with {} files", snapshot.files.len())?;
            match snapshot.parts {
                0 | 1 => Ok(()),
                parts => write!(out, ", part {} of {parts}", snapshot.part),
            }
        }
        Some(Kind::Notification(notification)) => write!(
            out,
            "#{} for {} (rule {})",
            notification.command,
            Escaped(&notification.groups.join(", ")),
            Escaped(&notification.rule),
        ),
        Some(Kind::LimitReached(reached)) => write!(
            out,
            "#{} met {} (rule {})",
            reached.command,
            Escaped(&reached.limit),
            Escaped(&reached.rule),
        ),
        None => out.write_str("an event that this version does not know"),
    }
}

fn write_connection(out: &mut String, connection: &Connection) -> fmt::Result {
    write!(
        out,
        "{} to {} ({}, {})",
        Escaped(&connection.client),
        Escaped(&connection.target),
        Escaped(&connection.target_address),
        Escaped(&connection.protocol),
    )?;
    let Some(process) = &connection.process else {
        return Ok(());
    };
    write_process(out, process)
}

fn write_process(out: &mut String, process: &Process) -> fmt::Result {
    let known = [
        (&process.executable, ""),
        (&process.executable_elsewhere, " (of another root)"),
        (&process.comm, " (program unknown)"),
    ];
    let (program, note) = known
        .into_iter()
        .find(|(program, _)| !program.is_empty())
        .unwrap_or((&process.comm, ""));
    let (pid, uid) = (process.pid, process.uid);
    write!(out, " by {}{note} pid {pid} uid {uid}", Escaped(program))?;
    let place = if process.container.is_empty() {
        &process.unit
    } else {
        &process.container
    };
    if !place.is_empty() {
        write!(out, " in {}", Escaped(place))?;
    }
    if !process.command_line.is_empty() {
        write!(out, ": {}", Escaped(&process.command_line))?;
    }
    Ok(())
}

fn write_identity(out: &mut String, identity: &Identity) -> fmt::Result {
    write!(
        out,
        "{}@{}",
        Escaped(&identity.user),
        Escaped(&identity.database)
    )?;
    if !identity.application.is_empty() {
        write!(out, " as {}", Escaped(&identity.application))?;
    }
    if !identity.server_user.is_empty() {
        write!(out, " logged in as {}", Escaped(&identity.server_user))?;
    }
    if !identity.client_tls.is_empty() {
        write!(out, ", {} from the client", Escaped(&identity.client_tls))?;
    }
    if !identity.target_tls.is_empty() {
        write!(out, ", {} to the target", Escaped(&identity.target_tls))?;
    }
    if !identity.authenticated {
        return write!(out, " refused: {}", Escaped(&identity.error_code));
    }
    out.write_str(" authenticated")?;
    if identity.method.is_empty() {
        return Ok(());
    }
    write!(out, " by {}", Escaped(&identity.method))
}

fn write_command(out: &mut String, command: &Command) -> fmt::Result {
    write!(out, "#{} {}", command.number, Escaped(&command.decision))?;
    if !command.rule.is_empty() {
        write!(out, " by {}", Escaped(&command.rule))?;
    }
    if !command.reason.is_empty() {
        write!(out, " ({})", Escaped(&command.reason))?;
    }
    write!(out, ": {}", Escaped(&command.text))?;
    match command.parameters {
        0 => Ok(()),
        1 => out.write_str(" [1 parameter]"),
        count => write!(out, " [{count} parameters]"),
    }
}

fn write_hold(out: &mut String, hold: &Hold) -> fmt::Result {
    let seconds = hold.timeout_ms / 1000;
    write!(
        out,
        "#{} waits as request {} for {seconds} s",
        hold.command, hold.request
    )?;
    if !hold.required.is_empty() {
        write!(out, ": {}", Escaped(&hold.required.join(", ")))?;
    }
    Ok(())
}

fn write_approval(out: &mut String, approval: &Approval) -> fmt::Result {
    let resolution = Escaped(&approval.resolution);
    write!(
        out,
        "#{} request {} {resolution}",
        approval.command, approval.request
    )?;
    if !approval.by.is_empty() {
        write!(out, " by {}", Escaped(&approval.by))?;
    }
    if !approval.reason.is_empty() {
        write!(out, ": {}", Escaped(&approval.reason))?;
    }
    Ok(())
}

fn write_outcome(out: &mut String, outcome: &Outcome) -> fmt::Result {
    let Outcome {
        command,
        rows,
        cells_masked,
        duration_us,
        ..
    } = outcome;
    write!(out, "#{command} ")?;
    if outcome.error_code.is_empty() {
        write!(out, "{}", Escaped(&outcome.tag))?;
    } else {
        write!(out, "error {}", Escaped(&outcome.error_code))?;
    }
    write!(
        out,
        ", {rows} rows, {cells_masked} cells masked, {duration_us} us"
    )
}

fn write_close(out: &mut String, close: &Close) -> fmt::Result {
    if close.violation {
        out.write_str("violation: ")?;
    }
    let Close {
        commands,
        bytes_up,
        bytes_down,
        ..
    } = close;
    let reason = Escaped(&close.reason);
    write!(
        out,
        "{reason} ({commands} commands, {bytes_up} bytes up, {bytes_down} bytes down)"
    )
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn printable(line: &str) -> bool {
        !line.chars().any(|c| c.is_control() || reorders_or_hides(c))
    }

    fn event(kind: Kind) -> Event {
        Event {
            time_unix_ns: 1,
            session: Vec::new(),
            kind: Some(kind),
        }
    }

    proptest! {
        #[test]
        fn no_text_reaches_the_terminal_raw(text in any::<String>()) {
            prop_assert!(printable(&Escaped(&text).to_string()));
        }

        #[test]
        fn different_texts_never_look_alike(one in "[\\\\nt\n\t]{0,6}", other in "[\\\\nt\n\t]{0,6}") {
            prop_assert_eq!(one == other, Escaped(&one).to_string() == Escaped(&other).to_string());
        }
    }

    #[test]
    fn a_command_is_one_line() {
        let line = event(Kind::Command(Command {
            number: 3,
            text: "DELETE\nFROM t\u{1b}[2J".into(),
            decision: "hold".into(),
            rule: "no-bulk".into(),
            reason: "ask first".into(),
            parameters: 2,
            ..Command::default()
        }))
        .line();
        assert_eq!(
            line,
            "#3 hold by no-bulk (ask first): DELETE\\nFROM t\\u{1b}[2J [2 parameters]"
        );
    }

    #[test]
    fn every_kind_has_a_line_without_control_characters() {
        let nasty = || String::from("a\u{202e}b\u{9b}c\r\n");
        let kinds = [
            Kind::Connection(Connection {
                client: nasty(),
                target_address: nasty(),
                target: nasty(),
                protocol: nasty(),
                process: Some(crate::audit::event::Process {
                    comm: nasty(),
                    ..Default::default()
                }),
            }),
            Kind::Identity(Identity {
                user: nasty(),
                database: nasty(),
                application: nasty(),
                authenticated: false,
                error_code: nasty(),
                login: nasty(),
                method: nasty(),
                server_user: nasty(),
                client_tls: nasty(),
                target_tls: nasty(),
            }),
            Kind::Approval(Approval {
                resolution: nasty(),
                by: nasty(),
                reason: nasty(),
                ..Approval::default()
            }),
            Kind::Hold(Hold {
                required: std::vec![nasty(), nasty()],
                ..Hold::default()
            }),
            Kind::Outcome(Outcome {
                tag: nasty(),
                ..Outcome::default()
            }),
            Kind::Outcome(Outcome {
                error_code: nasty(),
                ..Outcome::default()
            }),
            Kind::Close(Close {
                reason: nasty(),
                violation: true,
                ..Close::default()
            }),
            Kind::PolicyLoaded(crate::audit::event::GatewayNote { detail: nasty() }),
            Kind::Administration(crate::audit::event::Administration {
                by: nasty(),
                action: nasty(),
            }),
        ];
        for kind in kinds {
            let line = event(kind).line();
            assert!(line.contains("a\\u{202e}b\\u{9b}c\\r\\n"), "{line}");
            assert!(printable(&line), "{line}");
        }
    }
}
