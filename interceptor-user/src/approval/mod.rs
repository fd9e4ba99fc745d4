//! Requests that wait for people, in memory: a hold lives no longer than its session.
//!
//! It owns who wins when approvers, client and clock act at once: exactly one of them. Whose approval
//! counts is told by [`vote`]. It must not know how a command is resumed, who asks over which socket,
//! or what time it is.

mod vote;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use interceptor_core::command::{Resolution, Subject};
use interceptor_core::policy::{HoldPlan, People};
use tokio::sync::oneshot;
use uuid::Uuid;

pub use vote::{HostUser, Refusal, Vote, Voter, approvals};

/// The most requests that wait at the same time.
pub const OPEN_MAX: usize = 10_000;

/// The most of the approvers' names and of their reasons that an approval repeats, in bytes.
const NAMES_BYTES_MAX: usize = 64 * 1024;
const REASONS_BYTES_MAX: usize = 16 * 1024;

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
    requests: Arc<Mutex<Requests>>,
}

#[derive(Default)]
struct Requests {
    open: BTreeMap<u64, Open>,
    /// Answers so far: each gets a number.
    answers: u64,
}

struct Open {
    request: Arc<Request>,
    votes: Vec<Arc<Vote>>,
    /// Approvals on their way to the record, by a number of their own.
    casting: BTreeMap<u64, Voter>,
    answer: oneshot::Sender<Resolution>,
}

/// A request that waits, with the approvals that it has.
#[derive(Clone)]
pub struct Waiting {
    /// The request.
    pub request: Arc<Request>,
    /// In the order in which they came.
    pub votes: Vec<Arc<Vote>>,
}

impl Waiting {
    /// What is missing, as in `1 of dba`.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.request.missing(&self.votes)
    }
}

impl Open {
    fn waiting(&self) -> Waiting {
        Waiting {
            request: Arc::clone(&self.request),
            votes: self.votes.clone(),
        }
    }
}

/// An answer to a request.
pub struct Answer {
    /// Who answers.
    pub by: Voter,
    /// The user whose process sent the command, if it is a local one.
    pub requester: Option<HostUser>,
    /// The command may go, as far as they are concerned.
    pub approve: bool,
    /// Why.
    pub reason: String,
    /// When.
    pub time_unix_ns: u64,
}

/// An answer that will count: it is to be recorded, and then [`Self::count`]ed. While it is there, no
/// other approval of the same person is taken. Dropping it takes it back.
#[must_use = "dropping it takes the answer back"]
pub struct Casting {
    number: u64,
    id: u64,
    answer: Option<Answer>,
    approvals: Approvals,
}

/// What an answer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// Others have to approve as well.
    Missing(Vec<String>),
    /// It was the last one missing: the command goes.
    Approved,
    /// The command does not go.
    Denied,
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
        let open = &mut self.lock().open;
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
                votes: Vec::new(),
                casting: BTreeMap::new(),
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
    pub fn list(&self) -> Vec<Waiting> {
        self.lock().open.values().map(Open::waiting).collect()
    }

    /// One request that waits.
    ///
    /// # Errors
    /// If it does not wait.
    pub fn show(&self, number: u64) -> Result<Waiting, NotOpen> {
        let requests = self.lock();
        let open = requests.open.get(&number).ok_or(NotOpen { number })?;
        Ok(open.waiting())
    }

    /// Takes an answer that counts once it is recorded. A denial needs no other: it may come from
    /// whoever is asked, also from who approved before.
    ///
    /// # Errors
    /// If it does not count.
    pub fn cast(&self, number: u64, answer: Answer) -> Result<Casting, Refusal> {
        let requests = &mut *self.lock();
        let open = requests.open.get_mut(&number).ok_or(NotOpen { number })?;
        open.request.check_member(&answer.by)?;
        requests.answers += 1;
        let id = requests.answers;
        if answer.approve {
            let earlier = open.votes.iter().map(|vote| &vote.by);
            let earlier = earlier.chain(open.casting.values());
            let requester = answer.requester.as_ref();
            open.request
                .check_approval(&answer.by, requester, earlier, &open.votes)?;
            open.casting.insert(id, answer.by.clone());
        }
        Ok(Casting {
            number,
            id,
            answer: Some(answer),
            approvals: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        // Nothing in a critical section can leave the requests half changed.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Casting {
    /// Lets the answer count. If it ends the wait, nothing else will.
    ///
    /// # Errors
    /// If the request waits no longer.
    pub fn count(mut self) -> Result<Counted, NotOpen> {
        let number = self.number;
        let answer = self.answer.take().ok_or(NotOpen { number })?;
        // The resolution is given under the lock: a request that is not in the map is either
        // resolved or withdrawn, never between.
        let requests = &mut *self.approvals.lock();
        let mut entry = match requests.open.entry(number) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(_) => return Err(NotOpen { number }),
        };
        let open = entry.get_mut();
        open.casting.remove(&self.id);
        if answer.approve {
            open.votes.push(Arc::new(Vote {
                by: answer.by,
                reason: answer.reason,
                time_unix_ns: answer.time_unix_ns,
            }));
            let missing = open.waiting().missing();
            if !missing.is_empty() {
                return Ok(Counted::Missing(missing));
            }
            let open = entry.remove();
            let resolution = approval(&open.votes);
            let sent = open.answer.send(resolution);
            return sent.map_or(Err(NotOpen { number }), |()| Ok(Counted::Approved));
        }
        let resolution = Resolution {
            approved: false,
            by: answer.by.to_string(),
            reason: answer.reason,
        };
        let sent = entry.remove().answer.send(resolution);
        sent.map_or(Err(NotOpen { number }), |()| Ok(Counted::Denied))
    }
}

impl Drop for Casting {
    fn drop(&mut self) {
        if self.answer.is_some()
            && let Some(open) = self.approvals.lock().open.get_mut(&self.number)
        {
            open.casting.remove(&self.id);
        }
    }
}

/// All who approved, and what they said. Each reason is whole in the record of its vote.
fn approval(votes: &[Arc<Vote>]) -> Resolution {
    let by = votes.iter().map(|vote| vote.by.to_string());
    let reasons = votes.iter().map(|vote| vote.reason.clone());
    Resolution {
        approved: true,
        by: joined(by, NAMES_BYTES_MAX),
        reason: joined(
            reasons.filter(|reason| !reason.is_empty()),
            REASONS_BYTES_MAX,
        ),
    }
}

/// Texts in one, as far as there is room.
fn joined(texts: impl Iterator<Item = String>, bytes_max: usize) -> String {
    let mut all = String::new();
    for text in texts {
        let separator = if all.is_empty() { "" } else { "; " };
        if all.len() + separator.len() + text.len() > bytes_max {
            return format!("{all}{separator}…");
        }
        all.push_str(separator);
        all.push_str(&text);
    }
    all
}

impl Held {
    /// Ends the wait, for a timeout or a cancel. `None` withdraws the request, and from then on
    /// nobody can approve it. `Some` means that a person was faster: their word counts.
    pub fn withdraw(mut self) -> Option<Resolution> {
        self.approvals.lock().open.remove(&self.number);
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
        self.approvals.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
