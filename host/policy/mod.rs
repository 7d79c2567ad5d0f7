//! The policy: what is served, on which executor, under which limits.
//!
//! `manifest` is the file as written, `plan` the checked form, `Policy` the running thing. A policy never
//! changes: a reload builds another one beside it and swaps them. Only `reload` writes the live one. What
//! clients load and unload is an `overlay` over the manifest.

mod changes;
mod checks;
mod describe;
mod diagnostic;
mod evidence;
mod external_data;
pub mod files;
mod guard;
pub mod guard_counters;
mod last_good;
mod load;
pub mod manifest;
pub mod overlay;
pub mod plan;
pub mod record;
pub mod reload;
mod rollout;
mod rollout_settings;
mod secret;
pub mod settings;
mod shadow;
pub mod statistics;
mod usage;
mod watch;

pub use checks::{Sample as CheckSample, difference, parse as parse_samples};
pub use describe::{Description, diff};
pub use diagnostic::Diagnostics;
pub use evidence::KeptRequest;
pub use last_good::{LastGood, files_of};
pub use load::Loader;
pub use reload::Reloader;
pub use rollout::{LivePolicy, SelectedPolicy};
pub use shadow::{Copy, Shadow};
pub use usage::InUse;

use crate::error::{Error, Result, did_you_mean};
use crate::executor::{Batching, Callable, Executor, ModelTarget, Priority};
use crate::metrics::{Families, Metrics};
use crate::plugin::{StreamingModel, Transformer};
use crate::predict::{CallContext, Metadata, Models, Parameters, Payload, Target};
use arc_swap::ArcSwapOption;
use plan::{ModelName, Plan, RoutingPlan, StickyBy};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The running snapshot. A request takes it once and uses only that one.
pub struct Policy {
    /// Counts swaps, from 1.
    pub generation: u64,
    pub since: SystemTime,
    pub content: Arc<PolicyContent>,
}

/// What a policy serves. Two generations can have the same.
pub struct PolicyContent {
    pub plan: Plan,
    pub executors: BTreeMap<Arc<str>, Arc<dyn Executor>>,
    models: BTreeMap<Arc<str>, Model>,
    parts: load::LoadedParts,
}

/// All versions of a model.
#[derive(Clone)]
pub struct Model {
    pub versions: BTreeMap<Arc<str>, Arc<Route>>,
    routing: Option<RoutingPlan>,
}

/// One model and version, and how it runs.
pub struct Route {
    pub name: ModelName,
    pub executor: Arc<dyn Executor>,
    pub callable: Arc<dyn Callable>,
    pub transformer: Option<Arc<Transformer>>,
    pub timeout: Option<Duration>,
    pub batching: Option<Batching>,
    /// What the elements of an output are called, by output.
    pub labels: BTreeMap<Arc<str>, Arc<[String]>>,
    pub metrics: RouteMetrics,
    /// What the guard judges by.
    pub counters: guard_counters::GuardCounters,
    /// While the guard judges it and can ask the version before.
    evidence: ArcSwapOption<evidence::Evidence>,
    pub statistics: Arc<statistics::Statistics>,
    usage: usage::Usage,
}

/// Prepared for the common case: no look-up by label for an answer with 200.
#[derive(Clone)]
pub struct RouteMetrics {
    pub ok: prometheus::IntCounter,
    pub duration: prometheus::Histogram,
}

impl RouteMetrics {
    fn new(metrics: &Metrics, name: &ModelName) -> Self {
        let (model, version) = (&*name.name, &*name.version);
        RouteMetrics {
            ok: metrics.requests.with_label_values(&[model, version, "200"]),
            duration: metrics.request_duration.with_label_values(&[model, version]),
        }
    }
}

impl Route {
    /// What callers of tensor protocols see.
    pub fn metadata(&self) -> &Metadata {
        let own = self.transformer.as_ref().and_then(|transformer| transformer.metadata());
        own.unwrap_or_else(|| self.callable.metadata())
    }

    /// Why it refuses every request, whatever that is, if it does: its inputs are not known then.
    pub fn check_available(&self) -> Result<()> {
        let pipeline = self.callable.pipeline().and_then(|pipeline| pipeline.why_unavailable());
        pipeline.map_or(Ok(()), |why| Err(why.clone().model(self.name.to_string())))
    }

    /// Whether a request has 0..n responses.
    pub fn is_streaming(&self) -> bool {
        self.callable.metadata().streaming
    }

    /// Keeps a request while the guard may want to ask it again of the version before.
    pub fn keep(
        &self,
        input: &Payload,
        parameters: &Parameters,
        timeout: impl FnOnce() -> Duration,
    ) -> Option<KeptRequest> {
        let evidence = self.evidence.load();
        evidence.as_ref().map(|evidence| evidence.keep(input, parameters, timeout()))
    }

    /// Whether its calls wait side by side in an instance that they share, and take no place of its executor.
    pub fn is_shared(&self) -> bool {
        self.callable.shared().is_some()
    }
}

/// What keeps a caller on one version, and names of it.
pub struct RouteQuery<'a> {
    pub request_id: &'a str,
    pub header: &'a dyn Fn(&str) -> Option<String>,
}

impl PolicyContent {
    /// The headers that routing rules look at.
    pub fn sticky_headers(&self) -> impl Iterator<Item = &str> {
        self.plan.routing.values().filter_map(|routing| match &routing.by {
            StickyBy::Header(name) => Some(name.as_str()),
            StickyBy::RequestId => None,
        })
    }

