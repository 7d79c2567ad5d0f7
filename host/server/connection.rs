//! The state of one open connection, shared by the connection's task and the table of all
//! connections.
//!
//! The task writes and the table reads. Every field is a relaxed atomic in memory of the
//! connection's own, so a request takes no lock and touches no shared cache line.

use super::transfers::{Abort, Transfers};
use crate::access::CallerMemo;
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

const IDLE: u8 = 0;
const STARTED: u8 = 1;
const LATE: u8 = 2;

/// A body up to this size may have arrived whole. hyper then drops it, and the connection goes on.
const SMALL_BODY_BYTES: u64 = 8 << 10;

/// Bytes at the start of a head that are searched for its path.
const PATH_BYTES: usize = 16;

/// Why the host closes a connection that its client keeps open. A later variant overrides an
/// earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closing {
    /// It has waited for a request longest, and the limit of connections is reached.
    Idle,
    /// Its client does not read its answers, or an operator needs its place: its answers are given
    /// up.
    Unread,
}

impl Closing {
    const ALL: [Closing; 2] = [Closing::Idle, Closing::Unread];

    /// Returns the label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Closing::Idle => "idle",
            Closing::Unread => "unread",
        }
    }
}

#[derive(Default)]
pub(super) struct Connection {
    /// HTTP/1 only: whether a head is being received.
    head: AtomicU8,
    /// The content of an answer is not complete yet.
    answering: AtomicBool,
    /// Bytes of an answer may not be sent yet.
    owed: AtomicBool,
    /// The last request was answered before its body was read.
    has_unread_body: AtomicBool,
    /// That body is too long for hyper to read it, or has no length, so no request can follow it.
    is_last: AtomicBool,
    /// The head that is being received names a path of the Open Inference Protocol.
    is_oip: AtomicBool,
    /// Number of requests begun; wraps around.
    requests: AtomicU32,
    /// Number of open calls of HTTP/2.
    calls: AtomicU32,
    /// Number of requests being answered whose callers may administer the host.
    operator_calls: Arc<AtomicU32>,
    /// The socket takes no bytes at present.
    is_write_blocked: AtomicBool,
    /// How often the socket took bytes again; wraps around.
    writes_resumed: AtomicU32,
    /// One more than the index of the `Closing`, or 0.
    closing: AtomicU8,
    task: AtomicWaker,
    /// `None` on the admin listener, where nothing is counted.
    transfers: Option<Arc<Transfers>>,
    /// The last caller who was identified on it.
    pub caller: CallerMemo,
    /// Names in the certificate of its client.
    certificate: OnceLock<Arc<[Arc<str>]>>,
    /// The address of its client.
    peer: OnceLock<SocketAddr>,
}

impl Connection {
    pub fn new(transfers: Option<Arc<Transfers>>) -> Self {
        Connection { transfers, ..Connection::default() }
    }

