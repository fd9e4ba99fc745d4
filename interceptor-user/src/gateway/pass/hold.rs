//! A connection that waits for people before it is dialled.

use std::sync::Arc;
use std::time::Duration;

use interceptor_core::audit::event::{self as events, Kind};
use interceptor_core::command::{CONNECT, Resolution};
use interceptor_core::policy::{Decision, Expression, HoldPlan, OnTimeout, View};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{COMMAND, Connection, End, input};
use crate::approval::{Held, Request};
use crate::audit::{Pending, json};

/// How often a held client that has sent something is looked after.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Connection {
    /// Waits for people, and for those who are asked after them. What comes back opens the way once it
    /// is durable.
    pub(super) async fn hold(
        &mut self,
        client: &TcpStream,
        decision: &Decision,
        plan: &Arc<HoldPlan>,
        view: &View,
    ) -> Result<Pending, End> {
        let mut plan = Arc::clone(plan);
        for stage in 0.. {
            let request = self.request(decision, &plan, view);
            let number = request.number;
            if let Some(resolution) = self.ask(client, request, stage).await? {
                if resolution.approved {
                    return Ok(self.append(approval(number, "approved", &resolution)));
                }
                self.resolved(approval(number, "denied", &resolution))?;
                let why = format!("request {number} was denied by {}", resolution.by);
                return Err(End::Denied(why));
            }
            let next = match &plan.on_timeout {
                OnTimeout::Escalate(others) => Arc::clone(others),
                OnTimeout::Automatic(expression) if self.holds_now(view, expression) => {
                    return Ok(self.append(approval(number, "automatic", &nobody())));
                }
                OnTimeout::Automatic(_) | OnTimeout::Deny => {
                    self.resolved(approval(number, "timed_out", &nobody()))?;
                    let seconds = plan.timeout.as_secs();
                    let why = format!("nobody answered request {number} within {seconds} s");
                    return Err(End::Denied(why));
                }
            };
            self.resolved(approval(number, "escalated", &nobody()))?;
            plan = next;
        }
        Err(End::Denied("nobody is left to ask".to_owned()))
    }

    /// Opens a request and waits for its end; `None` if its time is over.
    async fn ask(
        &mut self,
        client: &TcpStream,
        request: Request,
        stage: u32,
    ) -> Result<Option<Resolution>, End> {
        let (number, timeout) = (request.number, request.plan.timeout);
        let recorded = self.append(Kind::Hold(events::Hold {
            request: number,
            command: COMMAND,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            required: request.plan.required(),
            stage,
        }));
        // The command's event is before it in the log, so it is durable as well.
        recorded.await.map_err(End::NotRecorded)?;
        let opened = self.shared.approvals.open(request);
        let mut held = opened.map_err(|error| End::Denied(error.to_string()))?;
        self.waiting = Some(number);
        self.show("held");
        let resolution = tokio::select! {
            resolution = &mut held => Some(resolution),
            () = left(client) => return Err(self.left_while_held(held)),
            // If a person was faster than the clock, their word counts.
            () = tokio::time::sleep(timeout) => held.withdraw(),
        };
        self.waiting = None;
        Ok(resolution)
    }

    fn holds_now(&self, view: &View, expression: &Expression) -> bool {
        view.automatic(expression, &input(&self.facts))
    }

    fn left_while_held(&mut self, held: Held) -> End {
        drop(held);
        let Some(number) = self.waiting.take() else {
            return End::LeftWhileHeld;
        };
        match self.resolved(approval(number, "client_gone", &nobody())) {
            Ok(()) => End::LeftWhileHeld,
            Err(end) => end,
        }
    }

    fn resolved(&self, kind: Kind) -> Result<(), End> {
        self.note(kind).map_err(End::NotRecorded)
    }

    fn request(&self, decision: &Decision, plan: &Arc<HoldPlan>, view: &View) -> Request {
        let opened_unix_ns = json::now_unix_ns();
        let wait_ns = u64::try_from(plan.timeout.as_nanos()).unwrap_or(u64::MAX);
        let rule = decision.rule.as_ref();
        Request {
            number: self.shared.recorder.next_request_number(),
            session: self.id,
            command: COMMAND,
            plan: Arc::clone(plan),
            person: view.who().person.clone(),
            people: Arc::clone(&view.snapshot().people),
            opened_unix_ns,
            expires_unix_ns: opened_unix_ns.saturating_add(wait_ns),
            subject: self.subject.clone(),
            target: self.target.clone(),
            rule: rule.map(|rule| rule.name.clone()).unwrap_or_default(),
            reason: decision.reason.to_string(),
            text: self.text(),
            parameters: Vec::new(),
            kinds: vec![CONNECT.to_owned()],
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }
}

/// Waits until a client that is not read closes its side or breaks. Cancel-safe.
async fn left(client: &TcpStream) {
    loop {
        match client.ready(Interest::READABLE | Interest::ERROR).await {
            Ok(ready) if ready.is_read_closed() || ready.is_error() => return,
            // It sent something, which waits for the answer as well: as long as that is not read,
            // the kernel's word cannot be waited for.
            Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
            Err(_) => return,
        }
    }
}

pub(super) fn approval(request: u64, resolution: &str, answer: &Resolution) -> Kind {
    Kind::Approval(events::Approval {
        request,
        command: COMMAND,
        resolution: resolution.to_owned(),
        by: answer.by.clone(),
        reason: answer.reason.clone(),
    })
}

pub(super) fn nobody() -> Resolution {
    Resolution {
        approved: false,
        by: String::new(),
        reason: String::new(),
    }
}
