//! Deadlines that are rarely reached, at the cost of one timer per task instead of one per wait.
//!
//! A request waits for its head, its body and its answer, each with a deadline. A runtime timer for
//! each wait would be added to a structure that all threads share, behind a lock, and be removed a
//! moment later. The waits of a task inside [`shared`] use one timer instead: it is set to the
//! first deadline and left there when the wait is over. Occasionally it fires without need, and the
//! current wait then sets it again. Outside of [`shared`], each wait has its own timer.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

thread_local! {
    /// The timer of the task that is being polled.
    static TASK_TIMER: Cell<Option<Box<TaskTimer>>> = const { Cell::new(None) };
}

struct TaskTimer {
    /// The task that the timer wakes. A part of the task that is polled with another waker cannot
    /// share it.
    waker: Waker,
    timer: Option<Pin<Box<Sleep>>>,
}

impl TaskTimer {
    fn poll(&mut self, deadline: Instant) -> Poll<()> {
        if let Some(timer) = self.timer.as_mut().filter(|timer| !timer.is_elapsed()) {
            if timer.deadline().into_std() <= deadline {
                return Poll::Pending;
            }
        } else if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        let timer = match &mut self.timer {
            Some(timer) => {
                timer.as_mut().reset(deadline.into());
                timer
            }
            None => self.timer.insert(Box::pin(tokio::time::sleep_until(deadline.into()))),
        };
        // The timer must be set even if the task has used up its cooperative budget.
        pin!(tokio::task::unconstrained(timer)).poll(&mut Context::from_waker(&self.waker))
    }
}

/// Runs a task whose waits share one timer, as far as the task's own waker polls them.
pub async fn shared<T>(task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    let mut own: Option<Box<TaskTimer>> = None;
    poll_fn(|context| {
        let timer = own.take().filter(|timer| timer.waker.will_wake(context.waker()));
        let timer =
            timer.unwrap_or_else(|| Box::new(TaskTimer { waker: context.waker().clone(), timer: None }));
        let scope = TimerScope { outer: TASK_TIMER.replace(Some(timer)), own: &mut own };
        let poll = task.as_mut().poll(context);
        drop(scope);
        poll
    })
    .await
}

/// Makes the timer available to the waits of a task. Takes it back on drop, even if the task
/// panics.
struct TimerScope<'a> {
    outer: Option<Box<TaskTimer>>,
    own: &'a mut Option<Box<TaskTimer>>,
}

impl Drop for TimerScope<'_> {
    fn drop(&mut self) {
        *self.own = TASK_TIMER.replace(self.outer.take());
    }
}

/// Ready at the deadline.
pub struct Until {
    deadline: Instant,
    /// Used if there is no timer to share.
    timer: Option<Pin<Box<Sleep>>>,
}

pub fn until(deadline: Instant) -> Until {
    Until { deadline, timer: None }
}

impl Future for Until {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        if self.timer.is_none()
            && let Some(mut timer) = TASK_TIMER.take()
        {
            let poll = timer.waker.will_wake(context.waker()).then(|| timer.poll(deadline));
            TASK_TIMER.set(Some(timer));
            if let Some(poll) = poll {
                return poll;
            }
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        timer.as_mut().poll(context)
    }
}

/// Returns the result of `work`, or `None` if it is not ready by the deadline.
pub fn by<T>(deadline: Instant, work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    before(move || deadline, work)
}

/// Returns the result of `work`, or `None` after `limit`. Reads the clock only if `work` is not
/// ready immediately.
pub fn within<T>(limit: Duration, work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    before(move || Instant::now() + limit, work)
}

/// Computes the deadline only if `work` is not ready immediately.
async fn before<T>(deadline: impl Fn() -> Instant, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut late) = (pin!(work), None);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => {
            let late = late.get_or_insert_with(|| until(deadline()));
            Pin::new(late).poll(context).map(|()| None)
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);

    async fn waits(limit: Duration) -> bool {
        within(limit, std::future::pending::<()>()).await.is_none()
    }

    #[tokio::test]
    async fn deadlines_are_kept_with_an_alarm_and_without() {
        let began = Instant::now();
        let one_after_the_other = async {
            // The timer is left at an hour, is set to an earlier time, fires for a wait that is
            // over, and is set again.
            assert!(by(began + LONG, waits(SHORT)).await.is_some_and(|late| late));
            assert!(by(began + SHORT * 2, tokio::task::yield_now()).await.is_some());
            assert!(waits(SHORT * 2).await);
            assert!(by(began, std::future::pending::<()>()).await.is_none(), "a deadline that has passed");
        };
        shared(one_after_the_other).await;
        assert!(began.elapsed() >= SHORT * 3);
        assert!(waits(SHORT).await && began.elapsed() >= SHORT * 4);
    }

    #[tokio::test]
    async fn waits_side_by_side_share_an_alarm() {
        let began = Instant::now();
        let both = async {
            let (long, short) = (waits(SHORT * 3), waits(SHORT));
            let short = async move { short.await.then(|| began.elapsed()) };
            tokio::join!(long, short)
        };
        let (long, short) = shared(both).await;
        assert!(long && began.elapsed() >= SHORT * 3);
        assert!(short.is_some_and(|after| (SHORT..SHORT * 3).contains(&after)), "{short:?}");
    }

    #[tokio::test]
    async fn a_part_with_its_own_waker_is_woken_by_its_own_timer() {
        let mut parts: futures_util::stream::FuturesUnordered<_> =
            [SHORT * 2, SHORT, SHORT * 3].map(waits).into_iter().collect();
        let polls = Arc::new(AtomicUsize::new(0));
        let all = async {
            let waiting = async { while futures_util::StreamExt::next(&mut parts).await.is_some() {} };
            let mut waiting = pin!(waiting);
            poll_fn(|context| {
                polls.fetch_add(1, Ordering::Relaxed);
                waiting.as_mut().poll(context)
            })
            .await;
        };
        shared(by(Instant::now() + LONG, all)).await.expect("they end before");
        assert!(polls.load(Ordering::Relaxed) <= 7, "each is woken once");
    }

    #[tokio::test]
    async fn an_alarm_goes_with_its_task() {
        let nested = shared(async {
            assert!(shared(waits(SHORT)).await);
            let task = tokio::spawn(waits(SHORT));
            assert!(waits(SHORT).await && task.await.unwrap());
        });
        nested.await;
        assert!(TASK_TIMER.take().is_none(), "none is left behind");
    }
}
