//! Ending a session for somebody: which one is meant, the record of it, and only then the end.

use interceptor_core::audit::event::{Administration, Event, Kind};
use serde_json::{Value, json};
use uuid::Uuid;

use super::protocol::{Killing, SessionRow};
use super::resolve::check_reason;
use super::server::AdminContext;
use crate::audit::json::now_unix_ns;

/// Records who ends which session, then ends it. If the log cannot take it, the session goes on.
pub(super) async fn kill(
    context: &AdminContext,
    by: &str,
    wanted: &str,
    reason: String,
) -> Result<Value, String> {
    check_reason(&reason)?;
    let id = find(&(context.sessions)(), wanted)?;
    let why = match reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    let event = Event {
        time_unix_ns: now_unix_ns(),
        session: id.as_bytes().to_vec(),
        kind: Some(Kind::Administration(Administration {
            by: by.to_owned(),
            action: format!("kill session {id}{why}"),
        })),
    };
    let recorded = context.recorder.append(event).await;
    recorded.map_err(|error| error.to_string())?;
    let killing = Killing {
        by: by.to_owned(),
        reason,
    };
    if (context.kill)(id, killing) {
        Ok(json!({ "session": id.to_string() }))
    } else {
        Err(format!("session {id} was ending already"))
    }
}

/// The one session whose id begins like this.
fn find(sessions: &[SessionRow], wanted: &str) -> Result<Uuid, String> {
    let wanted = wanted.to_ascii_lowercase();
    let mut found = sessions
        .iter()
        .filter(|session| !wanted.is_empty() && session.id.starts_with(&wanted));
    match (found.next(), found.count()) {
        (None, _) => Err(format!(
            "there is no open session `{wanted}`; see `interceptor sessions list`"
        )),
        (Some(one), 0) => Uuid::parse_str(&one.id).map_err(|error| error.to_string()),
        (Some(_), others) => Err(format!(
            "`{wanted}` is the start of {} sessions; give more of the id",
            others + 1
        )),
    }
}
