//! Small steps of waiting: times, and futures that may not be there or seldom have something.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The output of a future that may be there. It stays in its place.
pub(super) fn poll_some<F: Future + Unpin>(
    future: &mut Option<F>,
    context: &mut Context<'_>,
) -> Poll<F::Output> {
    match future {
        Some(future) => Pin::new(future).poll(context),
        None => Poll::Pending,
    }
}

/// A time at which a task is to be woken. Its timer is set when the time changes, not for each wait.
#[derive(Default)]
pub(super) struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// True if the time is there: so many nanoseconds after an epoch. Without one it never is.
    pub(super) fn poll(
        &mut self,
        deadline_ns: Option<u64>,
        epoch: std::time::Instant,
        context: &mut Context<'_>,
    ) -> bool {
        let at = deadline_ns.map(|after| Instant::from_std(epoch + Duration::from_nanos(after)));
        if self.at != at {
            self.at = at;
            self.sleep = at.map(|at| Box::pin(tokio::time::sleep_until(at)));
        }
        let reached = poll_some(&mut self.sleep, context).is_ready();
        if reached {
            *self = Self::default();
        }
        reached
    }
}

/// Wakes a task, and remembers that it did: so that sources which seldom have something are asked only
/// then, and not each time that the task runs.
pub(super) struct Seldom {
    is_due: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Default for Seldom {
    fn default() -> Self {
        Self {
            is_due: AtomicBool::new(true),
            task: Mutex::default(),
        }
    }
}

impl Seldom {
    /// There may be another source: they are asked in any case.
    pub(super) fn ask_again(&self) {
        self.is_due.store(true, Ordering::Release);
    }

    /// What to ask the sources with, if they are to be asked. Whatever comes of it later wakes this
    /// task.
    pub(super) fn due(self: &Arc<Self>, context: &Context<'_>) -> Option<Waker> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task
            .as_ref()
            .is_some_and(|task| task.will_wake(context.waker()))
        {
            *task = Some(context.waker().clone());
        }
        drop(task);
        // Before they are asked: what comes from here on is asked for again.
        let is_due = self.is_due.swap(false, Ordering::AcqRel);
        is_due.then(|| Waker::from(Arc::clone(self)))
    }
}

impl Wake for Seldom {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ask_again();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = &*task {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn seldom_sources_are_asked_when_they_have_something() {
        let seldom = Arc::new(Seldom::default());
        let (sender, receiver) = oneshot::channel();
        let mut receiver = Some(receiver);
        let mut asked = 0;
        let sent = tokio::spawn(async move {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            sender.send(7)
        });
        let mut turns = 0;
        let got = poll_fn(|context| {
            turns += 1;
            if turns < 3 {
                context.waker().wake_by_ref();
            }
            let Some(waker) = seldom.due(context) else {
                return Poll::Pending;
            };
            asked += 1;
            poll_some(&mut receiver, &mut Context::from_waker(&waker))
        })
        .await;
        assert_eq!(got, Ok(7));
        assert_eq!((asked, sent.await.unwrap()), (2, Ok(())));
    }

    #[tokio::test]
    async fn a_deadline_can_move_and_go() {
        let epoch = Instant::now().into_std();
        let mut deadline = Deadline::default();
        let mut poll = |after: Option<u64>, context: &mut Context<'_>| {
            deadline.poll(after.map(|ms| ms * 1_000_000), epoch, context)
        };
        poll_fn(|context| {
            assert!(!poll(None, context) && !poll(Some(2_000), context) && !poll(None, context));
            assert!(!poll(Some(100), context));
            Poll::Ready(())
        })
        .await;
        poll_fn(|context| match poll(Some(100), context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        assert!(Instant::now().into_std() >= epoch + Duration::from_millis(100));
    }
}
