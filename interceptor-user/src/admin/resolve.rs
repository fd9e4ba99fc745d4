//! A person's answer to a request: whether it counts, the record of it, and only then its effect.

use interceptor_core::audit::event::{Administration, Approval, Event, Kind};
use serde_json::{Value, json};

use super::peer::{Peer, host_user};
use super::server::AdminContext;
use crate::approval::{Answer, Counted, Request};
use crate::audit::json::now_unix_ns;

/// The longest reason for a decision, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// Records who answers what, then lets it count. If the log cannot take it, nobody answered.
pub(super) async fn resolve(
    context: &AdminContext,
    peer: &Peer,
    number: u64,
    approve: bool,
    reason: String,
) -> Result<Value, String> {
    check_reason(&reason)?;
    let approvals = &context.approvals;
    let shown = approvals.show(number).map_err(|error| error.to_string())?;
    let request = shown.request;
    let process = request.subject.process.as_ref();
    let requester = match process.map(|process| process.uid) {
        // The look-up may ask a directory server.
        Some(uid) => tokio::task::spawn_blocking(move || Some(host_user(uid)))
            .await
            .map_err(|error| error.to_string())?,
        None => None,
    };
    let answer = Answer {
        by: peer.voter.clone(),
        requester,
        approve,
        reason: reason.clone(),
        time_unix_ns: now_unix_ns(),
    };
    let casting = approvals.cast(number, answer).map_err(|refusal| {
        tracing::warn!(request = number, %refusal, "an answer to a request does not count");
        refusal.to_string()
    })?;
    record(context, &request, &peer.voter.to_string(), approve, reason).await?;
    let counted = casting.count().map_err(|error| error.to_string())?;
    let (resolution, missing) = match counted {
        Counted::Approved => ("approved", Vec::new()),
        Counted::Denied => ("denied", Vec::new()),
        Counted::Missing(missing) => ("vote", missing),
    };
    Ok(json!({
        "number": number,
        "resolution": resolution,
        "approved": resolution == "approved",
        "missing": missing,
    }))
}

/// Waits until the answer is on the disk: as what a person did, and, where groups are asked, as a
/// vote on the command.
async fn record(
    context: &AdminContext,
    request: &Request,
    by: &str,
    approve: bool,
    reason: String,
) -> Result<(), String> {
    let verb = if approve { "approve" } else { "deny" };
    let event = |kind| Event {
        time_unix_ns: now_unix_ns(),
        session: request.session.as_bytes().to_vec(),
        kind: Some(kind),
    };
    let act = context
        .recorder
        .append(event(Kind::Administration(Administration {
            by: by.to_owned(),
            action: format!("{verb} request {}", request.number),
        })));
    let is_vote = approve && !request.plan.requirements.is_empty();
    let vote = is_vote.then(|| {
        context.recorder.append(event(Kind::Approval(Approval {
            request: request.number,
            command: request.command,
            resolution: "vote".to_owned(),
            by: by.to_owned(),
            reason,
        })))
    });
    act.await.map_err(|error| error.to_string())?;
    if let Some(vote) = vote {
        vote.await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A reason ends up in the client's terminal.
pub(super) fn check_reason(reason: &str) -> Result<(), String> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(format!("a reason is at most {REASON_BYTES_MAX} bytes long"));
    }
    if reason.chars().any(char::is_control) {
        return Err("a reason is one line without control characters".to_owned());
    }
    Ok(())
}
