//! What travels with one call: who asked for what, until when, and whether anybody still waits.

use super::steps::StepLog;
use super::target::Models;
use crate::error::{Error, Result};
use bytes::Bytes;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The value of a request parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

/// A parameter from its JSON form; lists and objects are refused.
pub fn parameter(name: &str, value: &serde_json::Value) -> Result<Parameter> {
    use serde_json::Value;
    let refused = |what: &str| {
        let message = format!(
            "parameter '{name}' has invalid type. It is {what}; a parameter is a string, a number or a boolean"
        );
        Err(Error::invalid(message).field(format!("parameters.{name}")))
    };
    match value {
        Value::Bool(value) => Ok(Parameter::Boolean(*value)),
        Value::String(value) => Ok(Parameter::Text(value.clone())),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Ok(Parameter::Integer(value)),
            (None, Some(_)) if number.is_u64() => refused("an integer over 9223372036854775807"),
            (None, Some(value)) => Ok(Parameter::Number(value)),
            (None, None) => refused("not a number that can be held"),
        },
        Value::Null => refused("null"),
        Value::Array(_) => refused("a list"),
        Value::Object(_) => refused("an object"),
    }
}

/// Request parameters, in the order sent.
pub type Parameters = Vec<(String, Parameter)>;

/// Plugins may call models that have plugins that call models, so far.
const DEPTH_MAX: usize = 8;

/// A model whose plugin has made a call, and the calls that led to it.
struct CallerLink {
    model: Arc<str>,
    version: Arc<str>,
    above: Option<Arc<CallerLink>>,
    /// A step of a pipeline, whose depth was bounded when the policy was loaded.
    is_pipeline: bool,
}

