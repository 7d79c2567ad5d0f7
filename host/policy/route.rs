//! A route: one model and version in a policy, how it runs, and what is counted about it.

use super::evidence::{Evidence, KeptRequest};
use super::guard_counters::GuardCounters;
use super::model_name::ModelName;
use super::statistics::Statistics;
use super::usage::Usage;
use crate::error::Result;
use crate::executor::{Batching, CallProfile, Callable, Executor, ModelTarget, PipelineModel, Precedence};
use crate::metrics::{Metrics, SeriesGuard, SeriesOf};
use crate::plugin::Transformer;
use crate::predict::{Metadata, Parameters, Payload};
use arc_swap::ArcSwapOption;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One model and version, and how it runs.
pub struct Route {
    pub name: ModelName,
    pub executor: Arc<dyn Executor>,
    pub callable: Arc<dyn Callable>,
    pub transformer: Option<Arc<Transformer>>,
    pub timeout: Option<Duration>,
    pub batching: Option<Batching>,
    /// The labels of an output's elements, by output.
    pub labels: BTreeMap<Arc<str>, Arc<[String]>>,
    pub metrics: RouteMetrics,
    /// What the guard compares.
    pub counters: GuardCounters,
    /// Set while the guard watches the route and can replay its requests on the version before.
    pub(super) evidence: ArcSwapOption<Evidence>,
    pub statistics: Arc<Statistics>,
    pub(super) usage: Usage,
}

/// Metrics that are looked up in advance for the common case: a response with status 200 needs no
/// look-up by label.
#[derive(Clone)]
pub struct RouteMetrics {
    pub ok: prometheus::IntCounter,
    pub duration: prometheus::Histogram,
    _series: SeriesGuard,
}

impl RouteMetrics {
    pub(super) fn new(metrics: &Metrics, name: &ModelName) -> Self {
        let of = SeriesOf::Model { name: Arc::clone(&name.name), version: Arc::clone(&name.version) };
        let series = metrics.hold(of);
        let (model, version) = (&*name.name, &*name.version);
        RouteMetrics {
            ok: metrics.requests.answered.with_label_values(&[model, version, "200"]),
            duration: metrics.requests.duration.with_label_values(&[model, version]),
            _series: series,
        }
    }
}

impl Route {
    /// Returns the metadata that clients of tensor protocols see.
    pub fn metadata(&self) -> &Metadata {
        let own = self.transformer.as_ref().and_then(|transformer| transformer.metadata());
        own.unwrap_or_else(|| self.callable.metadata())
    }

    /// Fails if the route refuses every request whatever its input. The inputs of the model are
    /// unknown then.
    pub fn check_available(&self) -> Result<()> {
        let pipeline = PipelineModel::of(&*self.callable).and_then(|pipeline| pipeline.why_unavailable());
        pipeline.map_or(Ok(()), |why| Err(why.clone().model(self.name.to_string())))
    }

    /// Whether a request has 0..n responses.
    pub fn is_streaming(&self) -> bool {
        self.callable.metadata().streaming
    }

    /// Keeps a request for as long as the guard may want to replay it on the version before.
    pub fn keep(
        &self,
        input: &Payload,
        parameters: &Parameters,
        timeout: impl FnOnce() -> Duration,
    ) -> Option<KeptRequest> {
        let evidence = self.evidence.load();
        evidence.as_ref().map(|evidence| evidence.keep(input, parameters, timeout()))
    }

    /// Whether calls run concurrently in one shared instance, and occupy no worker of the executor.
    pub fn is_shared(&self) -> bool {
        self.callable.profile() == CallProfile::Shared
    }

    /// Returns the model on its executor, without its transformer.
    pub(super) fn target(&self) -> ModelTarget {
        ModelTarget {
            model: Arc::clone(&self.name.name),
            version: Arc::clone(&self.name.version),
            executor: Arc::clone(&self.executor),
            callable: Arc::clone(&self.callable),
            batching: self.batching,
            runs: Some(Arc::clone(&self.statistics.runs)),
            timeout: self.timeout,
            is_inner: false,
            precedence: Precedence::New,
        }
    }
}
