//! `interceptor policy show`: policy files as they were, from the record.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use interceptor_core::audit::chain::Record;
use interceptor_core::audit::event::Kind;
use interceptor_core::audit::snapshot::{Assembler, WholeSnapshot};
use serde_json::{Value, json};

use super::super::arguments::LogArgs;
use super::super::{CliError, audit, output};
use super::arguments::ShowArgs;
use super::reload::short;
use crate::admin::client::AuditLine;
use crate::admin::{AdminRequest, Client, SOCKET};
use crate::audit::json::time;

/// Policy files on record.
pub(crate) struct Recorded {
    /// When they were written down, for the first time.
    pub(crate) time_unix_ns: u64,
    pub(crate) snapshot: WholeSnapshot,
}

pub(super) fn run(arguments: &ShowArgs, out: &mut impl Write) -> Result<(), CliError> {
    if arguments.list {
        return list(&arguments.source, out);
    }
    let wanted = match &arguments.hash {
        Some(hash) => Some(hash.to_ascii_lowercase()),
        None => in_force(&arguments.source),
    };
    let found = find(&arguments.source, wanted.as_deref())?;
    if let Some(directory) = &arguments.output {
        return write_into(directory, &found.snapshot).map_err(|source| CliError::Output {
            path: directory.clone(),
            source,
        });
    }
    if arguments.source.common.json {
        return Ok(output::json(out, &shown(&found))?);
    }
    for (index, (name, text)) in found.snapshot.files.iter().enumerate() {
        let gap = if index == 0 { "" } else { "---\n" };
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write!(out, "{gap}# {name}\n{text}{end}")?;
    }
    Ok(())
}

/// The hash that a gateway decides by, where one is asked.
pub(super) fn in_force(source: &LogArgs) -> Option<String> {
    if source.dir.is_some() {
        return None;
    }
    let mut gateway = Client::connect(&source.common.run_dir.join(SOCKET)).ok()?;
    let status = gateway.call(&AdminRequest::Status).ok()?;
    let hash = status.pointer("/policy/hash")?.as_str()?;
    Some(hash.to_owned())
}

/// The files whose hash begins so; without a beginning, those that were recorded last.
///
/// # Errors
/// If the log cannot be read, or holds none that fits, or several.
pub(crate) fn find(source: &LogArgs, start: Option<&str>) -> Result<Recorded, CliError> {
    let mut found: Option<Recorded> = None;
    for recorded in all(source)? {
        let recorded = recorded?;
        let hash = hex::encode(&recorded.snapshot.hash);
        match (start, &found) {
            (Some(start), _) if !hash.starts_with(start) => {}
            (Some(start), Some(other)) if other.snapshot.hash != recorded.snapshot.hash => {
                return Err(CliError::ManySnapshots(start.to_owned()));
            }
            _ => found = Some(recorded),
        }
    }
    found.ok_or_else(|| CliError::NoSnapshot(start.unwrap_or_default().to_owned()))
}

/// All of them, in the order of the record.
fn all(source: &LogArgs) -> Result<impl Iterator<Item = Result<Recorded, CliError>>, CliError> {
    let mut assembler = Assembler::default();
    let lines = audit::open(source, None, false)?;
    Ok(lines.filter_map(move |line| {
        let bytes = match line {
            Ok(AuditLine::Record(bytes)) => bytes,
            Ok(AuditLine::Head(_)) => return None,
            Err(error) => return Some(Err(error)),
        };
        // What cannot be read is `audit verify`'s to tell.
        let event = Record::decode(&bytes).ok()?.event().ok()?;
        let Some(Kind::PolicySnapshot(part)) = &event.kind else {
            return None;
        };
        let snapshot = assembler.take(part)?;
        let time_unix_ns = event.time_unix_ns;
        Some(Ok(Recorded {
            time_unix_ns,
            snapshot,
        }))
    }))
}

fn list(source: &LogArgs, out: &mut impl Write) -> Result<(), CliError> {
    let mut found = Vec::new();
    for recorded in all(source)? {
        let recorded = recorded?;
        found.push((
            hex::encode(&recorded.snapshot.hash),
            time(recorded.time_unix_ns),
            recorded.snapshot.files.len(),
        ));
    }
    if source.common.json {
        let rows = found
            .iter()
            .map(|(hash, time, files)| json!({ "hash": hash, "time": time, "files": files }));
        return Ok(output::json(out, &rows.collect())?);
    }
    let rows = found.into_iter();
    let rows: Vec<_> = rows
        .map(|(hash, time, files)| [short(&hash), time, files.to_string()])
        .collect();
    Ok(output::table(out, ["HASH", "RECORDED", "FILES"], &rows)?)
}

fn shown(recorded: &Recorded) -> Value {
    let files = recorded.snapshot.files.iter();
    json!({
        "hash": hex::encode(&recorded.snapshot.hash),
        "time": time(recorded.time_unix_ns),
        "files": files.map(|(name, text)| json!({ "name": name, "text": text })).collect::<Vec<_>>(),
    })
}

/// Writes the files under their own names. The record says where they lay; they go nowhere but into
/// this directory, and over nothing.
fn write_into(directory: &Path, snapshot: &WholeSnapshot) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    for (name, text) in &snapshot.files {
        let name = Path::new(name).file_name();
        let name = name.ok_or_else(|| io::Error::other("a file on record has no name"))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(directory.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}
