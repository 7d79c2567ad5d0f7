//! Replays requests that a new version failed on the version before it, as evidence for the guard.
//!
//! A fault counts only as far as the version before answers the same request: a client that sends
//! what no version answers causes no rollback. Replays run on the policy that is kept ready for a
//! rollback. They are few at a time, wait for a free worker, and are counted in no metric of
//! requests.

use super::content::PolicyContent;
use super::evidence::{Evidence, KeptRequest, Replays};
use super::guard_counters::{CallOutcome, GuardCounters};
use super::plan::SourcePlan;
use super::route::Route;
use crate::error::{Error, Kind};
use crate::executor::{Call, Executor, Precedence};
use crate::metrics::Metrics;
use crate::predict::{self, CallContext, Payload};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Concurrent replays of one rollout, including those that wait.
const REPLAYS_MAX: usize = 8;

/// KiB of the requests that are held for replays.
const HELD_KIB_MAX: usize = 64 << 10;

/// How long a replay lets other requests go first.
const YIELD_MAX: Duration = Duration::from_secs(1);

/// How long a replay tries to be admitted after that.
const ADMIT_MAX: Duration = Duration::from_secs(5);

const RETRY_EVERY: Duration = Duration::from_millis(10);

impl Replays {
    pub fn new(metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Replays {
            slots: Arc::new(Semaphore::new(REPLAYS_MAX)),
            held_kib: Arc::new(Semaphore::new(HELD_KIB_MAX)),
            metrics: Arc::clone(metrics),
        })
    }

    fn count(&self, outcome: &str) {
        self.metrics.rollout.guard_replays.with_label_values(&[outcome]).inc();
    }
}

impl Evidence {
    /// Returns `None` if a replay could repeat a side effect. Requests are replayed only for ONNX
    /// files and for models that declare `idempotent`, in both versions.
    pub(super) fn new(
        new: (&PolicyContent, &Route),
        old: (&Arc<PolicyContent>, &Arc<Route>),
        replays: &Arc<Replays>,
    ) -> Option<Arc<Self>> {
        let can_repeat = can_repeat(new.0, new.1) && can_repeat(old.0, old.1);
        let (models, old) = old;
        can_repeat.then(|| {
            Arc::new(Evidence {
                name: old.name.clone(),
                executor: Arc::clone(&old.executor),
                callable: Arc::clone(&old.callable),
                transformer: old.transformer.clone(),
                batching: old.batching,
                models: Arc::clone(models) as _,
                replays: Arc::clone(replays),
            })
        })
    }
}

fn can_repeat(content: &PolicyContent, route: &Route) -> bool {
    let Some(plan) = content.plan.models.get(&route.name) else { return false };
    let is_pure = matches!(plan.source, SourcePlan::Onnx { .. })
        && !route.is_behind_plugin()
        && route.transformer.as_ref().is_none_or(|transformer| !transformer.waits());
    (is_pure || plan.idempotent) && !route.is_streaming()
}

impl KeptRequest {
    /// Replays the request in a task of its own if the new version failed it.
    pub fn replay(self, new: &Arc<Route>, id: &str, error: &Error) {
        if !matches!(CallOutcome::of(Some(error), Duration::ZERO), CallOutcome::Fault | CallOutcome::Refused)
        {
            return;
        }
        let replays = Arc::clone(&self.evidence.replays);
        let Some(held) = self.hold() else { return replays.count("dropped") };
        let pending = PendingReplay::new(Arc::clone(new));
        let id: Arc<str> = format!("{id}/replay").into();
        tokio::spawn(async move {
            let answers = self.run_again(id).await;
            let counters: &GuardCounters = pending.counters();
            match answers {
                Some(answers) => {
                    counters.replayed(answers);
                    replays.count(if answers { "confirmed" } else { "refuted" });
                }
                None => replays.count("dropped"),
            }
            drop((pending, held));
        });
    }

    /// Reserves a slot, and memory for the request's bytes.
    fn hold(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let kib = u32::try_from(self.bytes() >> 10).ok()?.saturating_add(1);
        let replays = &self.evidence.replays;
        let slot = Arc::clone(&replays.slots).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&replays.held_kib).try_acquire_many_owned(kib).ok()?;
        Some((slot, bytes))
    }

    /// Whether the old version answers. `None` if that could not be determined.
    async fn run_again(&self, id: Arc<str>) -> Option<bool> {
        let old = &*self.evidence;
        if let (None, Payload::Tensors(inputs)) = (&old.transformer, &self.input)
            && predict::check_inputs(old.callable.metadata(), inputs).is_err()
        {
            return Some(false);
        }
        if old.transformer.is_none() && !matches!(self.input, Payload::Tensors(_)) {
            return None;
        }
        let began = Instant::now();
        while is_busy(&*old.executor) && began.elapsed() < YIELD_MAX {
            tokio::time::sleep(RETRY_EVERY).await;
        }
        let mut responses = loop {
            match old.executor.submit(self.call(&id)) {
                Ok(responses) => break responses,
                Err(error) if error.kind() != Kind::Overloaded => return Some(false),
                Err(_) if began.elapsed() >= YIELD_MAX + ADMIT_MAX => return None,
                Err(_) => tokio::time::sleep(RETRY_EVERY).await,
            }
        };
        match responses.one().await.map_err(|error| error.kind()) {
            Ok(_) => Some(true),
            Err(Kind::Overloaded | Kind::Cancelled) => None,
            Err(Kind::Deadline) if !responses.has_begun() => None,
            Err(_) => Some(false),
        }
    }

    fn call(&self, id: &Arc<str>) -> Call {
        let old = &*self.evidence;
        let (name, version) = (Arc::clone(&old.name.name), Arc::clone(&old.name.version));
        let mut context =
            CallContext::new(Arc::clone(id), name, version, Some(Instant::now() + self.timeout));
        context.parameters = self.parameters.clone();
        context.models = Some(Arc::clone(&old.models));
        Call {
            context: Arc::new(context),
            input: self.input.clone().from_caller(),
            transformer: old.transformer.clone(),
            callable: Arc::clone(&old.callable),
            batching: old.batching,
            runs: None,
            precedence: Precedence::New,
        }
    }
}

/// A replay in progress for a route.
struct PendingReplay(Arc<Route>);

impl PendingReplay {
    fn new(route: Arc<Route>) -> Self {
        route.counters.pending.fetch_add(1, Ordering::AcqRel);
        PendingReplay(route)
    }

    fn counters(&self) -> &GuardCounters {
        &self.0.counters
    }
}

impl Drop for PendingReplay {
    fn drop(&mut self) {
        self.0.counters.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

fn is_busy(executor: &dyn Executor) -> bool {
    let status = executor.status();
    status.queue_length > 0 || status.busy >= status.workers
}
