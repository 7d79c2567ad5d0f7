//! The state of a replica that other threads use: its calls in flight, its health, and its calls to
//! retry.

use super::event_loop::{EventLoop, EventLoopGuard};
use super::health::ReplicaHealth;
use crate::error::Error;
use crate::lock::LockUnpoisoned;
use crate::predict::{CallContext, Sender, Tensor};
use crate::wait_list::WaitList;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// A replica as seen from outside of its thread.
#[derive(Default)]
pub(super) struct Replica {
    pub in_flight: AtomicUsize,
    /// Work that has started and waits for a slot in any of the replicas.
    pub waiting: Arc<WaitList>,
    pub health: ReplicaHealth,
    /// Calls of a lost instance that the next one retries.
    pub retries: Mutex<VecDeque<QueuedCall>>,
    /// Set while no policy that serves uses the replica: its calls must then end within the drain
    /// time.
    pub replaced: watch::Sender<bool>,
    /// Set when no more calls will arrive, although senders still exist.
    pub stop: watch::Sender<bool>,
    /// Threads that run an instance of it.
    pub threads: watch::Sender<usize>,
    /// The event loop of the instance that takes calls.
    pub event_loop: Mutex<Option<Arc<EventLoop<EventLoopEnd>>>>,
}

impl Replica {
    pub fn release(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.waiting.freed();
    }

    pub fn push_retry(&self, call: QueuedCall) {
        self.retries.lock_unpoisoned().push_back(call);
    }

    pub fn pop_retry(&self) -> Option<QueuedCall> {
        self.retries.lock_unpoisoned().pop_front()
    }

    pub fn set_event_loop(&self, event_loop: &Arc<EventLoop<EventLoopEnd>>) {
        *self.event_loop.lock_unpoisoned() = Some(Arc::clone(event_loop));
    }

    pub fn event_loop_guard(&self) -> Option<EventLoopGuard<EventLoopEnd>> {
        Some(self.event_loop.lock_unpoisoned().clone()?.guard())
    }
}

/// An admitted call on its way to an instance.
pub(super) struct QueuedCall {
    pub context: Arc<CallContext>,
    pub inputs: Vec<Tensor>,
    pub sender: Option<Sender>,
    pub admitted: Instant,
    /// Whether it may run again if its instance is lost before it has sent anything.
    pub idempotent: bool,
    pub retries_left: u8,
    /// What is held for this call until its end.
    pub _held: (CallSlot, Box<dyn Send>),
}

/// The slot of a call, without the sender of the queue, which would keep the queue open.
pub(super) struct CallSlot(pub Arc<Replica>);

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// How the event loop of an instance ended.
pub(super) struct EventLoopEnd {
    pub reason: EndReason,
    /// Calls that the guest has completed.
    pub served: u64,
    /// The queue of further calls; `None` if another thread takes them.
    pub queue: Option<UnboundedReceiver<QueuedCall>>,
}

/// Why an event loop ended.
pub(super) enum EndReason {
    /// No more calls can arrive, and all calls have ended.
    Drained,
    /// The instance cannot be used any more.
    Lost(Error),
}
