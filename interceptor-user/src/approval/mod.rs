//! Requests that wait for a person, in memory: a hold lives no longer than its session.
//!
//! It owns who wins when approver, client and clock act at once: exactly one of them. It must not
//! know how a command is resumed, who asks over which socket, or what time it is.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use interceptor_core::command::{Resolution, Subject};
use interceptor_core::policy::{HoldPlan, People};
use tokio::sync::oneshot;
use uuid::Uuid;

/// The most requests that wait at the same time.
pub const OPEN_MAX: usize = 10_000;

/// A command that waits, as the approver sees it. Texts are masked already.
#[derive(Clone)]
pub struct Request {
    /// Unique in this log: what the approver types.
    pub number: u64,
    /// Whose command it is.
    pub session: Uuid,
    /// The command's number within the session.
    pub command: u64,
    /// Who has to approve.
    pub plan: Arc<HoldPlan>,
    /// The person behind the session; `None` if no identity names them for certain.
    pub person: Option<Arc<str>>,
    /// Who is behind the users of the gateway host, by the policy that decided.
    pub people: Arc<People>,
    /// When it began to wait, in nanoseconds since the Unix epoch.
    pub opened_unix_ns: u64,
    /// When it will be refused, for the approver to see. The session keeps the time.
    pub expires_unix_ns: u64,
    /// Who sent it.
    pub subject: Subject,
    /// The policy's name for the target.
    pub target: String,
    /// The rule that holds it; empty for the target's default.
    pub rule: String,
    /// Why it is held.
    pub reason: String,
    /// Its text, masked.
    pub text: String,
    /// Its parameters, masked.
    pub parameters: Vec<String>,
    /// The kinds of its statements.
    pub kinds: Vec<String>,
    /// Relations that it reads.
    pub reads: Vec<String>,
    /// Relations that it writes.
    pub writes: Vec<String>,
}

