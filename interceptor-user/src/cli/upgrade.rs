//! `interceptor upgrade`: another binary takes the place of the running one.

use std::io::Write;
use std::time::Duration;

use super::arguments::CommonArgs;
use super::{CliError, output};
use crate::admin::{AdminRequest, Client, SOCKET};

/// Longer than the gateway waits for its successor.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(90);

pub(super) fn ask(common: &CommonArgs, out: &mut impl Write) -> Result<(), CliError> {
    let socket = common.run_dir.join(SOCKET);
    let mut gateway = Client::connect_within(&socket, ANSWER_WAIT_MAX)?;
    let answer = gateway.call(&AdminRequest::Upgrade)?;
    if common.json {
        return Ok(output::json(out, &answer)?);
    }
    let pid = super::approvals::text(&answer, "pid");
    Ok(writeln!(
        out,
        "process {pid} has taken over; open sessions go on in the old one"
    )?)
}
