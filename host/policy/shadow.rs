//! Copies of requests that run on a candidate after their clients were answered, to compare the
//! answers.
//!
//! A copy never waits for a worker, and never occupies one that a client's request could use. If
//! the executor is busy, or too many copies are in progress, the copy is dropped and counted.

use super::checks::difference;
use super::content::PolicyContent;
use super::guard_counters::CallOutcome;
use super::model_name::ModelName;
use super::record::Compared;
use super::rollout_settings::ShadowSettings;
use super::route::Route;
use crate::error::{Error, Kind, Result};
use crate::executor::{Call, Precedence};
use crate::lock::LockUnpoisoned;
use crate::metrics::Metrics;
use crate::offload;
use crate::predict::{self, CallContext, Parameters, Payload, Response};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most copies at once. Each holds a request and its answer.
const COPIES_MAX: usize = 16;

/// The candidate's routes that differ, and the results of their copies.
pub struct Shadow {
    pub(super) settings: ShadowSettings,
    candidate: Arc<PolicyContent>,
    routes: HashMap<ModelName, Arc<Route>>,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// One lock for all counts, so that the guard never sees a copy that is counted and not yet
    /// compared.
    compared: Mutex<Compared>,
}

/// A request that is kept until its client was answered.
pub struct Copy {
    shadow: Arc<Shadow>,
    route: Arc<Route>,
    input: Payload,
    parameters: Parameters,
    timeout: Duration,
    _slot: OwnedSemaphorePermit,
}

impl Shadow {
    pub(super) fn new(
        settings: ShadowSettings,
        candidate: Arc<PolicyContent>,
        routes: impl Iterator<Item = Arc<Route>>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Shadow {
            settings,
            candidate,
            routes: routes.map(|route| (route.name.clone(), route)).collect(),
            slots: Arc::new(Semaphore::new(COPIES_MAX)),
            metrics: Arc::clone(metrics),
            compared: Mutex::default(),
        }
    }

    /// Copies a request if its route differs in the candidate and it is in the random sample.
    pub fn copy(
        self: &Arc<Self>,
        route: &Route,
        input: &Payload,
        parameters: &Parameters,
        timeout: Duration,
    ) -> Option<Copy> {
        let route = self.routes.get(&route.name)?;
        if fastrand::f64() * 100.0 >= self.settings.share {
            return None;
        }
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.drop_one();
            return None;
        };
        Some(Copy {
            shadow: Arc::clone(self),
            route: Arc::clone(route),
            input: input.clone(),
            parameters: parameters.clone(),
            timeout,
            _slot: slot,
        })
    }

    pub(super) fn compared(&self) -> Compared {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Compared> {
        self.compared.lock_unpoisoned()
    }

    fn drop_one(&self) {
        self.lock().dropped += 1;
        self.metrics.rollout.shadow_dropped.with_label_values::<&str>(&[]).inc();
    }

    fn count(&self, result: CopyResult) {
        let mut compared = self.lock();
        compared.requests += 1;
        self.metrics.rollout.shadow_requests.with_label_values::<&str>(&[]).inc();
        let (count, metric) = match result {
            CopyResult::Same => return,
            CopyResult::Different => (&mut compared.differences, &self.metrics.rollout.shadow_differences),
            CopyResult::Fault => (&mut compared.faults, &self.metrics.rollout.shadow_faults),
        };
        *count += 1;
        metric.with_label_values::<&str>(&[]).inc();
    }
}

enum CopyResult {
    Same,
    Different,
    Fault,
}

