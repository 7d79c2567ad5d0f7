//! The context of a call: what was requested, the deadline, the cancellation, and the models that
//! can be called from it.

use super::call_state::CallState;
use super::cancellation::{CancelReason, Cancellation, OnCancel};
use super::parameter::{Parameter, Parameters};
use super::priority::Priority;
use super::response::Response;
use super::responses::Responses;
use super::steps::StepObserver;
use super::tensor::Tensor;
use super::trace_link::TraceLink;
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use crate::tenants::TenantShare;
use crate::traces::SpanKind;
use bytes::Bytes;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How deep calls of plugins may be nested: a plugin may call a model whose plugin calls a model.
const DEPTH_MAX: usize = 8;

/// A model whose plugin made a call, and the calls that led to it.
struct CallerLink {
    model: Arc<str>,
    version: Arc<str>,
    above: Option<Arc<CallerLink>>,
    /// A step of a pipeline. The depth of pipelines was checked when the policy was loaded.
    is_pipeline: bool,
}

impl CallerLink {
    /// Returns this caller and those above it, the nearest first.
    fn up(&self) -> impl Iterator<Item = &CallerLink> {
        std::iter::successors(Some(self), |caller| caller.above.as_deref())
    }
}

/// The context of a call. Shared by everything that works on it.
pub struct CallContext {
    pub id: Arc<str>,
    pub model: Arc<str>,
    pub version: Arc<str>,
    pub deadline: Option<Instant>,
    pub trace: TraceLink,
    pub parameters: Parameters,
    pub cancellation: Cancellation,
    /// The models that plugins may call on behalf of this request.
    pub models: Option<Arc<dyn Models>>,
    /// The headers that routing rules use to choose a version, with their values.
    pub headers: Arc<[(String, String)]>,
    /// The outputs that the caller requested; `None` for all.
    pub outputs: Option<Arc<[String]>>,
    /// Is told about the steps of pipelines.
    pub steps: Option<Arc<dyn StepObserver>>,
    /// The call continues a request that has begun: a plugin makes it, or it is a part of one.
    pub continues: bool,
    /// On whose account the call is made.
    pub tenant: TenantShare,
    /// Which of its tenant's calls come first.
    pub priority: Priority,
    /// The calls that led to this one.
    callers: Option<Arc<CallerLink>>,
    /// The work has begun.
    begun: AtomicBool,
    note: Mutex<Bytes>,
    /// The plugin that is being called.
    plugin: Mutex<Option<Arc<str>>>,
}

impl CallContext {
    pub fn new(id: Arc<str>, model: Arc<str>, version: Arc<str>, deadline: Option<Instant>) -> Self {
        CallContext {
            id,
            model,
            version,
            deadline,
            trace: TraceLink::default(),
            parameters: Parameters::new(),
            cancellation: Cancellation::default(),
            models: None,
            headers: Arc::default(),
            outputs: None,
            steps: None,
            continues: false,
            tenant: TenantShare::default(),
            priority: Priority::default(),
            callers: None,
            begun: AtomicBool::new(false),
            note: Mutex::default(),
            plugin: Mutex::default(),
        }
    }

    /// The context of a call that a plugin makes while it works on this one. Fails if the calls
    /// form a cycle or are nested too deeply.
    pub fn child(&self, model: Arc<str>, version: Arc<str>, deadline: Option<Instant>) -> Result<Self> {
        self.called_by(false, model, version, deadline)
    }

    /// Like `child`, for a step of a pipeline.
    pub fn step(&self, model: Arc<str>, version: Arc<str>, deadline: Option<Instant>) -> Result<Self> {
        self.called_by(true, model, version, deadline)
    }

    fn called_by(
        &self,
        is_pipeline: bool,
        model: Arc<str>,
        version: Arc<str>,
        deadline: Option<Instant>,
    ) -> Result<Self> {
        let (caller, above) = ((Arc::clone(&self.model), Arc::clone(&self.version)), self.callers.clone());
        let callers = CallerLink { model: caller.0, version: caller.1, above, is_pipeline };
        let refused = |why: &str| {
            let mut path: Vec<_> = callers.up().map(|caller| (&caller.model, &caller.version)).collect();
            path.reverse();
            path.push((&model, &version));
            let path: Vec<_> = path.iter().map(|(model, version)| format!("\"{model}:{version}\"")).collect();
            Err(Error::failed(format!("{why}: {}", path.join(" -> "))))
        };
        if callers.up().any(|caller| caller.model == model && caller.version == version) {
            return refused("recursive model call");
        }
        if callers.up().filter(|caller| !caller.is_pipeline).count() > DEPTH_MAX {
            return refused(&format!("model calls nested more than {DEPTH_MAX} deep"));
        }
        let mut child = CallContext::new(Arc::clone(&self.id), model, version, deadline);
        child.trace = match is_pipeline {
            true => self.trace.inner(SpanKind::Internal, || format!("step {}", child.model)),
            false => self.trace.call(&child.model),
        };
        child.parameters.clone_from(&self.parameters);
        child.models.clone_from(&self.models);
        child.headers = Arc::clone(&self.headers);
        child.steps.clone_from(&self.steps);
        child.tenant.clone_from(&self.tenant);
        child.priority = self.priority;
        child.callers = Some(Arc::new(callers));
        child.continues = true;
        Ok(child)
    }

