//! A pipeline as a model: its program, bound to the models of its policy.

use crate::executor::callable::{BoxFuture, CallProfile, Callable};
use crate::executor::sink::Sink;
use crate::executor::target::ModelTarget;
use super::account::RequestAccount;
use super::limits::StepLimit;
use super::metrics::StepMetrics;
use super::run::Run;
use crate::error::{Error, Result};
use crate::graph::Program;
use crate::predict::{CallContext, Metadata, Tensor};
use std::any::Any;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a step's runs say about the route of its model.
pub trait StepRoute: Send + Sync {
    fn ended(&self, error: Option<&Error>, queue: Duration, service: crate::predict::Service);
}

/// The model of a step in one version.
pub struct StepTarget {
    pub target: ModelTarget,
    pub route: Arc<dyn StepRoute>,
}

/// Which version a request uses, as a place in the list of versions.
pub type Pick = Arc<dyn Fn(&CallContext) -> usize + Send + Sync>;

/// The model of a step.
pub struct Binding {
    pub versions: Vec<StepTarget>,
    /// None if there is only one.
    pub pick: Option<Pick>,
}

/// `request.bucket`: 0 to 99, the same for the same caller.
pub type Bucket = Arc<dyn Fn(&CallContext) -> u8 + Send + Sync>;

pub struct PipelineModel {
    pub(super) program: Program,
    /// By step.
    pub(super) bindings: Vec<Binding>,
    pub(super) limits: Vec<Option<StepLimit>>,
    pub(super) metrics: Vec<StepMetrics>,
    pub(super) bucket: Bucket,
    /// The models that it calls in the end, each once.
    leaves: Vec<Arc<dyn Callable>>,
    identity: u64,
    /// Why it cannot run, if it cannot.
    unavailable: Option<Error>,
}

/// The models that are no pipelines themselves, of all steps and of the pipelines within.
fn leaves(bindings: &[Binding]) -> Vec<Arc<dyn Callable>> {
    let mut leaves: Vec<Arc<dyn Callable>> = Vec::new();
    let mut known = HashSet::new();
    for version in bindings.iter().flat_map(|binding| &binding.versions) {
        let callable = &version.target.callable;
        let within = PipelineModel::of(&**callable).map_or(std::slice::from_ref(callable), |inner| &inner.leaves);
        leaves.extend(within.iter().filter(|leaf| known.insert(Arc::as_ptr(leaf).addr())).cloned());
    }
    leaves
}

/// A number that two pipelines share if they do the same; what is compared is alive in both.
fn identity(program: &Program, bindings: &[Binding]) -> u64 {
    let mut hasher = DefaultHasher::new();
    program.graph.entries().hash(&mut hasher);
    for version in bindings.iter().flat_map(|binding| &binding.versions) {
        let ModelTarget {
            model,
            version,
            executor,
            callable,
            batching,
            runs: _,
            timeout,
            is_inner: _,
            priority: _,
        } = &version.target;
        (model, version, timeout).hash(&mut hasher);
        batching.map(|batching| (batching.max_size, batching.max_delay)).hash(&mut hasher);
        Arc::as_ptr(executor).addr().hash(&mut hasher);
        match PipelineModel::of(&**callable) {
            Some(inner) => inner.identity.hash(&mut hasher),
            None => Arc::as_ptr(callable).addr().hash(&mut hasher),
        }
    }
    hasher.finish()
}

impl PipelineModel {
    pub fn new(
        program: Program,
        bindings: Vec<Binding>,
        limits: Vec<Option<StepLimit>>,
        metrics: Vec<StepMetrics>,
        bucket: Bucket,
    ) -> Self {
        let (leaves, identity) = (leaves(&bindings), identity(&program, &bindings));
        PipelineModel { program, bindings, limits, metrics, bucket, leaves, identity, unavailable: None }
    }

    /// The pipeline behind a callable, if it is one.
    pub fn of(callable: &dyn Callable) -> Option<&PipelineModel> {
        callable.as_any().downcast_ref()
    }

    /// One that refuses every request: a model of its was unloaded.
    pub fn unavailable(metadata: Metadata, graph: Arc<crate::graph::Graph>, why: Error) -> Self {
        let program = Program {
            graph,
            metadata,
            inputs: Vec::new(),
            steps: Vec::new(),
            outputs: Vec::new(),
            scopes: Vec::new(),
            answers_in: 0,
            is_always: Vec::new(),
            has_detached: false,
        };
        let bucket: Bucket = Arc::new(|_| 0);
        PipelineModel {
            unavailable: Some(why),
            ..PipelineModel::new(program, vec![], vec![], vec![], bucket)
        }
    }

