//! Plugins whose calls wait side by side: the role `streaming-model`.
//!
//! Each replica is one long-lived instance on a thread of its own, which runs the event loop of its store. Calls
//! come to it through a queue that their permits bound; responses go straight to whoever waits. An instance that
//! is lost is replaced by its thread at once. Which executor a call came through is not known here.

mod desk;
mod host_calls;
#[cfg(feature = "outbound-http")]
mod http;
mod instance;
mod models;

pub(super) use desk::Desk;
pub use host_calls::Sink;
pub(super) use models::Limit;
pub use models::{Callable, Invocation};

use super::engine::Engine;
use super::instance::PluginMetrics;
use super::state::{Grant, State};
use crate::error::{Error, Result};
use crate::predict::{Context, Metadata, Sender, Tensor};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

type Pre = super::bindings::concurrent::StreamingModelPluginPre<State>;

/// What all instances of a plugin have in common.
struct Shared {
    engine: Arc<Engine>,
    grant: Arc<Grant>,
    pre: Pre,
    metrics: PluginMetrics,
}

/// A plugin that is a model whose calls wait side by side. Dropping it lets its instances finish their calls.
pub struct StreamingModel {
    shared: Arc<Shared>,
    metadata: Arc<Metadata>,
    replicas: Vec<Line>,
}

/// The way to one replica.
struct Line {
    replica: Arc<Replica>,
    tickets: UnboundedSender<Ticket>,
}

/// What is known of a replica from outside of its thread.
#[derive(Default)]
struct Replica {
    in_flight: AtomicUsize,
    /// Why there is no instance now.
    fault: Mutex<Option<Error>>,
    /// Calls of a lost instance that the next one makes again.
    retries: Mutex<VecDeque<Ticket>>,
}

impl Replica {
    fn fault(&self) -> Option<Error> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn again(&self, ticket: Ticket) {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner).push_back(ticket);
    }

    fn retried(&self) -> Option<Ticket> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn set_fault(&self, fault: Option<Error>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// A place in an instance, as long as it lives.
pub struct Permit {
    replica: Arc<Replica>,
    tickets: UnboundedSender<Ticket>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.replica.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One admitted call on its way to an instance.
pub(super) struct Ticket {
    context: Arc<Context>,
    inputs: Vec<Tensor>,
    sender: Option<Sender>,
    admitted: Instant,
    /// It may run again if its instance is lost before it has sent anything.
    idempotent: bool,
    retries_left: u8,
    /// What is held for this call until its end.
    _held: (HeldPlace, Box<dyn Send>),
}

/// The place of a call without the way to its instance, which would keep it open.
struct HeldPlace(Arc<Replica>);

impl Drop for HeldPlace {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Retries of one call: what is lost twice is likely to be the reason.
const RETRIES_MAX: u8 = 1;

impl StreamingModel {
    pub(super) async fn start(
        engine: &Arc<Engine>,
        grant: &Arc<Grant>,
        pre: Pre,
        metrics: PluginMetrics,
    ) -> Result<Self> {
        let shared = Shared { engine: Arc::clone(engine), grant: Arc::clone(grant), pre, metrics };
        let shared = Arc::new(shared);
        let mut replicas = Vec::new();
        let mut metadata = None;
        for index in 0..grant.limits.shared.replicas {
            let replica = Arc::<Replica>::default();
            let (tickets, queue) = tokio::sync::mpsc::unbounded_channel();
            let ready = instance::spawn(&shared, &replica, index, queue)?;
            let announced = ready.await.unwrap_or_else(|_| Err(Error::failed("its thread ended")));
            metadata =
                Some(announced.map_err(|error| {
                    error.context(format!("plugin \"{}\"", grant.name)).plugin(&*grant.name)
                })?);
            replicas.push(Line { replica, tickets });
        }
        let metadata = metadata.ok_or_else(|| Error::invalid("replicas must be at least 1"))?;
        Ok(StreamingModel { shared, metadata, replicas })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.shared.grant.name
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Why no call makes sense now, if none does.
    pub fn refusal(&self) -> Option<Error> {
        let faults: Vec<_> = self.replicas.iter().map(|line| line.replica.fault()).collect();
        // One that can be used is enough.
        faults.into_iter().collect::<Option<Vec<_>>>()?.pop()
    }

    /// A place in the instance that has the fewest calls, or none at once.
    pub fn admit(&self) -> Result<Permit> {
        let cap = self.shared.grant.limits.shared.in_flight;
        let load = |line: &&Line| line.replica.in_flight.load(Ordering::Acquire);
        let healthy = self.replicas.iter().filter(|line| line.replica.fault().is_none()).min_by_key(load);
        let Some(line) = healthy else {
            let fault = self.refusal().unwrap_or_else(|| Error::unavailable("it was just lost"));
            return Err(Error::unavailable(format!("has no instance now: {fault}"))
                .context(format!("plugin \"{}\"", self.name()))
                .plugin(&**self.name()));
        };
        let take = |taken| (taken < cap).then_some(taken + 1);
        let taken = line.replica.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        if taken.is_err() {
            return Err(Error::overloaded(format!(
                "plugin \"{}\": {} instances have {cap} calls in flight each; see max_in_flight",
                self.name(),
                self.replicas.len()
            ))
            .plugin(&**self.name()));
        }
        Ok(Permit { replica: Arc::clone(&line.replica), tickets: line.tickets.clone() })
    }
}

impl Permit {
    /// Begins the call; its responses go to `sender`. `held` is dropped with the call, before its caller knows
    /// of the end.
    pub fn start(
        self,
        context: Arc<Context>,
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
            _held: (HeldPlace(Arc::clone(&self.replica)), held),
        };
        // A thread that is gone drops the ticket, and with it the sender, which says so.
        let _ = self.tickets.send(ticket);
    }
}
