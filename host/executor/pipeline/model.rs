//! A pipeline: its program, bound to the models of its policy. Does not run it; see `run`.

use super::limits::StepLimit;
use super::metrics::StepMetrics;
use crate::error::Error;
use crate::executor::callable::Callable;
use crate::executor::target::ModelTarget;
use crate::graph::{Graph, Program, StepProgram, ValueRef};
use crate::predict::{CallContext, Metadata, Service, StepKey};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The route of a step's model, which counts the runs of the step.
pub trait StepRoute: Send + Sync {
    fn ended(&self, error: Option<&Error>, queue: Duration, service: Service);
}

/// One version of the model of a step.
pub struct StepTarget {
    pub target: ModelTarget,
    pub route: Arc<dyn StepRoute>,
    /// Changes with everything that decides what the model computes; `None` if that is not known.
    pub key: Option<StepKey>,
}

/// Returns the index of the version that a request uses.
pub type Pick = Arc<dyn Fn(&CallContext) -> usize + Send + Sync>;

/// The model of a step, in all its versions.
pub struct Binding {
    pub versions: Vec<StepTarget>,
    /// `None` if there is only one version.
    pub pick: Option<Pick>,
}

/// Returns `request.bucket`: 0 to 99, the same for all requests of a caller.
pub type Bucket = Arc<dyn Fn(&CallContext) -> u8 + Send + Sync>;

impl Binding {
    /// Returns the version that a request uses.
    pub(super) fn target(&self, context: &CallContext) -> &StepTarget {
        let version = self.pick.as_ref().map_or(0, |pick| pick(context));
        self.versions.get(version).unwrap_or(&self.versions[0])
    }
}

pub struct PipelineModel {
    pub(super) program: Program,
    /// By step, as `limits` and `metrics` are.
    pub(super) bindings: Vec<Binding>,
    pub(super) limits: Vec<Option<StepLimit>>,
    pub(super) metrics: Vec<StepMetrics>,
    pub(super) bucket: Bucket,
    /// The models that the pipeline calls, including those that nested pipelines call; each once,
    /// and without the nested pipelines themselves.
    pub(super) leaves: Vec<Arc<dyn Callable>>,
    identity: u64,
    /// Of the graph: equal in every process.
    pub(super) graph_digest: [u8; 32],
    /// The reason why the pipeline cannot run. `None` if it can.
    unavailable: Option<Error>,
}

/// Returns the models of all steps, with nested pipelines replaced by their models.
fn leaves(bindings: &[Binding]) -> Vec<Arc<dyn Callable>> {
    let mut leaves: Vec<Arc<dyn Callable>> = Vec::new();
    let mut known = HashSet::new();
    for version in bindings.iter().flat_map(|binding| &binding.versions) {
        let callable = &version.target.callable;
        let within =
            PipelineModel::of(&**callable).map_or(std::slice::from_ref(callable), |inner| &inner.leaves);
        leaves.extend(within.iter().filter(|leaf| known.insert(Arc::as_ptr(leaf).addr())).cloned());
    }
    leaves
}

/// Returns a number that is equal for two pipelines that compute the same. It includes addresses of
/// executors and models, so it is only valid while both pipelines exist.
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
            precedence: _,
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
        let described = serde_json::to_vec(&program.graph.entries()).expect("invariant: a map of strings");
        PipelineModel {
            program,
            bindings,
            limits,
            metrics,
            bucket,
            leaves,
            identity,
            graph_digest: Sha256::digest(described).into(),
            unavailable: None,
        }
    }

    /// Returns the pipeline, if `callable` is one.
    pub fn of(callable: &dyn Callable) -> Option<&PipelineModel> {
        callable.as_any().downcast_ref()
    }

    /// Creates a pipeline that refuses every request, because one of its models was unloaded.
    pub fn unavailable(metadata: Metadata, graph: Arc<Graph>, why: Error) -> Self {
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

    /// Returns the reason why the pipeline refuses every request. `None` if it does not.
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

    /// Returns true if both pipelines have the same graph, and steps with the same models on the
    /// same executors.
    pub fn is_same(&self, other: &PipelineModel) -> bool {
        self.identity == other.identity && self.unavailable.is_some() == other.unavailable.is_some()
    }

    /// Returns the model of the first step, if the pipeline begins with a single step that may run
    /// inline on a worker of its executor.
    pub(super) fn begins_on(&self) -> Option<&ModelTarget> {
        let program = &self.program;
        if program.graph.each_row {
            return None;
        }
        let is_first = |step: &&StepProgram| {
            step.after.is_empty()
                && step.chosen_by.is_empty()
                && step
                    .needs
                    .iter()
                    .flat_map(|need| need.members.iter().flatten())
                    .all(|value| matches!(value, ValueRef::Input(_) | ValueRef::Const(_)))
        };
        let mut first = program.steps.iter().enumerate().filter(|(_, step)| is_first(step));
        let (at, _) = first.next()?;
        let binding = self.bindings.get(at)?;
        match (first.next(), &binding.versions[..]) {
            (None, [only]) if only.target.runs_inline() => Some(&only.target),
            _ => None,
        }
    }
}