    /// The context of a part of this call that is admitted separately: the model without its
    /// transformer or custom executor.
    pub fn part(&self, deadline: Option<Instant>) -> Self {
        let (model, version) = (Arc::clone(&self.model), Arc::clone(&self.version));
        let mut part = CallContext::new(Arc::clone(&self.id), model, version, deadline);
        part.trace = self.trace.call(&part.model);
        part.parameters.clone_from(&self.parameters);
        part.models.clone_from(&self.models);
        part.headers = Arc::clone(&self.headers);
        part.outputs.clone_from(&self.outputs);
        part.steps.clone_from(&self.steps);
        part.tenant.clone_from(&self.tenant);
        part.priority = self.priority;
        part.callers.clone_from(&self.callers);
        part.set_note(self.note());
        part.continues = true;
        part
    }

    /// A context for work on several calls. It is cancelled when all members are, and has the
    /// latest of their deadlines. The guards must be kept while the work runs. `prepare` may change
    /// the context, which is made from the first member, without parameters.
    pub fn joint<'a>(
        members: impl Iterator<Item = &'a Arc<CallContext>> + Clone,
        prepare: impl FnOnce(&mut CallContext),
    ) -> (Arc<Self>, Vec<OnCancel<'a>>) {
        let first = members.clone().next().expect("invariant: somebody waits");
        let deadlines = members.clone().map(|member| member.deadline);
        // `None` is no deadline, and so the latest.
        let deadline = deadlines.reduce(|a, b| Some(a?.max(b?))).flatten();
        let (id, model) = (Arc::clone(&first.id), Arc::clone(&first.model));
        let mut joint = CallContext::new(id, model, Arc::clone(&first.version), deadline);
        joint.trace.clone_from(&first.trace);
        joint.models.clone_from(&first.models);
        joint.headers = Arc::clone(&first.headers);
        joint.tenant.clone_from(&first.tenant);
        joint.priority = first.priority;
        joint.callers.clone_from(&first.callers);
        joint.cancellation = Cancellation::joint(members.clone().count());
        prepare(&mut joint);
        let joint = Arc::new(joint);
        let guards = members.map(|member| member.cancellation.cancels(&joint)).collect();
        (joint, guards)
    }

    /// Returns true if no step of a pipeline and no plugin led to this call.
    pub fn is_outermost(&self) -> bool {
        self.callers.is_none()
    }

    /// Returns true if a step of a pipeline led to this call.
    pub fn is_within_pipeline(&self) -> bool {
        self.callers.as_ref().is_some_and(|callers| callers.up().any(|caller| caller.is_pipeline))
    }

    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Returns a header of the request, if a routing rule uses it.
    pub fn header(&self, name: &str) -> Option<String> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.clone())
    }

    pub fn note(&self) -> Bytes {
        self.note.lock_unpoisoned().clone()
    }

    pub fn set_note(&self, note: Bytes) {
        *self.note.lock_unpoisoned() = note;
    }

    /// Marks that the work begins: the call no longer waits in a queue.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Fails if the call was cancelled or its deadline has passed. Called before the work starts
    /// and between its parts.
    pub fn check(&self) -> Result<()> {
        self.check_at(Instant::now())
    }

    /// Like `check`, with the current time.
    pub fn check_at(&self, now: Instant) -> Result<()> {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.cancellation.expire();
        }
        self.stopped().map_or(Ok(()), Err)
    }

    /// Returns why the call was cancelled, naming the plugin that was running; `None` if it was
    /// not.
    pub fn stopped(&self) -> Option<Error> {
        let error = match self.cancellation.reason()? {
            CancelReason::DeadlinePassed => Error::deadline("the deadline of the request has passed"),
            CancelReason::CallerLeft => {
                Error::cancelled("cancelled by the caller before the answer was ready")
            }
            CancelReason::Evicted => Error::overloaded(
                "evicted from a full queue, in favor of a tenant below its share or of a request of higher priority; try \
                 again later",
            )
            .retry_after(Duration::from_secs(1)),
        };
        let plugin = self.plugin.lock_unpoisoned().clone();
        Some(match plugin {
            Some(plugin) => error.context(format!("plugin \"{plugin}\" was stopped")).plugin(&*plugin),
            None => error,
        })
    }

    /// Marks that a plugin is being called, until the guard is dropped.
    pub fn enter(&self, plugin: Arc<str>) -> Entered<'_> {
        *self.plugin.lock_unpoisoned() = Some(plugin);
        Entered(self)
    }
}

