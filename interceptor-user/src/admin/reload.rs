//! `interceptor policy reload`, the gateway's end.

use interceptor_core::audit::event::{Administration, Event, Kind};
use serde_json::Value;
use tokio::sync::oneshot;

use super::server::{AdminContext, REPLACED};
use crate::audit::json;

/// Records who asks for a reload, then asks the gateway for it and waits until it is over.
pub(super) async fn reload(context: &AdminContext, by: &str) -> Result<Value, String> {
    let event = Event {
        time_unix_ns: json::now_unix_ns(),
        session: Vec::new(),
        kind: Some(Kind::Administration(Administration {
            by: by.to_owned(),
            action: "reload the policy".to_owned(),
        })),
    };
    let recorded = context.recorder.append(event).await;
    recorded.map_err(|error| error.to_string())?;
    let (answer, answered) = oneshot::channel();
    let asked = context.reload.send(answer).await;
    asked.map_err(|_| REPLACED.to_owned())?;
    answered.await.map_err(|_| REPLACED.to_owned())?
}
