//! `interceptor metrics`: what the running gateway counts.

use std::io::Write;
use std::path::Path;

use super::CliError;
use crate::admin::{AdminRequest, Client, ClientError, SOCKET};

pub(super) fn show(run_dir: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let mut gateway = Client::connect(&run_dir.join(SOCKET))?;
    let answer = gateway.call(&AdminRequest::Metrics)?;
    let text = answer.as_str();
    let text = text.ok_or_else(|| ClientError::Answer("no text".to_owned()))?;
    Ok(write!(out, "{text}")?)
}