    /// Why a model cannot run now, if there is one that cannot: a remote that is away, a plugin that says
    /// no or has no instance.
    pub fn unready(&self) -> Option<Error> {
        let routes = self.models.values().flat_map(|model| model.versions.values());
        // A pipeline of which a client has unloaded a model says so itself: the host is as ready as before.
        let routes = routes.filter(|route| route.check_available().is_ok());
        routes.into_iter().find_map(|route| {
            let error = route.callable.ready().err()?;
            Some(error.context(format!("model \"{}\"", route.name)))
        })
    }

    /// What the plugins measure themselves.
    pub fn families(&self) -> impl Iterator<Item = &Families> {
        self.parts.families()
    }

    /// Plugins whose requests wait side by side.
    pub fn shared_plugins(&self) -> impl Iterator<Item = &Arc<StreamingModel>> {
        self.parts.shared()
    }

    /// The models that are pipelines and use this one, in whatever depth, the outermost first.
    fn dependents(&self, model: &str) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = vec![model.into()];
        let uses = |known: &Model, found: &[Arc<str>]| {
            let pipelines = known.versions.values().filter_map(|route| route.callable.pipeline());
            let mut steps = pipelines.flat_map(|pipeline| &pipeline.program().graph.steps);
            steps.any(|step| found.contains(&step.model))
        };
        while let Some((name, _)) =
            self.models.iter().find(|(name, known)| !found.contains(name) && uses(known, &found))
        {
            found.push(Arc::clone(name));
        }
        found.into_iter().skip(1).rev().collect()
    }

    pub fn models(&self) -> impl Iterator<Item = (&Arc<str>, &Model)> {
        self.models.iter()
    }

    pub(super) fn route(&self, name: &ModelName) -> Option<&Arc<Route>> {
        self.models.get(&name.name)?.versions.get(&name.version)
    }

    /// The route of a model; without a version the only one, or what the routing rule gives this caller.
    pub fn resolve(&self, name: &str, version: Option<&str>, caller: &RouteQuery<'_>) -> Result<&Arc<Route>> {
        let model = self.models.get(name).ok_or_else(|| self.no_such_model(name))?;
        let version = match version {
            Some(version) => version,
            None => return Ok(model.route_for(caller)),
        };
        model.versions.get(version).ok_or_else(|| {
            let known: Vec<&str> = model.versions.keys().map(|version| &**version).collect();
            let hint = did_you_mean(&bounded(version), known.iter().copied());
            Error::not_found(format!(
                "model \"{name}\" has no version \"{}\"{hint}; versions: {}",
                bounded(version),
                known.join(", ")
            ))
            .model(name)
        })
    }

    fn no_such_model(&self, name: &str) -> Error {
        let name = bounded(name);
        if self.plan.overlay.unloaded.contains_key(&name) {
            return Error::not_found(format!(
                "model \"{name}\" was unloaded by request; it is served again once it is loaded"
            ));
        }
        let hint = did_you_mean(&name, self.models.keys().map(|name| &**name));
        let hint = match name.split_once(':') {
            Some((model, version)) if self.models.contains_key(model) => {
                format!(" (ask with \"model\": \"{model}\", \"version\": \"{version}\")")
            }
            _ => hint,
        };
        Error::not_found(format!("no model \"{name}\"{hint}"))
    }
}

impl Route {
    /// The model on its executor, without its transformer.
    fn target(&self) -> ModelTarget {
        ModelTarget {
            model: Arc::clone(&self.name.name),
            version: Arc::clone(&self.name.version),
            executor: Arc::clone(&self.executor),
            callable: Arc::clone(&self.callable),
            batching: self.batching,
            runs: Some(Arc::clone(&self.statistics.runs)),
            timeout: self.timeout,
            is_inner: false,
            priority: Priority::New,
        }
    }
}

/// What plugins call by name: the model on its executor, without its transformer.
impl Models for PolicyContent {
    fn target(&self, model: &str, version: Option<&str>, caller: &CallContext) -> Result<Arc<dyn Target>> {
        let by = RouteQuery { request_id: &caller.id, header: &|name| caller.header(name) };
        let route = self.resolve(model, version, &by)?;
        Ok(Arc::new(route.target()))
    }
}

/// Names from a request, cut before they go into a message.
fn bounded(name: &str) -> String {
    name.chars().take(80).collect()
}

impl Model {
    fn route_for(&self, caller: &RouteQuery<'_>) -> &Arc<Route> {
        let first = self.versions.values().next().expect("invariant: a model has a version");
        let Some(routing) = &self.routing else { return first };
        let key = match &routing.by {
            StickyBy::RequestId => None,
            StickyBy::Header(name) => (caller.header)(name),
        };
        let hash = sticky_hash(key.as_deref().unwrap_or(caller.request_id));
        let total: u64 = routing.weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut point = hash % total.max(1);
        for (version, weight) in &routing.weights {
            match point.checked_sub(u64::from(*weight)) {
                Some(rest) => point = rest,
                None => return self.versions.get(version).unwrap_or(first),
            }
        }
        first
    }
}

/// The same for the same key in every process and release (FNV-1a, mixed): a caller stays on its version.
fn sticky_hash(key: &str) -> u64 {
    let fnv = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept_and_callers_stay() {
        let share = |range: std::ops::Range<u64>| {
            let hits = (0..10_000).filter(|id| range.contains(&(sticky_hash(&format!("user-{id}")) % 100)));
            hits.count()
        };
        assert!((800..1200).contains(&share(0..10)), "{}", share(0..10));
        assert_eq!(sticky_hash("user-1"), sticky_hash("user-1"));
    }
}
