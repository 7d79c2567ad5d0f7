//! A waker that drops the wake-ups that a connection's task causes for itself.
//!
//! Taking a frame of a body from hyper wakes the task that reads the next frame. That is the
//! connection's own task, which is running: after the last frame it would be polled once more for
//! nothing. Wake-ups after a frame that is not the last are passed on.

use hyper::body::{Body, Bytes, Frame};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

#[derive(Clone, Copy, PartialEq, Eq)]
enum WakeGate {
    Open,
    Closed,
    /// Closed, and a wake-up was held back.
    Woken,
}

thread_local! {
    /// Of this thread. Wake-ups from other threads always pass.
    static WAKE_GATE: Cell<WakeGate> = const { Cell::new(WakeGate::Open) };
}

/// Keeps the gate of this thread closed until it is dropped.
struct ClosedGate;

impl ClosedGate {
    fn new() -> Self {
        WAKE_GATE.set(WakeGate::Closed);
        ClosedGate
    }

    /// Opens the gate, and returns whether a wake-up was held back.
    fn open(self) -> bool {
        WAKE_GATE.get() == WakeGate::Woken
    }
}

impl Drop for ClosedGate {
    fn drop(&mut self) {
        WAKE_GATE.set(WakeGate::Open);
    }
}

/// Wakes a task if the gate of the thread is open.
struct GatedWaker(Waker);

impl Wake for GatedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match WAKE_GATE.get() {
            WakeGate::Open => self.0.wake_by_ref(),
            WakeGate::Closed | WakeGate::Woken => WAKE_GATE.set(WakeGate::Woken),
        }
    }
}

/// Runs a connection with a waker that `next_frame` can hold back.
pub(super) async fn gated<T>(connection: impl Future<Output = T>) -> T {
    let mut connection = pin!(connection);
    let mut known: Option<(Waker, Waker)> = None;
    poll_fn(|context| {
        let task = context.waker();
        let (_, own) = match &mut known {
            Some(known) if known.0.will_wake(task) => known,
            known => known.insert((task.clone(), Arc::new(GatedWaker(task.clone())).into())),
        };
        connection.as_mut().poll(&mut Context::from_waker(own))
    })
    .await
}

/// Returns the next frame of a body.
pub(super) async fn next_frame<B>(body: &mut B) -> Option<Result<Frame<Bytes>, B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    poll_fn(|context| {
        let gate = ClosedGate::new();
        let poll = Pin::new(&mut *body).poll_frame(context);
        let was_woken = gate.open();
        let is_last = matches!(poll, Poll::Ready(Some(Ok(_)))) && body.is_end_stream();
        if was_woken && !is_last {
            context.waker().wake_by_ref();
        }
        poll
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Sends a request in `parts`, the first of which contains its head. Returns the length of its
    /// body and how often the connection was polled from the first part to the answer.
    async fn exchange(parts: &[&str]) -> (usize, usize) {
        let (mut client, server) = tokio::io::duplex(4096);
        let (length, polls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let read = Arc::clone(&length);
        let answer = service_fn(move |request: Request<Incoming>| {
            let read = Arc::clone(&read);
            async move {
                let mut body = request.into_body();
                while let Some(frame) = next_frame(&mut body).await {
                    let data = frame.unwrap().into_data().unwrap();
                    read.fetch_add(data.len(), Ordering::Relaxed);
                }
                // Like an answer that another thread makes.
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        let connection = connection.serve_connection(TokioIo::new(server), answer);
        let count = Arc::clone(&polls);
        let task = tokio::spawn(async move {
            let mut connection = pin!(gated(connection));
            poll_fn(|context| {
                count.fetch_add(1, Ordering::Relaxed);
                connection.as_mut().poll(context)
            })
            .await
        });
        tokio::task::yield_now().await;
        polls.store(0, Ordering::Relaxed);
        for part in parts {
            client.write_all(part.as_bytes()).await.unwrap();
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
        }
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let polls = polls.load(Ordering::Relaxed);
        drop(client);
        let _ = task.await;
        (length.load(Ordering::Relaxed), polls)
    }

    #[tokio::test]
    async fn a_body_that_is_there_costs_no_poll_of_its_own() {
        let (length, polls) = exchange(&["POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nwhole"]).await;
        assert_eq!((length, polls), (5, 2), "one for the request, one for the answer");
    }

    #[tokio::test]
    async fn parts_of_a_body_wake_their_reader() {
        let known = ["POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\none", "two", "six"];
        let chunked = [
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            "3\r\none\r\n",
            "3\r\ntwo\r\n0\r\n\r\n",
        ];
        assert_eq!(exchange(&known).await.0, 9);
        assert_eq!(exchange(&chunked).await.0, 6);
    }
}