    /// Why it refuses every request, if it does.
    pub fn why_unavailable(&self) -> Option<&Error> {
        self.unavailable.as_ref()
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    pub fn metrics(&self) -> &[StepMetrics] {
        &self.metrics
    }

    pub fn limits(&self) -> &[Option<StepLimit>] {
        &self.limits
    }

    /// Whether it computes the same in the same places: the graph, the models of its steps, their executors and limits.
    pub fn is_same(&self, other: &PipelineModel) -> bool {
        self.identity == other.identity && self.unavailable.is_some() == other.unavailable.is_some()
    }

    /// The executor on which its first step would run at once, if there is only one such step.
    pub(super) fn begins_on(&self) -> Option<&ModelTarget> {
        let program = &self.program;
        if program.graph.each_row {
            return None;
        }
        let is_first = |step: &&crate::graph::StepProgram| {
            step.after.is_empty()
                && step.chosen_by.is_empty()
                && step.needs.iter().flat_map(|need| need.members.iter().flatten()).all(|value| {
                    matches!(value, crate::graph::ValueRef::Input(_) | crate::graph::ValueRef::Const(_))
                })
        };
        let mut first = program.steps.iter().enumerate().filter(|(_, step)| is_first(step));
        let (at, _) = first.next()?;
        let binding = self.bindings.get(at)?;
        match (first.next(), &binding.versions[..]) {
            (None, [only]) if only.target.runs_inline() => Some(&only.target),
            _ => None,
        }
    }

    /// Runs it for a request that began at `since`, in the place that its caller has.
    pub(super) async fn run(
        &self,
        context: &Arc<CallContext>,
        inputs: Vec<Tensor>,
        account: &Arc<RequestAccount>,
        sink: &mut dyn ResponseSink,
    ) -> Result<Option<Vec<Tensor>>> {
        if let Some(why) = &self.unavailable {
            return Err(why.clone());
        }
        Run::new(self, context, account).run(inputs, sink).await
    }
}

/// Where a run sends all responses but its last.
pub(super) trait ResponseSink: Send {
    fn send(&mut self, outputs: Vec<Tensor>) -> BoxFuture<'_, Result<()>>;

    /// Whether it can answer while detached steps go on.
    fn answers_early(&self) -> bool;

    /// Ends with an error now, while detached steps go on.
    fn fail(&mut self, error: &Error);

    fn answer(&mut self, outputs: Vec<Tensor>) -> BoxFuture<'_, ()>;
}

impl ResponseSink for Sink {
    fn send(&mut self, outputs: Vec<Tensor>) -> BoxFuture<'_, Result<()>> {
        Box::pin(Sink::send(self, outputs))
    }

    fn answers_early(&self) -> bool {
        true
    }

    fn fail(&mut self, error: &Error) {
        Sink::fail(self, error);
    }

    fn answer(&mut self, outputs: Vec<Tensor>) -> BoxFuture<'_, ()> {
        Box::pin(Sink::answer(self, Ok(outputs)))
    }
}

impl Callable for PipelineModel {
    fn metadata(&self) -> &Metadata {
        &self.program.metadata
    }

    fn reads_request(&self) -> bool {
        true
    }

    fn profile(&self) -> CallProfile {
        CallProfile::Delegated
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ready(&self) -> Result<()> {
        if let Some(why) = &self.unavailable {
            return Err(why.clone());
        }
        self.leaves.iter().try_for_each(|leaf| leaf.ready())
    }

    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        let account = RequestAccount::new(&self.program.graph, Instant::now(), sink.runs.is_some(), true);
        let account = Arc::new(account);
        Box::pin(async move {
            let outcome = self.run(context, inputs, &account, sink).await;
            if account.is_released() {
                return outcome;
            }
            // The caller need not wait for the end of what it waits for no more.
            let outcome = match outcome {
                Ok(Some(outputs)) => {
                    Sink::answer(sink, Ok(outputs)).await;
                    Ok(None)
                }
                Err(error) => {
                    Sink::fail(sink, &error);
                    Err(error)
                }
                Ok(None) => Ok(None),
            };
            account.released().await;
            outcome
        })
    }
}
