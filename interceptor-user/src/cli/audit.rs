//! `interceptor audit`: the record read, proved and written out.
//!
//! The proof happens in this process, on the bytes as they were stored: the gateway that wrote them
//! is not asked whether they are right.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use interceptor_core::audit::chain::{Head, Record};
use interceptor_core::audit::event::{Event, Kind};
use interceptor_core::audit::verify::{Finding, Verifier};
use serde_json::{Value, json};

use super::CliError;
use super::arguments::{ExportFormat, LogArgs};
use super::output::{self, Colour, Colours, Progress};
use crate::admin::client::AuditLine;
use crate::admin::{Client, ClientError, SOCKET};
use crate::audit::json as form;
use crate::audit::store::{Reader, StoreError};

/// A log's lines: its records, then its head.
pub(super) type Lines = Box<dyn Iterator<Item = Result<AuditLine, CliError>>>;

pub(super) fn tail(
    count: u64,
    follow: bool,
    source: &LogArgs,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let colours = Colours::for_stdout();
    for line in open(source, Some(count), follow)? {
        let AuditLine::Record(bytes) = line? else {
            break;
        };
        let text = match Record::decode(&bytes) {
            Ok(record) if source.common.json => form::record(&record).to_string(),
            Ok(record) => event_line(&record, colours),
            Err(error) => format!("a record that is {error}; run `interceptor audit verify`"),
        };
        writeln!(out, "{text}")?;
        if follow {
            out.flush()?;
        }
    }
    Ok(())
}

pub(super) fn verify(source: &LogArgs, out: &mut impl Write) -> Result<(), CliError> {
    let verdict = check(source, |_| Ok(()))?;
    if source.common.json {
        output::json(out, &verdict_json(&verdict))?;
    } else if let Ok(head) = verdict {
        writeln!(out, "{} records, head {}: intact", head.sequence, head.hash)?;
    } else if let Err(finding) = verdict {
        writeln!(out, "{finding}")?;
    }
    verdict.map(|_| ()).map_err(CliError::Tampered)
}

pub(super) fn export(
    output: Option<&Path>,
    format: ExportFormat,
    source: &LogArgs,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let verdict = match output {
        None => check(source, |bytes| Ok(write_record(bytes, format, out)?))?,
        Some(path) => {
            let failed = |source| CliError::Output {
                path: path.to_owned(),
                source,
            };
            // What people typed is in it: for its owner only, and over nothing else.
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .map_err(failed)?;
            let mut file = io::BufWriter::new(file);
            let verdict = check(source, |bytes| {
                write_record(bytes, format, &mut file).map_err(failed)
            })?;
            file.flush()
                .and_then(|()| file.get_ref().sync_all())
                .map_err(failed)?;
            verdict
        }
    };
    let head = verdict.map_err(CliError::Tampered)?;
    // Kept elsewhere, the head later proves that the end of the log was not cut off.
    let _ = writeln!(
        io::stderr(),
        "{} records, head {}",
        head.sequence,
        head.hash
    );
    Ok(())
}