/// Marks that a plugin is being called.
pub struct Entered<'a>(&'a CallContext);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // A plugin that was stopped stays named, because `stopped` may be called after it has
        // ended.
        if !self.0.cancellation.is_cancelled() {
            *self.0.plugin.lock_unpoisoned() = None;
        }
    }
}

impl AsRef<Cancellation> for CallContext {
    fn as_ref(&self) -> &Cancellation {
        &self.cancellation
    }
}

impl CallState for CallContext {
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn has_begun(&self) -> bool {
        self.has_begun()
    }

    fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    fn stopped(&self) -> Option<Error> {
        self.stopped()
    }
}

pub type Outputs<'a> = Pin<Box<dyn Future<Output = Result<Vec<Tensor>>> + Send + 'a>>;

/// A model that a plugin can call: tensors in, tensors out, on the model's executor.
pub trait Target: Send + Sync {
    fn model(&self) -> &str;

    fn version(&self) -> &str;

    /// Returns true if a call has 0..n responses instead of one.
    fn is_streaming(&self) -> bool;

    /// Admits one call on behalf of `caller`, or refuses it, without waiting. The call has the
    /// caller's deadline at the latest, and is cancelled when the responses are dropped.
    fn start(&self, caller: &CallContext, inputs: Vec<Tensor>) -> Result<Responses>;

    /// Makes one call and waits for its answer. The call may run on the worker that polls the
    /// caller. It is stopped at `until`.
    fn call<'a>(&'a self, caller: &'a CallContext, inputs: Vec<Tensor>, _until: Instant) -> Outputs<'a> {
        Box::pin(async move { self.start(caller, inputs)?.one().await.and_then(Response::tensors) })
    }
}

/// All models of the policy that a request uses.
pub trait Models: Send + Sync {
    /// Returns the model that this plugin may call. Without a version: the only one, or the one
    /// that the routing rule selects for this caller.
    fn target(
        &self,
        model: &str,
        version: Option<&str>,
        caller: &CallContext,
        plugin: &str,
    ) -> Result<Arc<dyn Target>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joint_context_lasts_as_long_as_one_member() {
        let now = Instant::now();
        let member = |ms: u64| {
            let deadline = now + Duration::from_millis(ms);
            Arc::new(CallContext::new(format!("id/{ms}").into(), "m".into(), "1".into(), Some(deadline)))
        };
        let members = [member(10), member(30), member(20)];
        let (joint, guards) = CallContext::joint(members.iter(), |_| {});
        assert_eq!((&*joint.id, joint.deadline), ("id/10", members[1].deadline));
        members[0].cancellation.cancel();
        members[2].cancellation.expire();
        assert!(joint.check().is_ok());
        members[1].cancellation.cancel();
        assert!(joint.check().is_err());
        drop(guards);
    }

    #[test]
    fn calls_of_calls_are_bounded_and_the_path_is_told() {
        let mut context = CallContext::new("id".into(), "m".into(), "0".into(), None);
        let mut path = "\"m:0\"".to_owned();
        for depth in 1..=DEPTH_MAX {
            context = context.child("m".into(), depth.to_string().into(), None).unwrap();
            path += &format!(" -> \"m:{depth}\"");
        }
        let refused =
            |version: &str| context.child("m".into(), version.into(), None).map(|_| ()).unwrap_err();
        assert_eq!(refused("9").message(), format!("model calls nested more than 8 deep: {path} -> \"m:9\""));
        assert_eq!(refused("8").message(), format!("recursive model call: {path} -> \"m:8\""));
        assert_eq!(refused("0").message(), format!("recursive model call: {path} -> \"m:0\""));
        let part = context.part(None);
        let again = part.child("m".into(), "0".into(), None).map(|_| ()).unwrap_err();
        assert_eq!(again.message(), refused("0").message());
    }
}
