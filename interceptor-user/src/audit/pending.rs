//! How far the log is durable, and who waits for that.
//!
//! Every event that is queued has a *ticket*, counted from 1. The writer moves one number on, the
//! last ticket that is durable, and wakes at once all whom that answers: no event has a channel of
//! its own. It owns that nobody is told so too early, and that nobody waits for ever. It must not
//! know what is written.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll, Wake, Waker};

use super::recorder::AuditError;

/// The number of an event that the gateway has which replaced this one.
const ELSEWHERE: u64 = 0;

/// How far the log is durable.
#[derive(Default)]
pub(super) struct Progress {
    durable: AtomicU64,
    failure: OnceLock<AuditError>,
    waiters: Mutex<Vec<Waiter>>,
    /// Which log a ticket went to: the first ticket of each.
    logs: RwLock<Vec<(u64, Numbers)>>,
}

/// How tickets become numbers in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// The log is here: the number of the record before the first.
    After(u64),
    /// They are another's.
    Elsewhere,
}

struct Waiter {
    ticket: u64,
    waker: Waker,
}

impl Progress {
    /// From this ticket on, events go to another log.
    pub(super) fn goes_on(&self, first_ticket: u64, numbers: Numbers) {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.push((first_ticket, numbers));
    }

    /// Everything up to this ticket is durable.
    pub(super) fn advance(&self, ticket: u64) {
        self.durable.store(ticket, Ordering::Release);
        self.wake(|waiter| waiter.ticket <= ticket);
    }

    /// What is not durable by now never will be.
    pub(super) fn fail(&self, error: &AuditError) {
        let _ = self.failure.set(error.clone());
        self.wake(|_| true);
    }

    fn wake(&self, is_answered: impl Fn(&Waiter) -> bool) {
        let answered: Vec<Waiter> = {
            let mut waiters = self.waiters();
            match waiters.iter().all(&is_answered) {
                true => {
                    let room = Vec::with_capacity(waiters.len());
                    std::mem::replace(&mut *waiters, room)
                }
                false => waiters
                    .extract_if(.., |waiter| is_answered(waiter))
                    .collect(),
            }
        };
        let mut last: Option<&Waker> = None;
        for Waiter { waker, .. } in &answered {
            // One session often waits for several events of a commit.
            if !last.is_some_and(|last| last.will_wake(waker)) {
                waker.wake_by_ref();
            }
            last = Some(waker);
        }
    }

    fn answer(&self, ticket: u64) -> Option<Result<u64, AuditError>> {
        // In this order: after a failure nothing becomes durable any more.
        let failure = self.failure.get();
        if self.durable.load(Ordering::Acquire) >= ticket {
            return Some(Ok(self.number(ticket)));
        }
        failure.map(|error| Err(error.clone()))
    }

    fn number(&self, ticket: u64) -> u64 {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        match logs.iter().rev().find(|(first, _)| *first <= ticket) {
            Some((first, Numbers::After(before))) => {
                before.saturating_add(ticket - first).saturating_add(1)
            }
            _ => ELSEWHERE,
        }
    }

    fn waiters(&self) -> MutexGuard<'_, Vec<Waiter>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event on its way to the disk: resolves to its number in the log when it is durable, or to 0 if
/// the log is another gateway's by now. Dropping it does not take the event back.
#[must_use = "the event is durable only when this has resolved"]
pub struct Pending(State);

enum State {
    Refused(AuditError),
    Queued {
        progress: Arc<Progress>,
        ticket: u64,
        /// Who is woken.
        waker: Option<Waker>,
    },
}

impl Pending {
    pub(super) const fn refused(error: AuditError) -> Self {
        Self(State::Refused(error))
    }

    pub(super) const fn queued(progress: Arc<Progress>, ticket: u64) -> Self {
        Self(State::Queued {
            progress,
            ticket,
            waker: None,
        })
    }