/// The request is not, or no longer, waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "request {number} is not open: it was resolved, withdrawn or never made; see `interceptor \
     approvals list`"
)]
pub struct NotOpen {
    /// Its number.
    pub number: u64,
}

/// Why a request cannot wait. The command must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too many wait already.
    #[error("{OPEN_MAX} requests wait for approval already, which is the limit")]
    TooMany,
    /// The number is taken: a fault in the gateway.
    #[error("request {0} is open already")]
    NumberTaken(u64),
}

/// All requests that wait. Clones share them.
#[derive(Clone, Default)]
pub struct Approvals {
    open: Arc<Mutex<BTreeMap<u64, Open>>>,
}

struct Open {
    request: Arc<Request>,
    answer: oneshot::Sender<Resolution>,
}

/// A request that waits: resolves to what a person decided. Dropping it withdraws the request.
#[must_use = "dropping it withdraws the request"]
pub struct Held {
    number: u64,
    approvals: Approvals,
    answer: oneshot::Receiver<Resolution>,
}

impl Approvals {
    /// Lets a request wait.
    ///
    /// # Errors
    /// If too many wait already.
    pub fn open(&self, request: Request) -> Result<Held, OpenError> {
        let number = request.number;
        let mut open = self.lock();
        if open.len() >= OPEN_MAX {
            return Err(OpenError::TooMany);
        }
        if open.contains_key(&number) {
            return Err(OpenError::NumberTaken(number));
        }
        let (sender, receiver) = oneshot::channel();
        open.insert(
            number,
            Open {
                request: Arc::new(request),
                answer: sender,
            },
        );
        Ok(Held {
            number,
            approvals: self.clone(),
            answer: receiver,
        })
    }

    /// The requests that wait, by number.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Request>> {
        self.lock()
            .values()
            .map(|open| Arc::clone(&open.request))
            .collect()
    }

    /// One request that waits.
    ///
    /// # Errors
    /// If it does not wait.
    pub fn show(&self, number: u64) -> Result<Arc<Request>, NotOpen> {
        self.lock()
            .get(&number)
            .map(|open| Arc::clone(&open.request))
            .ok_or(NotOpen { number })
    }

    /// Decides a request. If this succeeds, nobody else's decision on it will.
    ///
    /// # Errors
    /// If it does not wait, or no longer.
    pub fn resolve(
        &self,
        number: u64,
        approved: bool,
        by: String,
        reason: String,
    ) -> Result<(), NotOpen> {
        // The answer is given under the lock: a request that is not in the map is either answered
        // or withdrawn, never between.
        let mut open = self.lock();
        let waiting = open.remove(&number).ok_or(NotOpen { number })?;
        let resolution = Resolution {
            approved,
            by,
            reason,
        };
        waiting
            .answer
            .send(resolution)
            .map_err(|_| NotOpen { number })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Open>> {
        // Nothing in a critical section can leave the map half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Ends the wait, for a timeout or a cancel. `None` withdraws the request, and from then on
    /// nobody can approve it. `Some` means that a person was faster: their word counts.
    pub fn withdraw(mut self) -> Option<Resolution> {
        self.approvals.lock().remove(&self.number);
        self.answer.try_recv().ok()
    }
}

// Cancel-safe: a resolution stays in the channel until it is taken.
impl Future for Held {
    type Output = Resolution;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // An error cannot come: only `resolve` and `Held` itself remove the sender. If it did, the
        // answer is no.
        Pin::new(&mut self.answer).poll(context).map(|answer| {
            answer.unwrap_or_else(|_| Resolution {
                approved: false,
                by: String::new(),
                reason: "the request was withdrawn".to_owned(),
            })
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.approvals.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn request(number: u64) -> Request {
        Request {
            number,
            session: Uuid::nil(),
            command: 1,
            plan: Arc::new(HoldPlan::by_anybody(Duration::from_secs(60))),
            person: None,
            people: Arc::default(),
            opened_unix_ns: 0,
            expires_unix_ns: 0,
            subject: Subject {
                client: "192.0.2.1:5000".parse().unwrap(),
                process: None,
                user: "alice".to_owned(),
                database: "shop".to_owned(),
            },
            target: "shop-db".to_owned(),
            rule: String::new(),
            reason: String::new(),
            text: "DELETE FROM orders".to_owned(),
            parameters: Vec::new(),
            kinds: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }

    fn approve(approvals: &Approvals, number: u64) -> Result<(), NotOpen> {
        approvals.resolve(number, true, "root (uid 0)".to_owned(), String::new())
    }

    #[tokio::test]
    async fn an_approval_reaches_who_waits_and_ends_the_request() {
        let approvals = Approvals::default();
        let held = approvals.open(request(7)).unwrap();
        assert_eq!(approvals.show(7).unwrap().text, "DELETE FROM orders");
        approve(&approvals, 7).unwrap();
        assert_eq!(approve(&approvals, 7), Err(NotOpen { number: 7 }));
        assert!(approvals.list().is_empty());
        let resolution = held.await;
        assert!(resolution.approved);
        assert_eq!(resolution.by, "root (uid 0)");
    }

    #[test]
    fn a_dropped_request_cannot_be_approved() {
        let approvals = Approvals::default();
        drop(approvals.open(request(7)).unwrap());
        assert!(approvals.list().is_empty());
        assert_eq!(approve(&approvals, 7), Err(NotOpen { number: 7 }));
    }

    #[test]
    fn withdrawing_after_an_answer_yields_the_answer() {
        let approvals = Approvals::default();
        let held = approvals.open(request(1)).unwrap();
        assert_eq!(held.withdraw(), None);
        let held = approvals.open(request(2)).unwrap();
        approve(&approvals, 2).unwrap();
        assert!(held.withdraw().unwrap().approved);
    }

    #[test]
    fn a_number_is_open_once() {
        let approvals = Approvals::default();
        let held = approvals.open(request(7)).unwrap();
        assert_eq!(
            approvals.open(request(7)).err(),
            Some(OpenError::NumberTaken(7))
        );
        // The refused second request must not have withdrawn the first.
        approve(&approvals, 7).unwrap();
        assert!(held.withdraw().is_some());
    }

    #[test]
    fn the_number_of_requests_is_limited() {
        let approvals = Approvals::default();
        let held: Vec<Held> = (0..OPEN_MAX as u64)
            .map(|number| approvals.open(request(number)).unwrap())
            .collect();
        assert_eq!(
            approvals.open(request(u64::MAX)).err(),
            Some(OpenError::TooMany)
        );
        drop(held);
        assert!(approvals.open(request(u64::MAX)).is_ok());
    }

    // Approvers, and the session that gives up: exactly one of them wins, every time.
    #[test]
    fn exactly_one_wins_a_race() {
        for number in 0..2_000 {
            let approvals = Approvals::default();
            let held = approvals.open(request(number)).unwrap();
            let (approved, withdrawn) = std::thread::scope(|scope| {
                let approvers: Vec<_> = (0..2)
                    .map(|_| scope.spawn(|| approve(&approvals, number).is_ok()))
                    .collect();
                let withdrawn = held.withdraw().is_none();
                let approved: Vec<bool> = approvers
                    .into_iter()
                    .map(|approver| approver.join().unwrap())
                    .collect();
                (approved, withdrawn)
            });
            let winners = approved.iter().filter(|won| **won).count() + usize::from(withdrawn);
            assert_eq!(winners, 1, "{approved:?} {withdrawn}");
        }
    }
}
