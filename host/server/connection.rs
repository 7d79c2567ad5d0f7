//! What the host knows of one open connection: shared by the connection's task and the table of all connections.
//!
//! The task writes and the table reads. Everything is a relaxed atomic on memory of the connection's own, so that a
//! request pays no lock and no shared cache line for it.

use super::transfers::{Abort, Transfers};
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};

const IDLE: u8 = 0;
const STARTED: u8 = 1;
const LATE: u8 = 2;

/// Bytes of a head that are searched for its path.
const PATH_BYTES: usize = 16;

/// Why the host closes a connection that its client has left open. A later one overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closing {
    /// It waited for a request the longest, and the limit was reached.
    Idle,
    /// Its client does not take what is sent to it: nothing is waited for any more.
    Unread,
}

impl Closing {
    const ALL: [Closing; 2] = [Closing::Idle, Closing::Unread];

    /// The label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Closing::Idle => "idle",
            Closing::Unread => "unread",
        }
    }
}

#[derive(Default)]
pub(super) struct Connection {
    /// Of HTTP/1: whether a head is on its way.
    head: AtomicU8,
    /// An answer was begun and is not made whole yet.
    answering: AtomicBool,
    /// Bytes of an answer may be on their way.
    owed: AtomicBool,
    /// The head that was begun asks for the Open Inference Protocol.
    is_oip: AtomicBool,
    /// Requests begun; wraps around.
    requests: AtomicU32,
    /// Calls of HTTP/2 that are open.
    calls: AtomicU32,
    /// The socket takes no more bytes for now.
    is_write_blocked: AtomicBool,
    /// How often it took some after that; wraps around.
    writes_resumed: AtomicU32,
    /// One more than the index of the `Closing`, or 0.
    closing: AtomicU8,
    task: AtomicWaker,
    /// None where nothing is counted, as for operators.
    transfers: Option<Arc<Transfers>>,
}

impl Connection {
    pub fn new(transfers: Option<Arc<Transfers>>) -> Self {
        Connection { transfers, ..Connection::default() }
    }

    /// What counts the bytes of large answers.
    pub fn transfers(&self) -> Option<&Arc<Transfers>> {
        self.transfers.as_ref()
    }

    /// The head was read whole, and is answered.
    pub fn head_complete(&self) {
        self.head.store(IDLE, Ordering::Relaxed);
        self.owed.store(true, Ordering::Relaxed);
        self.answering.store(true, Ordering::Relaxed);
        self.count_request();
    }

    /// What came since then was this request's body.
    pub fn body_read(&self) {
        self.head.store(IDLE, Ordering::Relaxed);
    }

    /// The answer's content was handed to hyper, or dropped.
    pub fn answer_made(&self) {
        self.answering.store(false, Ordering::Relaxed);
    }

    /// The time for the head is over.
    pub fn head_timed_out(&self) {
        let _ = self.head.compare_exchange(STARTED, LATE, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Bytes that came are a head's first, unless they are a body's.
    pub fn read(&self, bytes: &[u8]) {
        if self.head.swap(STARTED, Ordering::Relaxed) == IDLE {
            let start = &bytes[..bytes.len().min(PATH_BYTES)];
            self.is_oip.store(start.windows(4).any(|part| part == b" /v2"), Ordering::Relaxed);
        }
    }

    /// All that hyper had to write is out.
    pub fn flushed(&self) {
        self.owed.store(self.answering.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Bytes of an answer may be on their way; until they are out, nothing that hyper writes is a refusal of its own.
    pub fn owes_answer(&self) -> bool {
        self.owed.load(Ordering::Relaxed)
    }

    pub fn is_oip(&self) -> bool {
        self.is_oip.load(Ordering::Relaxed)
    }

    /// A head was begun and did not arrive in time, or the connection was needed for others.
    pub fn head_is_late(&self) -> bool {
        match self.head.load(Ordering::Relaxed) {
            LATE => true,
            STARTED => !self.owes_answer() && self.closing().is_some(),
            _ => false,
        }
    }

    /// A call of HTTP/2 begins.
    pub fn call_begun(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.count_request();
    }

    pub fn call_ended(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    fn count_request(&self) {
        // A single writer, or a number that need not be exact.
        self.requests.store(self.requests.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Changes with each request.
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Nothing is answered now: the client has the word.
    pub fn waits_for_request(&self) -> bool {
        !self.owes_answer() && self.calls.load(Ordering::Relaxed) == 0
    }

    /// Notes what came of a write to the socket.
    pub fn write_polled(&self, written: &Poll<io::Result<usize>>) {
        if written.is_pending() {
            self.is_write_blocked.store(true, Ordering::Relaxed);
        } else if self.is_write_blocked.load(Ordering::Relaxed) {
            self.is_write_blocked.store(false, Ordering::Relaxed);
            let resumed = self.writes_resumed.load(Ordering::Relaxed);
            self.writes_resumed.store(resumed.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Where the socket takes no bytes, a number that changes once it does.
    pub fn write_blocked(&self) -> Option<u32> {
        let is_blocked = self.is_write_blocked.load(Ordering::Relaxed);
        is_blocked.then(|| self.writes_resumed.load(Ordering::Relaxed))
    }

    pub fn closing(&self) -> Option<Closing> {
        let index = self.closing.load(Ordering::Relaxed).checked_sub(1)?;
        Closing::ALL.get(usize::from(index)).copied()
    }

    /// Tells the connection's task to end it. False if it was told before.
    pub fn close(&self, why: Closing) -> bool {
        let code = why as u8 + 1;
        let is_news = self.closing.fetch_max(code, Ordering::Release) < code;
        if is_news {
            self.task.wake();
        }
        is_news
    }

    /// Returns once somebody closes the connection. For the connection's own task, which polls it often: after the
    /// first time a poll is one load.
    pub async fn closed(&self) {
        self.closing_is(Closing::Idle).await;
    }

    /// Returns once the connection shall end without its last answers.
    pub async fn abandoned(&self) {
        self.closing_is(Closing::Unread).await;
    }

    async fn closing_is(&self, least: Closing) {
        let mut is_registered = false;
        poll_fn(|context: &mut Context<'_>| {
            if !std::mem::replace(&mut is_registered, true) {
                self.task.register(context.waker());
            }
            match self.closing() >= Some(least) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

impl Abort for Connection {
    fn abort(&self) {
        self.close(Closing::Unread);
    }
}