    /// Waits on a thread that may block.
    pub(super) fn wait(mut self) -> Result<u64, AuditError> {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut self).poll(&mut context) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    /// Why it was not even queued.
    pub(super) const fn refusal(&self) -> Option<&AuditError> {
        match &self.0 {
            State::Refused(error) => Some(error),
            State::Queued { .. } => None,
        }
    }
}

impl Future for Pending {
    type Output = Result<u64, AuditError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (progress, ticket, registered) = match &mut self.get_mut().0 {
            State::Refused(error) => return Poll::Ready(Err(error.clone())),
            State::Queued {
                progress,
                ticket,
                waker,
            } => (progress, *ticket, waker),
        };
        if let Some(answer) = progress.answer(ticket) {
            return Poll::Ready(answer);
        }
        let waker = context.waker();
        if registered
            .as_ref()
            .is_some_and(|last| last.will_wake(waker))
        {
            return Poll::Pending;
        }
        let mut waiters = progress.waiters();
        // The writer moves on first and looks at who waits then.
        if let Some(answer) = progress.answer(ticket) {
            return Poll::Ready(answer);
        }
        let again = match registered.is_some() {
            true => waiters.iter_mut().rfind(|waiter| waiter.ticket == ticket),
            false => None,
        };
        match again {
            Some(waiter) => waiter.waker = waker.clone(),
            None => waiters.push(Waiter {
                ticket,
                waker: waker.clone(),
            }),
        }
        *registered = Some(waker.clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(pending: &mut Pending, waker: &Arc<Counted>) -> Poll<Result<u64, AuditError>> {
        let waker = Waker::from(Arc::clone(waker));
        Pin::new(pending).poll(&mut Context::from_waker(&waker))
    }

    fn progress() -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        progress.goes_on(1, Numbers::After(40));
        progress
    }

    #[test]
    fn a_commit_wakes_a_session_once_and_only_those_it_answers() {
        let progress = progress();
        let (session, other) = (Arc::<Counted>::default(), Arc::<Counted>::default());
        let mut pending: Vec<Pending> = (1..=5)
            .map(|ticket| Pending::queued(Arc::clone(&progress), ticket))
            .collect();
        for (index, pending) in pending.iter_mut().enumerate() {
            let waker = if index < 3 { &session } else { &other };
            // Polled twice, as in a `select!`.
            assert_eq!(poll(pending, waker), Poll::Pending);
            assert_eq!(poll(pending, waker), Poll::Pending);
        }
        assert_eq!(progress.waiters().len(), 5);
        progress.advance(4);
        let woken = |waker: &Arc<Counted>| waker.0.load(Ordering::Relaxed);
        assert_eq!((woken(&session), woken(&other)), (1, 1));
        let answers: Vec<_> = pending
            .iter_mut()
            .map(|pending| poll(pending, &session))
            .collect();
        let ready = |number| Poll::Ready(Ok(number));
        assert_eq!(answers[..4], [ready(41), ready(42), ready(43), ready(44)]);
        assert_eq!(answers[4], Poll::Pending);
        // Its waker has changed, and only the new one counts.
        progress.fail(&AuditError::Closed);
        assert_eq!((woken(&session), woken(&other)), (2, 1));
        assert_eq!(
            poll(&mut pending[4], &session),
            Poll::Ready(Err(AuditError::Closed))
        );
        // What was durable stays so.
        let mut early = Pending::queued(progress, 2);
        assert_eq!(poll(&mut early, &session), ready(42));
    }

    #[test]
    fn numbers_are_those_of_the_log_that_had_the_ticket() {
        let progress = progress();
        progress.goes_on(3, Numbers::Elsewhere);
        progress.goes_on(5, Numbers::After(90));
        progress.advance(9);
        let numbers = [1, 2, 3, 4, 5, 6].map(|ticket| progress.number(ticket));
        assert_eq!(numbers, [41, 42, 0, 0, 91, 92]);
    }
}