/// Verifies a log from its first record and hands every record on, also those after a finding.
fn check(
    source: &LogArgs,
    mut each: impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<Result<Head, Finding>, CliError> {
    let mut verifier = Verifier::from_start();
    let mut progress = Progress::new();
    for (count, line) in (1..).zip(open(source, None, false)?) {
        match line? {
            AuditLine::Record(bytes) => {
                // The first finding stays with the verifier.
                let _ = verifier.take(&bytes);
                each(&bytes)?;
            }
            AuditLine::Head(head) => return Ok(verifier.finish(Some(head))),
        }
        progress.records(count);
    }
    Err(ClientError::Answer("the log had no end".to_owned()).into())
}

fn verdict_json(verdict: &Result<Head, Finding>) -> Value {
    match verdict {
        Ok(head) => json!({
            "intact": true,
            "records": head.sequence,
            "head": head.hash.to_string(),
        }),
        Err(finding) => {
            let (kind, sequence) = match *finding {
                Finding::Altered { sequence } => ("altered", sequence),
                Finding::Missing { sequence } => ("missing", sequence),
                Finding::Reordered { sequence } => ("reordered", sequence),
                Finding::TruncatedTail { have, .. } => ("truncated_tail", have.saturating_add(1)),
                Finding::BeyondHead { sequence } => ("beyond_head", sequence),
            };
            json!({
                "intact": false,
                "finding": kind,
                "sequence": sequence,
                "message": finding.to_string(),
            })
        }
    }
}

fn write_record(bytes: &[u8], format: ExportFormat, out: &mut impl Write) -> io::Result<()> {
    match format {
        ExportFormat::Json => {
            let value = match Record::decode(bytes) {
                Ok(record) => form::record(&record),
                Err(_) => json!({ "undecodable": hex::encode(bytes) }),
            };
            writeln!(out, "{value}")
        }
        ExportFormat::Protobuf => {
            let mut length = Vec::new();
            prost::encode_length_delimiter(bytes.len(), &mut length).map_err(io::Error::other)?;
            out.write_all(&length)?;
            out.write_all(bytes)
        }
    }
}

/// Opens the log where it is: a directory that was named, else the running gateway, else its state
/// directory. `last` limits it to so many records at the end.
pub(super) fn open(source: &LogArgs, last: Option<u64>, follow: bool) -> Result<Lines, CliError> {
    if let Some(directory) = &source.dir {
        return open_directory(directory, last);
    }
    let socket = source.common.run_dir.join(SOCKET);
    match Client::connect(&socket) {
        Ok(client) => Ok(Box::new(
            client
                .audit(1, last, follow)?
                .map(|line| line.map_err(CliError::from)),
        )),
        Err(ClientError::NotRunning(_)) if !follow => {
            let directory = source.state.join("audit");
            open_directory(&directory, last).map_err(|error| match error {
                CliError::Store(StoreError::Absent(_)) => CliError::NoLog { socket, directory },
                other => other,
            })
        }
        Err(error) => Err(error.into()),
    }
}

fn open_directory(directory: &Path, last: Option<u64>) -> Result<Lines, CliError> {
    let reader = Reader::open(directory)?;
    let head = reader.head()?;
    let from = last.map_or(0, |last| {
        head.sequence.saturating_sub(last).saturating_add(1)
    });
    let records = reader.records_from(from).map(|stored| match stored {
        Ok(stored) => Ok(AuditLine::Record(stored.bytes)),
        Err(error) => Err(error.into()),
    });
    Ok(Box::new(
        records.chain(std::iter::once(Ok(AuditLine::Head(head)))),
    ))
}

fn event_line(record: &Record, colours: Colours) -> String {
    let Ok(event) = record.event() else {
        return format!("{} an event of a newer version", record.sequence);
    };
    let session = form::session(&event.session);
    // The end of a UUID of version 7: its beginning is the time, which all of a minute share.
    let session = session
        .get(session.len().saturating_sub(8)..)
        .unwrap_or_default();
    let time = colours.paint(Colour::Dim, &form::time(event.time_unix_ns));
    let kind = format!("{:<15}", event.kind_name());
    let kind = match colour(&event) {
        Some(colour) => colours.paint(colour, &kind),
        None => kind,
    };
    format!(
        "{time} {:>8} {session:<8} {kind} {}",
        record.sequence,
        event.line()
    )
}

fn colour(event: &Event) -> Option<Colour> {
    match &event.kind {
        Some(Kind::Command(command)) => match command.decision.as_str() {
            "deny" => Some(Colour::Red),
            "hold" => Some(Colour::Yellow),
            _ => None,
        },
        Some(Kind::Approval(approval)) if approval.resolution == "approved" => Some(Colour::Green),
        Some(Kind::Approval(_)) => Some(Colour::Red),
        Some(Kind::Outcome(outcome)) if !outcome.error_code.is_empty() => Some(Colour::Red),
        Some(Kind::Close(close)) if close.violation => Some(Colour::Red),
        Some(Kind::Hold(_)) => Some(Colour::Yellow),
        _ => None,
    }
}
