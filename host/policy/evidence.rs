//! Evidence for the guard: requests that the new version failed, asked again of the version before it.
//!
//! A fault counts only as far as the version before answers the same request: a caller who sends what no
//! version answers brings nothing down. Replays run on what is kept ready for a rollback, are few at a
//! time, wait for a worker that is free, and are counted in no metric of requests.

use super::guard_counters::{CallOutcome, GuardCounters, Pending};
use super::{PolicyContent, Route};
use crate::error::{Error, Kind};
use crate::executor::{Call, Priority};
use crate::metrics::Metrics;
use crate::policy::plan::SourcePlan;
use crate::predict::{self, CallContext, Parameter, Parameters, Payload};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Replays of one rollout at once, those that wait included.
const REPLAYS_MAX: usize = 8;

/// KiB of the requests that are held for them.
const HELD_KIB_MAX: usize = 64 << 10;

/// How long a replay lets other requests go first.
const YIELD_MAX: Duration = Duration::from_secs(1);

/// How long it tries to be admitted after that.
const ADMIT_MAX: Duration = Duration::from_secs(5);

const RETRY_EVERY: Duration = Duration::from_millis(10);

/// What all routes of a rollout share.
pub(super) struct Replays {
    slots: Arc<Semaphore>,
    held_kib: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Replays {
    pub fn new(metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Replays {
            slots: Arc::new(Semaphore::new(REPLAYS_MAX)),
            held_kib: Arc::new(Semaphore::new(HELD_KIB_MAX)),
            metrics: Arc::clone(metrics),
        })
    }

    fn count(&self, outcome: &str) {
        self.metrics.guard_replays.with_label_values(&[outcome]).inc();
    }
}

/// Where the requests of one route can be asked again.
pub struct Evidence {
    old: Arc<Route>,
    /// What the old route's plugins may call.
    models: Arc<PolicyContent>,
    replays: Arc<Replays>,
}

impl Evidence {
    /// None if asking again could do something again: that is for ONNX files and for models that say
    /// `idempotent`, in both versions.
    pub(super) fn new(
        new: (&PolicyContent, &Route),
        old: (&Arc<PolicyContent>, &Arc<Route>),
        replays: &Arc<Replays>,
    ) -> Option<Arc<Self>> {
        let can_repeat = can_repeat(new.0, new.1) && can_repeat(old.0, old.1);
        can_repeat.then(|| {
            let (models, old, replays) = (Arc::clone(old.0), Arc::clone(old.1), Arc::clone(replays));
            Arc::new(Evidence { old, models, replays })
        })
    }

    /// Keeps a request until it is answered; it shares its bytes.
    pub fn keep(
        self: &Arc<Self>,
        input: &Payload,
        parameters: &Parameters,
        timeout: Duration,
    ) -> KeptRequest {
        let (input, parameters) = (input.clone(), parameters.clone());
        KeptRequest { evidence: Arc::clone(self), input, parameters, timeout }
    }
}

fn can_repeat(content: &PolicyContent, route: &Route) -> bool {
    let Some(plan) = content.plan.models.get(&route.name) else { return false };
    let is_pure = matches!(plan.source, SourcePlan::Onnx { .. })
        && !route.is_behind_plugin()
        && route.transformer.as_ref().is_none_or(|transformer| !transformer.waits());
    (is_pure || plan.idempotent) && !route.is_streaming()
}

/// A request that may be asked again.
pub struct KeptRequest {
    evidence: Arc<Evidence>,
    input: Payload,
    parameters: Parameters,
    timeout: Duration,
}

impl KeptRequest {
    /// Asks again if the new version has failed it, in a task of its own.
    pub fn replay(self, new: &Arc<Route>, id: &str, error: &Error) {
        if !matches!(CallOutcome::of(Some(error), Duration::ZERO), CallOutcome::Fault | CallOutcome::Refused)
        {
            return;
        }
        let replays = Arc::clone(&self.evidence.replays);
        let Some(held) = self.hold() else { return replays.count("dropped") };
        let pending = Pending::new(Arc::clone(new));
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

    /// A place, and room for its bytes.
    fn hold(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let kib = u32::try_from(self.bytes() >> 10).ok()?.saturating_add(1);
        let replays = &self.evidence.replays;
        let slot = Arc::clone(&replays.slots).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&replays.held_kib).try_acquire_many_owned(kib).ok()?;
        Some((slot, bytes))
    }

    fn bytes(&self) -> usize {
        let input = match &self.input {
            Payload::Json(text) => text.as_bytes().len(),
            Payload::Bytes { data, .. } => data.len(),
            Payload::Tensors(tensors) => tensors.iter().map(|tensor| tensor.data().len()).sum(),
        };
        let text = |(name, value): &(String, Parameter)| {
            name.len() + if let Parameter::Text(text) = value { text.len() } else { 0 }
        };
        input + self.parameters.iter().map(text).sum::<usize>()
    }

    /// Whether the old version answers; none if that could not be found out.
    async fn run_again(&self, id: Arc<str>) -> Option<bool> {
        let Evidence { old, .. } = &*self.evidence;
        if let (None, Payload::Tensors(inputs)) = (&old.transformer, &self.input)
            && predict::check_inputs(old.callable.metadata(), inputs).is_err()
        {
            return Some(false);
        }
        if old.transformer.is_none() && !matches!(self.input, Payload::Tensors(_)) {
            return None;
        }
        let began = Instant::now();
        while is_busy(old) && began.elapsed() < YIELD_MAX {
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
        let Evidence { old, models, .. } = &*self.evidence;
        let (name, version) = (Arc::clone(&old.name.name), Arc::clone(&old.name.version));
        let mut context =
            CallContext::new(Arc::clone(id), name, version, Some(Instant::now() + self.timeout));
        context.parameters = self.parameters.clone();
        context.models = Some(Arc::clone(models) as _);
        Call {
            context: Arc::new(context),
            input: self.input.clone().from_caller(),
            transformer: old.transformer.clone(),
            callable: Arc::clone(&old.callable),
            batching: old.batching,
            runs: None,
            priority: Priority::New,
        }
    }
}

fn is_busy(route: &Route) -> bool {
    let status = route.executor.status();
    status.queue_length > 0 || status.busy >= status.workers
}