    /// Returns the address of its client.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.get().copied()
    }

    /// Notes the address of its client. Called once.
    pub fn set_peer(&self, address: SocketAddr) {
        let _ = self.peer.set(address);
    }

    /// Returns the names in the certificate of its client.
    pub fn certificate(&self) -> &Arc<[Arc<str>]> {
        self.certificate.get_or_init(Arc::default)
    }

    /// Notes the names in the certificate of its client. Called once, after the handshake.
    pub fn set_certificate(&self, names: Arc<[Arc<str>]>) {
        let _ = self.certificate.set(names);
    }

    /// Returns the budget that counts the bytes of large answers.
    pub fn transfers(&self) -> Option<&Arc<Transfers>> {
        self.transfers.as_ref()
    }

    /// Notes that a head was received whole and is being answered.
    pub fn head_complete(&self) {
        self.head.store(IDLE, Ordering::Relaxed);
        self.has_unread_body.store(false, Ordering::Relaxed);
        self.is_last.store(false, Ordering::Relaxed);
        self.owed.store(true, Ordering::Relaxed);
        self.answering.store(true, Ordering::Relaxed);
        self.count_request();
    }

    /// Notes that the bytes received since the head were the request's body.
    pub fn body_read(&self) {
        self.head.store(IDLE, Ordering::Relaxed);
    }

    /// Notes that the request is answered although its body was not read. `length` is that of the
    /// rest, if it is known.
    pub fn body_left(&self, length: Option<u64>) {
        self.has_unread_body.store(true, Ordering::Relaxed);
        let is_last = length.is_none_or(|length| length > SMALL_BODY_BYTES);
        self.is_last.store(is_last, Ordering::Relaxed);
    }

    /// Whether the last request was answered before its body was read.
    pub fn has_unread_body(&self) -> bool {
        self.has_unread_body.load(Ordering::Relaxed)
    }

    /// Whether the connection ends after the present answer, because of the request's body.
    pub fn is_last(&self) -> bool {
        self.is_last.load(Ordering::Relaxed)
    }

    /// Notes that the answer's content was handed to hyper, or dropped.
    pub fn answer_complete(&self) {
        self.answering.store(false, Ordering::Relaxed);
    }

    /// Notes that the head did not arrive in time.
    pub fn head_timed_out(&self) {
        let _ = self.head.compare_exchange(STARTED, LATE, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Notes received bytes. The first ones are taken for the start of a head; if they are a
    /// body's, `body_read` resets that.
    pub fn received(&self, bytes: &[u8]) {
        if self.head.swap(STARTED, Ordering::Relaxed) == IDLE {
            let start = &bytes[..bytes.len().min(PATH_BYTES)];
            self.is_oip.store(start.windows(4).any(|part| part == b" /v2"), Ordering::Relaxed);
        }
    }

    /// Notes that hyper has written everything that it had.
    pub fn flushed(&self) {
        self.owed.store(self.answering.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether bytes of an answer may not be sent yet. As long as that is so, nothing that hyper
    /// writes is a refusal of its own.
    pub fn owes_answer(&self) -> bool {
        self.owed.load(Ordering::Relaxed)
    }

    /// Whether the head that is being received names a path of the Open Inference Protocol.
    pub fn is_oip(&self) -> bool {
        self.is_oip.load(Ordering::Relaxed)
    }

    /// Whether bytes of the next head have arrived.
    pub fn head_has_begun(&self) -> bool {
        self.head.load(Ordering::Relaxed) == STARTED
    }

    /// Whether a head was begun and did not arrive in time, or the connection is closed for a new
    /// one.
    pub fn head_is_late(&self) -> bool {
        match self.head.load(Ordering::Relaxed) {
            LATE => true,
            STARTED => !self.owes_answer() && self.closing().is_some(),
            _ => false,
        }
    }

    /// Notes that a call of HTTP/2 begins.
    pub fn call_begun(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.count_request();
    }

    pub fn call_ended(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    fn count_request(&self) {
        // Either there is a single writer, or the number need not be exact.
        self.requests.store(self.requests.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Returns a number that changes with each request.
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Notes that a caller who may administer the host is being answered, until the result is
    /// dropped.
    pub fn operator_call(&self) -> OperatorCall {
        self.operator_calls.fetch_add(1, Ordering::Relaxed);
        OperatorCall(Arc::clone(&self.operator_calls))
    }

    /// Whether a caller who may administer the host is being answered.
    pub fn serves_operator(&self) -> bool {
        self.operator_calls.load(Ordering::Relaxed) > 0
    }

    /// Whether nothing is being answered, so that the next move is the client's.
    pub fn waits_for_request(&self) -> bool {
        !self.owes_answer() && self.calls.load(Ordering::Relaxed) == 0
    }

    /// Notes the result of a write to the socket, or of a flush.
    pub fn write_polled<T>(&self, written: &Poll<io::Result<T>>) {
        if written.is_pending() {
            self.is_write_blocked.store(true, Ordering::Relaxed);
        } else if self.is_write_blocked.load(Ordering::Relaxed) {
            self.is_write_blocked.store(false, Ordering::Relaxed);
            let resumed = self.writes_resumed.load(Ordering::Relaxed);
            self.writes_resumed.store(resumed.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Returns `None` if the socket takes bytes, and otherwise a number that changes once it does.
    pub fn write_blocked(&self) -> Option<u32> {
        let is_blocked = self.is_write_blocked.load(Ordering::Relaxed);
        is_blocked.then(|| self.writes_resumed.load(Ordering::Relaxed))
    }

    pub fn closing(&self) -> Option<Closing> {
        let index = self.closing.load(Ordering::Relaxed).checked_sub(1)?;
        Closing::ALL.get(usize::from(index)).copied()
    }

    /// Tells the connection's task to end it. Returns false if it was told so before.
    pub fn close(&self, reason: Closing) -> bool {
        let code = reason as u8 + 1;
        let is_new = self.closing.fetch_max(code, Ordering::Release) < code;
        if is_new {
            self.task.wake();
        }
        is_new
    }

    /// Returns once `close` was called. Only the connection's own task may await this; it polls
    /// often, so every poll after the first is one load.
    pub async fn closed(&self) {
        self.closing_is(Closing::Idle).await;
    }

    /// Returns once the connection must end without its last answers.
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

/// A request of a caller who may administer the host, while it is being answered.
pub(super) struct OperatorCall(Arc<AtomicU32>);

impl Drop for OperatorCall {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Abort for Connection {
    fn abort(&self) {
        self.close(Closing::Unread);
    }
}
