//! Plugins whose calls wait side by side: the role `streaming-model`.
//!
//! Each replica is one long-lived instance on a thread of its own, which runs the event loop of its store. Calls
//! come to it through a queue that their permits bound; responses go straight to whoever waits. An instance that
//! is lost is replaced by its thread at once. Which executor a call came through is not known here.

mod active_call;
mod call_registry;
mod driver;
mod event_loop;
mod health;
mod host_calls;
mod http;
mod model_calls;
mod replica_thread;

pub(super) use call_registry::CallRegistry;
pub use health::ReplicaStatus;
pub use host_calls::Sink;
pub(super) use model_calls::Limit;
pub use model_calls::{CallableHandle, Invocation};

use super::engine::Engine;
use super::instance_pool::InstanceMetrics;
use super::store_data::{PluginSpec, StoreData};
use crate::error::{Error, Kind, Result};
use crate::predict::{CallContext, Metadata, Sender, Tensor};
use crate::wait_list::WaitList;
use event_loop::{EventLoop, EventLoopGuard};
use health::ReplicaHealth;
use replica_thread::EventLoopEnd;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

type Pre = super::bindings::concurrent::StreamingModelPluginPre<StoreData>;

/// What all instances of a plugin have in common.
struct Shared {
    engine: Arc<Engine>,
    spec: Arc<PluginSpec>,
    pre: Pre,
    metrics: InstanceMetrics,
}

/// A plugin that is a model whose calls wait side by side. Dropping it lets its instances finish their calls.
pub struct StreamingModel {
    shared: Arc<Shared>,
    metadata: Arc<Metadata>,
    replicas: Vec<ReplicaHandle>,
    waiting: Arc<WaitList>,
}

/// The way to one replica.
struct ReplicaHandle {
    replica: Arc<Replica>,
    tickets: UnboundedSender<Ticket>,
}

/// What is known of a replica from outside of its thread.
#[derive(Default)]
struct Replica {
    in_flight: AtomicUsize,
    /// Begun work that waits for a place in any of the instances.
    waiting: Arc<WaitList>,
    health: ReplicaHealth,
    /// Calls of a lost instance that the next one makes again.
    retries: Mutex<VecDeque<Ticket>>,
    /// Set while no policy that serves has it: what it works on is to end within the time for that.
    replaced: watch::Sender<bool>,
    /// Set when no call is to come any more, though there is a way for it.
    stop: watch::Sender<bool>,
    /// Threads that run an instance of it.
    threads: watch::Sender<usize>,
    /// The event loop of the instance that takes calls.
    event_loop: Mutex<Option<Arc<EventLoop<EventLoopEnd>>>>,
}

impl Replica {
    fn release(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.waiting.freed();
    }

    fn push_retry(&self, ticket: Ticket) {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner).push_back(ticket);
    }

    fn pop_retry(&self) -> Option<Ticket> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn set_event_loop(&self, event_loop: &Arc<EventLoop<EventLoopEnd>>) {
        *self.event_loop.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(event_loop));
    }

    fn event_loop_guard(&self) -> Option<EventLoopGuard<EventLoopEnd>> {
        Some(self.event_loop.lock().unwrap_or_else(PoisonError::into_inner).clone()?.guard())
    }
}

/// The right to run the event loops of a model's instances on this thread.
pub struct EventLoopGuards(SmallVec<[EventLoopGuard<EventLoopEnd>; 1]>);

impl EventLoopGuards {
    /// Does what there is to do at once in them, in guests as in the host. Of others, too, who have brought a call.
    pub fn turn(self) {
        self.0.into_iter().for_each(EventLoopGuard::turn);
    }
}

/// A place in an instance, as long as it lives.
pub struct Permit {
    replica: Arc<Replica>,
    tickets: UnboundedSender<Ticket>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.replica.release();
    }
}

/// One admitted call on its way to an instance.
pub(super) struct Ticket {
    context: Arc<CallContext>,
    inputs: Vec<Tensor>,
    sender: Option<Sender>,
    admitted: Instant,
    /// It may run again if its instance is lost before it has sent anything.
    idempotent: bool,
    retries_left: u8,
    /// What is held for this call until its end.
    _held: (CallSlot, Box<dyn Send>),
}

/// The place of a call without the way to its instance, which would keep it open.
struct CallSlot(Arc<Replica>);

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Retries of one call: what is lost twice is likely to be the reason.
const RETRIES_MAX: u8 = 1;