impl CallerLink {
    /// This one and all above it, the nearest first.
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
    /// The caller's `traceparent`, for servers that are asked on its behalf.
    pub trace: Option<Arc<str>>,
    pub parameters: Parameters,
    pub cancellation: Cancellation,
    /// The models that plugins may call on behalf of this request.
    pub models: Option<Arc<dyn Models>>,
    /// What versions are chosen by besides the id: the headers that routing rules name, with their values.
    pub headers: Arc<[(String, String)]>,
    /// The outputs that the caller asked for, if it did not ask for all.
    pub outputs: Option<Arc<[String]>>,
    /// Where the steps of pipelines are noted, if somebody wants to see them.
    pub steps: Option<Arc<StepLog>>,
    /// The calls by plugins that lead to this one.
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
            trace: None,
            parameters: Parameters::new(),
            cancellation: Cancellation::default(),
            models: None,
            headers: Arc::default(),
            outputs: None,
            steps: None,
            callers: None,
            begun: AtomicBool::new(false),
            note: Mutex::default(),
            plugin: Mutex::default(),
        }
    }

    /// The context of a call to a model that a plugin makes while it works on this one.
    pub fn child(&self, model: Arc<str>, version: Arc<str>, deadline: Option<Instant>) -> Result<Self> {
        self.called_by(false, model, version, deadline)
    }

    /// The same for a step of a pipeline.
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
            Err(Error::failed(format!("model {}: {why}", path.join(" -> "))))
        };
        if callers.up().any(|caller| caller.model == model && caller.version == version) {
            return refused("calls go round in a circle");
        }
        if callers.up().filter(|caller| !caller.is_pipeline).count() > DEPTH_MAX {
            return refused(&format!("calls are more than {DEPTH_MAX} deep"));
        }
        let mut child = CallContext::new(Arc::clone(&self.id), model, version, deadline);
        child.trace.clone_from(&self.trace);
        child.parameters.clone_from(&self.parameters);
        child.models.clone_from(&self.models);
        child.headers = Arc::clone(&self.headers);
        child.steps.clone_from(&self.steps);
        child.callers = Some(Arc::new(callers));
        Ok(child)
    }

    /// The context of a part of this call that is admitted for itself: the model without what stands around it.
    pub fn part(&self, deadline: Option<Instant>) -> Self {
        let (model, version) = (Arc::clone(&self.model), Arc::clone(&self.version));
        let mut part = CallContext::new(Arc::clone(&self.id), model, version, deadline);
        part.trace.clone_from(&self.trace);
        part.parameters.clone_from(&self.parameters);
        part.models.clone_from(&self.models);
        part.headers = Arc::clone(&self.headers);
        part.outputs.clone_from(&self.outputs);
        part.steps.clone_from(&self.steps);
        part.callers.clone_from(&self.callers);
        part.set_note(self.note());
        part
    }

    /// A context for work on several calls at once: as long as one of them waits, and until the latest of
    /// their deadlines. The guards hold for as long as the work goes on. `prepare` gets the context as it is
    /// made from the first of them, without parameters.
    pub fn joint<'a>(
        members: impl Iterator<Item = &'a Arc<CallContext>> + Clone,
        prepare: impl FnOnce(&mut CallContext),
    ) -> (Arc<Self>, Vec<OnCancel<'a>>) {
        let first = members.clone().next().expect("invariant: somebody waits");
        let deadlines = members.clone().map(|member| member.deadline);
        // None is no deadline at all, and so the latest.
        let deadline = deadlines.reduce(|a, b| Some(a?.max(b?))).flatten();
        let (id, model) = (Arc::clone(&first.id), Arc::clone(&first.model));
        let mut joint = CallContext::new(id, model, Arc::clone(&first.version), deadline);
        joint.trace.clone_from(&first.trace);
        joint.models.clone_from(&first.models);
        joint.headers = Arc::clone(&first.headers);
        joint.callers.clone_from(&first.callers);
        prepare(&mut joint);
        joint.cancellation.keepers = AtomicUsize::new(members.clone().count());
        let joint = Arc::new(joint);
        let guards = members.map(|member| member.cancellation.cancels(&joint)).collect();
        (joint, guards)
    }

    /// Whether a step of a pipeline has led to this call.
    pub fn is_within_pipeline(&self) -> bool {
        self.callers.as_ref().is_some_and(|callers| callers.up().any(|caller| caller.is_pipeline))
    }

    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A header of the request, of those that routing rules name.
    pub fn header(&self, name: &str) -> Option<String> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.clone())
    }

    pub fn note(&self) -> Bytes {
        self.note.lock().expect("invariant: no panic while a note is held").clone()
    }

    pub fn set_note(&self, note: Bytes) {
        *self.note.lock().expect("invariant: no panic while a note is held") = note;
    }

    /// Says that the work begins: it no longer waits for its turn.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Why this call should not go on, if it should not. Work asks before it starts and between its parts.
    pub fn check(&self) -> Result<()> {
        self.check_at(Instant::now())
    }

    /// The same for who has just looked at the clock.
    pub fn check_at(&self, now: Instant) -> Result<()> {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.cancellation.expire();
        }
        self.stopped().map_or(Ok(()), Err)
    }

    /// Why this call was cancelled, once it is; names the plugin that was running.
    pub fn stopped(&self) -> Option<Error> {
        let error = match self.cancellation.state.load(Ordering::Acquire) {
            LIVE => return None,
            EXPIRED => Error::deadline("the deadline of the request has passed"),
            _ => Error::cancelled("the caller left before the answer was ready"),
        };
        let plugin = self.plugin.lock().expect("invariant: no panic under the lock").clone();
        Some(match plugin {
            Some(plugin) => error.context(format!("plugin \"{plugin}\" was stopped")).plugin(&*plugin),
            None => error,
        })
    }

    /// Says that a plugin is called now, until the guard is dropped.
    pub fn enter(&self, plugin: Arc<str>) -> Entered<'_> {
        *self.plugin.lock().expect("invariant: no panic under the lock") = Some(plugin);
        Entered(self)
    }
}

/// A plugin is being called.
pub struct Entered<'a>(&'a CallContext);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // A plugin that was stopped stays named: its caller may ask after it has ended.
        if !self.0.cancellation.is_cancelled() {
            *self.0.plugin.lock().expect("invariant: no panic under the lock") = None;
        }
    }
}

const LIVE: u8 = 0;
const GONE: u8 = 1;
const EXPIRED: u8 = 2;

/// Tells the work of a call to stop: because the caller left, or because its deadline has passed.
pub struct Cancellation {
    state: AtomicU8,
    /// How many of those that cancel this when they are cancelled are left: the last one does.
    keepers: AtomicUsize,
    notify: Notify,
    hooks: Mutex<Hooks>,
}

impl Default for Cancellation {
    fn default() -> Self {
        Cancellation {
            state: AtomicU8::new(LIVE),
            keepers: AtomicUsize::new(1),
            notify: Notify::default(),
            hooks: Mutex::default(),
        }
    }
}

#[derive(Default)]
struct Hooks {
    next: u64,
    registered: SmallVec<[(u64, Hook); 1]>,
}

