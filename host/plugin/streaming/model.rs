//! A model whose calls run concurrently in the instances of its replicas.

use super::context::Shared;
use super::event_loop::EventLoopGuard;
use super::health::ReplicaStatus;
use super::permit::Permit;
use super::replica::{EventLoopEnd, QueuedCall, Replica};
use super::replica_thread;
use crate::error::{Error, Kind, Result};
use crate::plugin::bindings::streaming::StreamingModelPluginPre;
use crate::plugin::engine::Engine;
use crate::plugin::instance_pool::InstanceMetrics;
use crate::plugin::spec::PluginSpec;
use crate::plugin::store_data::StoreData;
use crate::predict::Metadata;
use crate::wait_list::WaitList;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// A streaming model. Dropping it lets its instances finish their calls.
pub struct StreamingModel {
    shared: Arc<Shared>,
    metadata: Arc<Metadata>,
    replicas: Vec<ReplicaHandle>,
    waiting: Arc<WaitList>,
}

/// A replica and the queue of its calls.
struct ReplicaHandle {
    replica: Arc<Replica>,
    queue: UnboundedSender<QueuedCall>,
}

impl StreamingModel {
    pub(in crate::plugin) async fn start(
        engine: &Arc<Engine>,
        spec: &Arc<PluginSpec>,
        pre: StreamingModelPluginPre<StoreData>,
        metrics: InstanceMetrics,
    ) -> Result<Self> {
        let shared = Shared { engine: Arc::clone(engine), spec: Arc::clone(spec), pre, metrics };
        let shared = Arc::new(shared);
        let (waiting, mut replicas) = (Arc::<WaitList>::default(), Vec::new());
        let mut metadata = None;
        for index in 0..spec.limits.shared.replicas {
            let replica = Arc::new(Replica { waiting: Arc::clone(&waiting), ..Replica::default() });
            let (queue, receiver) = tokio::sync::mpsc::unbounded_channel();
            let ready = replica_thread::spawn(&shared, &replica, index, receiver)?;
            let announced = ready.await.unwrap_or_else(|_| Err(Error::failed("its thread ended")));
            metadata =
                Some(announced.map_err(|error| {
                    error.context(format!("plugin \"{}\"", spec.name)).plugin(&*spec.name)
                })?);
            replicas.push(ReplicaHandle { replica, queue });
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

    /// Returns why no replica takes calls; `None` if one does.
    pub fn refusal(&self) -> Option<Error> {
        let refusals: Vec<_> = self.replicas.iter().map(|handle| handle.replica.health.refusal()).collect();
        // One usable replica is enough.
        let refusal = refusals.into_iter().collect::<Option<Vec<_>>>()?.pop()?;
        Some(refusal.context(format!("plugin \"{}\"", self.name())).plugin(&**self.name()))
    }

    pub fn replicas(&self) -> impl Iterator<Item = ReplicaStatus> {
        self.replicas.iter().map(|ReplicaHandle { replica, .. }| {
            replica.health.status(replica.in_flight.load(Ordering::Acquire))
        })
    }

    /// Ends pauses and quarantines, when there is reason to believe that another attempt may
    /// succeed.
    pub fn lift_quarantine(&self) {
        self.replicas.iter().for_each(|handle| handle.replica.health.lift_quarantine());
    }

    /// Sets whether the model was replaced by another one and must end its calls in time.
    pub fn set_replaced(&self, replaced: bool) {
        for ReplicaHandle { replica, .. } in &self.replicas {
            replica.replaced.send_if_modified(|now| std::mem::replace(now, replaced) != replaced);
        }
    }

    /// Lets all instances finish their calls and end, and returns when they have. For a host that
    /// stops.
    pub async fn finish(&self) {
        for ReplicaHandle { replica, .. } in &self.replicas {
            replica.stop.send_replace(true);
        }
        for ReplicaHandle { replica, .. } in &self.replicas {
            replica.health.lift_quarantine();
            // This cannot fail: the replica owns the sender.
            let _ = replica.threads.subscribe().wait_for(|threads| *threads == 0).await;
        }
    }

    /// Returns the guards of the replicas' event loops. A thread that may run guests takes them
    /// before it starts a call, to run the call itself.
    pub fn event_loop_guards(&self) -> EventLoopGuards {
        EventLoopGuards(self.replicas.iter().filter_map(|handle| handle.replica.event_loop_guard()).collect())
    }

    /// Admits a call to the replica that has the fewest calls, or refuses it immediately.
    pub fn admit(&self) -> Result<Permit> {
        // Work that has started takes precedence over new work.
        if self.waiting.is_empty() { self.take_slot() } else { Err(self.full()) }
    }

    /// Admits a call of work that started at `since`. Waits for a slot instead of being refused.
    pub async fn admit_started(&self, since: Instant) -> Result<Permit> {
        let attempt = || Some(self.take_slot()).filter(|slot| !is_overloaded(slot));
        self.waiting.wait(since, attempt).await
    }

    /// Returns the calls that may be in flight in the instances that take calls, and how many more
    /// of them could be.
    pub fn slots(&self) -> (usize, usize) {
        let cap = self.shared.spec.limits.shared.in_flight;
        let replicas = self.replicas.iter().map(|handle| &handle.replica);
        let usable = replicas.filter(|replica| replica.health.refusal().is_none());
        usable.fold((0, 0), |(slots, free), replica| {
            let taken = replica.in_flight.load(Ordering::Acquire);
            (slots + cap, free + cap.saturating_sub(taken))
        })
    }

    fn full(&self) -> Error {
        Error::overloaded(format!(
            "plugin \"{}\": at capacity: {} instances with {} calls in flight each; raise max_in_flight",
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
                // A replica has recovered in between.
                Error::unavailable(format!("plugin \"{}\": it has no instance at the moment", self.name()))
                    .plugin(&**self.name())
            }));
        }
        // The replica with the fewest calls, or another one if its last slot was just taken.
        handles.sort_by_key(load);
        let found = handles.into_iter().find(|handle| {
            handle.replica.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
        });
        let handle = found.ok_or_else(|| self.full())?;
        Ok(Permit { replica: Arc::clone(&handle.replica), queue: handle.queue.clone() })
    }
}

fn is_overloaded(slot: &Result<Permit>) -> bool {
    slot.as_ref().is_err_and(|error| error.kind() == Kind::Overloaded)
}

impl Drop for StreamingModel {
    fn drop(&mut self) {
        // A thread that pauses before another attempt must not continue to wait.
        self.replicas.iter().for_each(|handle| handle.replica.health.lift_quarantine());
    }
}

/// Guards of the event loops of a model's replicas, which allow the calling thread to run them.
pub struct EventLoopGuards(SmallVec<[EventLoopGuard<EventLoopEnd>; 1]>);

impl EventLoopGuards {
    /// Runs what is ready in the event loops, in guests and in the host, including the calls of
    /// other threads.
    pub fn poll_inline(self) {
        self.0.into_iter().for_each(EventLoopGuard::poll_inline);
    }
}