impl Copy {
    /// Runs the copy in a task of its own, and compares its answer with the client's.
    pub fn run(self, id: &str, answer: Payload) {
        let id: Arc<str> = format!("{id}/shadow").into();
        tokio::spawn(async move {
            let status = self.route.executor.status();
            if status.queue_length > 0 || status.busy >= status.workers {
                return self.shadow.drop_one();
            }
            let outcome = self.call(id).await;
            let error = outcome.as_ref().err().map(Error::kind);
            if matches!(error, Some(Kind::Overloaded | Kind::Cancelled)) {
                return self.shadow.drop_one();
            }
            let took =
                outcome.as_ref().map_or(Duration::ZERO, |answer| answer.queue_wait + answer.service.total());
            let counted = CallOutcome::of(outcome.as_ref().err(), took);
            self.route.counters.record(counted);
            if matches!(counted, CallOutcome::Fault | CallOutcome::Refused) {
                // The old policy has answered this request.
                self.route.counters.replayed(true);
            }
            let result = match (counted, outcome) {
                (CallOutcome::Fault, _) => CopyResult::Fault,
                (_, Err(_)) => CopyResult::Different,
                (_, Ok(response)) => {
                    let tolerance = self.shadow.settings.tolerance;
                    // Both answers become JSON values, which take many times their length. Running
                    // on the threads for large bodies bounds their number.
                    let compare = move || same(&answer, &response.payload, tolerance);
                    match offload::run(usize::MAX, compare).await {
                        true => CopyResult::Same,
                        false => CopyResult::Different,
                    }
                }
            };
            self.shadow.count(result);
        });
    }

    async fn call(&self, id: Arc<str>) -> Result<Response> {
        let name = &self.route.name;
        let deadline = Instant::now() + self.timeout;
        let mut context =
            CallContext::new(id, Arc::clone(&name.name), Arc::clone(&name.version), Some(deadline));
        context.parameters = self.parameters.clone();
        context.models = Some(Arc::clone(&self.shadow.candidate) as _);
        if let (None, Payload::Tensors(inputs)) = (&self.route.transformer, &self.input) {
            predict::check_inputs(self.route.callable.metadata(), inputs)?;
        }
        let call = Call {
            context: Arc::new(context),
            input: self.input.clone().from_caller(),
            transformer: self.route.transformer.clone(),
            callable: Arc::clone(&self.route.callable),
            batching: self.route.batching,
            runs: None,
            precedence: Precedence::New,
        };
        if self.route.is_streaming() {
            // The client had one answer. A model with 0..n responses does not compare.
            return Err(Error::unsupported(format!("model \"{name}\" now returns any number of responses")));
        }
        self.route.executor.submit(call)?.one().await
    }
}

/// Whether two answers are the same, except for numbers that differ by at most `tolerance`.
fn same(old: &Payload, new: &Payload, tolerance: f64) -> bool {
    match (old, new) {
        (Payload::Bytes { content_type: a, data: x }, Payload::Bytes { content_type: b, data: y }) => {
            a == b && x == y
        }
        (Payload::Tensors(old), Payload::Tensors(new)) if old == new => true,
        _ => match (json(old), json(new)) {
            (Some(old), Some(new)) => {
                let differs = |a, b| difference(a, b, tolerance, String::new()).is_some();
                !differs(&old, &new) && !differs(&new, &old)
            }
            _ => false,
        },
    }
}

fn json(payload: &Payload) -> Option<serde_json::Value> {
    let mut text = Vec::new();
    predict::encode_result(payload, &mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::JsonText;

    #[test]
    fn answers_are_the_same_within_the_tolerance_and_in_both_directions() {
        let payload = |text: &'static str| Payload::Json(JsonText::parse(text.into()).unwrap());
        let alike = |a, b, tolerance| same(&payload(a), &payload(b), tolerance);
        assert!(alike(r#"{"a":1,"b":[2.0]}"#, r#"{"b":[2],"a":1.0}"#, 0.0));
        assert!(alike(r#"{"a":1.0}"#, r#"{"a":1.001}"#, 0.01));
        assert!(!alike(r#"{"a":1.0}"#, r#"{"a":1.001}"#, 0.0));
        assert!(!alike(r#"{"a":1}"#, r#"{"a":1,"b":2}"#, 0.0));
        assert!(!alike(r#"{"a":1,"b":2}"#, r#"{"a":1}"#, 0.0));
        let bytes = |text: &'static str| Payload::Bytes { content_type: text.into(), data: "x".into() };
        assert!(same(&bytes("text/plain"), &bytes("text/plain"), 0.0));
        assert!(!same(&bytes("text/plain"), &bytes("image/png"), 0.0));
    }
}