impl StreamingModel {
    pub(super) async fn start(
        engine: &Arc<Engine>,
        spec: &Arc<PluginSpec>,
        pre: Pre,
        metrics: InstanceMetrics,
    ) -> Result<Self> {
        let shared = Shared { engine: Arc::clone(engine), spec: Arc::clone(spec), pre, metrics };
        let shared = Arc::new(shared);
        let (waiting, mut replicas) = (Arc::<WaitList>::default(), Vec::new());
        let mut metadata = None;
        for index in 0..spec.limits.shared.replicas {
            let replica = Arc::new(Replica { waiting: Arc::clone(&waiting), ..Replica::default() });
            let (tickets, queue) = tokio::sync::mpsc::unbounded_channel();
            let ready = replica_thread::spawn(&shared, &replica, index, queue)?;
            let announced = ready.await.unwrap_or_else(|_| Err(Error::failed("its thread ended")));
            metadata =
                Some(announced.map_err(|error| {
                    error.context(format!("plugin \"{}\"", spec.name)).plugin(&*spec.name)
                })?);
            replicas.push(ReplicaHandle { replica, tickets });
        }
        let metadata = metadata.ok_or_else(|| Error::invalid("replicas must be at least 1"))?;
        Ok(StreamingModel { shared, metadata, replicas, waiting })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.shared.spec.name
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Why no call makes sense now, if none does.
    pub fn refusal(&self) -> Option<Error> {
        let refusals: Vec<_> = self.replicas.iter().map(|handle| handle.replica.health.refusal()).collect();
        // One that can be used is enough.
        let refusal = refusals.into_iter().collect::<Option<Vec<_>>>()?.pop()?;
        Some(refusal.context(format!("plugin \"{}\"", self.name())).plugin(&**self.name()))
    }

    pub fn replicas(&self) -> impl Iterator<Item = ReplicaStatus> {
        self.replicas.iter().map(|ReplicaHandle { replica, .. }| {
            replica.health.status(replica.in_flight.load(Ordering::Acquire))
        })
    }

    /// Ends pauses and quarantines: somebody says that it is worth another attempt.
    pub fn lift_quarantine(&self) {
        self.replicas.iter().for_each(|handle| handle.replica.health.lift_quarantine());
    }

    /// Says whether it was replaced by another one, and has to end its calls in time.
    pub fn set_replaced(&self, replaced: bool) {
        for ReplicaHandle { replica, .. } in &self.replicas {
            replica.replaced.send_if_modified(|now| std::mem::replace(now, replaced) != replaced);
        }
    }

    /// Lets all instances finish their calls and end; returns when they have. For a host that stops.
    pub async fn finish(&self) {
        for ReplicaHandle { replica, .. } in &self.replicas {
            replica.stop.send_replace(true);
        }
        for ReplicaHandle { replica, .. } in &self.replicas {
            replica.health.lift_quarantine();
            // The sender is there for as long as the replica is.
            let _ = replica.threads.subscribe().wait_for(|threads| *threads == 0).await;
        }
    }

    /// Taken before a call begins, by a thread that may run guests, to run the call there.
    pub fn event_loop_guards(&self) -> EventLoopGuards {
        EventLoopGuards(self.replicas.iter().filter_map(|handle| handle.replica.event_loop_guard()).collect())
    }

    /// A place in the instance that has the fewest calls, or none at once.
    pub fn admit(&self) -> Result<Permit> {
        // What has begun goes before what is new.
        if self.waiting.is_empty() { self.take_slot() } else { Err(self.full()) }
    }

    /// A place for work that has begun at `since`: it waits for one instead of being refused.
    pub async fn admit_started(&self, since: Instant) -> Result<Permit> {
        let attempt = || Some(self.take_slot()).filter(|place| !is_overloaded(place));
        self.waiting.wait(since, attempt).await
    }

    fn full(&self) -> Error {
        Error::overloaded(format!(
            "plugin \"{}\": {} instances have {} calls in flight each; see max_in_flight",
            self.name(),
            self.replicas.len(),
            self.shared.spec.limits.shared.in_flight
        ))
        .plugin(&**self.name())
    }

    fn take_slot(&self) -> Result<Permit> {
        let cap = self.shared.spec.limits.shared.in_flight;
        let load = |handle: &&ReplicaHandle| handle.replica.in_flight.load(Ordering::Acquire);
        let takes_calls = |handle: &&ReplicaHandle| handle.replica.health.refusal().is_none();
        let take = |taken| (taken < cap).then_some(taken + 1);
        let mut handles: SmallVec<[&ReplicaHandle; 4]> = self.replicas.iter().filter(takes_calls).collect();
        if handles.is_empty() {
            return Err(self.refusal().unwrap_or_else(|| {
                // It came right in between.
                Error::unavailable(format!("plugin \"{}\" had no instance just now", self.name()))
                    .plugin(&**self.name())
            }));
        }
        // The one with the fewest calls; another one if somebody has just taken its last place.
        handles.sort_by_key(load);
        let place = handles.into_iter().find(|handle| {
            handle.replica.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
        });
        let handle = place.ok_or_else(|| self.full())?;
        Ok(Permit { replica: Arc::clone(&handle.replica), tickets: handle.tickets.clone() })
    }
}

fn is_overloaded(place: &Result<Permit>) -> bool {
    place.as_ref().is_err_and(|error| error.kind() == Kind::Overloaded)
}

impl Permit {
    /// Begins the call; its responses go to `sender`. `held` is dropped with the call, before its caller knows
    /// of the end.
    pub fn start(
        self,
        context: Arc<CallContext>,
        inputs: Vec<Tensor>,
        sender: Sender,
        idempotent: bool,
        held: Box<dyn Send>,
    ) {
        // The place goes on in the ticket.
        self.replica.in_flight.fetch_add(1, Ordering::AcqRel);
        let ticket = Ticket {
            context,
            inputs,
            sender: Some(sender),
            admitted: Instant::now(),
            idempotent,
            retries_left: RETRIES_MAX,
            _held: (CallSlot(Arc::clone(&self.replica)), held),
        };
        // A thread that is gone drops the ticket, and with it the sender, which says so.
        let _ = self.tickets.send(ticket);
    }
}

impl Drop for StreamingModel {
    fn drop(&mut self) {
        // A thread that waits before another attempt need not.
        self.replicas.iter().for_each(|handle| handle.replica.health.lift_quarantine());
    }
}