/// What is done on cancellation.
enum Hook {
    Cancel(Arc<CallContext>),
    Run(Box<dyn FnOnce() + Send>),
}

impl Hook {
    fn run(self) {
        match self {
            Hook::Cancel(context) => context.cancellation.leave(),
            Hook::Run(hook) => hook(),
        }
    }
}

impl Cancellation {
    /// Nobody waits for the answer any more. Only the first of `cancel` and `expire` counts.
    pub fn cancel(&self) {
        self.set(GONE);
    }

    /// One of those who keep this alive is gone.
    fn leave(&self) {
        if self.keepers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.cancel();
        }
    }

    /// The deadline has passed.
    pub fn expire(&self) {
        self.set(EXPIRED);
    }

    pub fn is_cancelled(&self) -> bool {
        self.state.load(Ordering::Acquire) != LIVE
    }

    /// Returns once cancelled; at once if it is already.
    pub async fn cancelled(&self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.is_cancelled() {
            notified.await;
        }
    }

    /// Runs `hook` on cancellation, on the thread that cancels; at once if cancelled already.
    /// The hook is forgotten when the guard is dropped.
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> OnCancel<'_> {
        self.register(Hook::Run(Box::new(hook)))
    }

    /// Cancels `other` on cancellation, as long as the guard lives. A joint context stays until its last member goes.
    pub fn cancels(&self, other: &Arc<CallContext>) -> OnCancel<'_> {
        self.register(Hook::Cancel(Arc::clone(other)))
    }

    fn register(&self, hook: Hook) -> OnCancel<'_> {
        let mut hooks = self.hooks.lock().expect("invariant: hooks are not run under the lock");
        if self.is_cancelled() {
            drop(hooks);
            hook.run();
            return OnCancel { cancellation: self, id: u64::MAX };
        }
        let id = hooks.next;
        hooks.next += 1;
        hooks.registered.push((id, hook));
        OnCancel { cancellation: self, id }
    }

    fn set(&self, state: u8) {
        let hooks = {
            let mut hooks = self.hooks.lock().expect("invariant: hooks are not run under the lock");
            if self.state.compare_exchange(LIVE, state, Ordering::AcqRel, Ordering::Acquire).is_err() {
                return;
            }
            std::mem::take(&mut hooks.registered)
        };
        self.notify.notify_waiters();
        for (_, hook) in hooks {
            hook.run();
        }
    }
}

/// Keeps a hook registered.
#[must_use = "dropping the guard forgets the hook"]
pub struct OnCancel<'a> {
    cancellation: &'a Cancellation,
    id: u64,
}

impl Drop for OnCancel<'_> {
    fn drop(&mut self) {
        let mut hooks = self.cancellation.hooks.lock().expect("invariant: hooks are not run under the lock");
        hooks.registered.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_run_once_unless_forgotten() {
        let cancellation = Cancellation::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let count = |by: usize| {
            let runs = Arc::clone(&runs);
            move || {
                runs.fetch_add(by, Ordering::Relaxed);
            }
        };
        let kept = cancellation.on_cancel(count(1));
        drop(cancellation.on_cancel(count(10)));
        cancellation.expire();
        cancellation.cancel();
        let _late = cancellation.on_cancel(count(100));
        assert_eq!(runs.load(Ordering::Relaxed), 101);
        assert_eq!(cancellation.state.load(Ordering::Relaxed), EXPIRED, "the first reason stays");
        drop(kept);
    }

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
        assert_eq!(refused("9").message(), format!("model {path} -> \"m:9\": calls are more than 8 deep"));
        assert_eq!(refused("8").message(), format!("model {path} -> \"m:8\": calls go round in a circle"));
        assert_eq!(refused("0").message(), format!("model {path} -> \"m:0\": calls go round in a circle"));
        let part = context.part(None);
        let again = part.child("m".into(), "0".into(), None).map(|_| ()).unwrap_err();
        assert_eq!(again.message(), refused("0").message());
    }

    #[tokio::test]
    async fn cancelled_wakes_those_who_wait_and_those_who_come_late() {
        let cancellation = Arc::new(Cancellation::default());
        let waiting = tokio::spawn({
            let cancellation = Arc::clone(&cancellation);
            async move { cancellation.cancelled().await }
        });
        tokio::task::yield_now().await;
        cancellation.cancel();
        waiting.await.unwrap();
        cancellation.cancelled().await;
    }
}
