//! From a plan to a policy: starts executors, compiles plugins, loads models, runs checks.
//!
//! The only place that knows concrete executors. Whatever an earlier policy has already is taken from
//! there, by content: a reload costs what changed. Runs on loader threads; blocks.

mod loaded_parts;
mod onnx_source;
mod pipelines;

pub(super) use self::loaded_parts::LoadedParts;
use self::loaded_parts::{CallableKey, ExecutorKey, LoadedPlugin, ModelPlugin};
use super::checks;
use super::files::{File, Files};
use super::guard_counters::GuardCounters;
use super::plan::{ExecutorKind, ExecutorPlan, ModelName, ModelPlan, Plan, PluginPlan, SourcePlan, TlsPlan};
use super::statistics::Statistics;
use super::usage::Usage;
use super::{Model, PolicyContent, Route, RouteMetrics};
use crate::error::{Error, Result, did_you_mean};
use crate::executor::pipeline::PipelineLimits;
use crate::executor::{
    Callable, CustomExecutor, Executor, LoadLimit, OnnxExecutor, PipelineExecutor, PoolConfig, ReferenceFile,
    SessionConfig, Source, ThreadPoolExecutor, TlsFiles, TritonExecutor,
};
use crate::metrics::Metrics;
use crate::plugin::{Engine, Plugin, PluginSpec, Role};
use crate::predict::Metadata;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What loading needs besides the plan.
pub struct Loader {
    pub engine: Arc<Engine>,
    pub metrics: Arc<Metrics>,
    pub runtime: tokio::runtime::Handle,
    /// Where the manifest says that ONNX Runtime is.
    pub library: Option<PathBuf>,
    /// What is in flight of the limited steps of pipelines.
    pub pipeline_limits: PipelineLimits,
}

/// What routes are made from.
#[derive(Clone, Copy)]
struct LoadContext<'a> {
    plan: &'a Plan,
    files: &'a Files,
    /// Earlier policies; what they have already is used again.
    reuse: &'a [Arc<PolicyContent>],
}

/// How long each part of a reload took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Reading and checking the manifest, digests of all files.
    pub plan: Duration,
    /// Compiling and linking plugins.
    pub plugins: Duration,
    /// Loading models.
    pub models: Duration,
    /// Sample requests.
    pub checks: Duration,
}

impl Phases {
    /// Names and milliseconds.
    pub fn in_ms(&self) -> [(&'static str, f64); 4] {
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e4).round() / 10.0;
        [
            ("plan", ms(self.plan)),
            ("plugins", ms(self.plugins)),
            ("models", ms(self.models)),
            ("checks", ms(self.checks)),
        ]
    }
}

impl Loader {
    /// Loads everything that `reuse` does not have. Nothing of it is visible before all of it is ready.
    pub fn load(
        &self,
        plan: Plan,
        files: &Files,
        reuse: &[Arc<PolicyContent>],
        phases: &mut Phases,
    ) -> Result<Arc<PolicyContent>> {
        let mut parts = LoadedParts::default();
        let is_custom = |name: &&Arc<str>| plan.executors[*name].kind() == ExecutorKind::Custom;
        // Executors are started from this thread: their workers begin at its priority.
        for name in plan.executors.keys().filter(|name| !is_custom(name)) {
            self.executor(name, &plan, files, &mut parts, reuse)?;
        }
        let started = Instant::now();
        at_low_priority(|| self.plugins(&plan, files, &mut parts, reuse))?;
        phases.plugins = started.elapsed();
        for name in plan.executors.keys().filter(is_custom) {
            self.executor(name, &plan, files, &mut parts, reuse)?;
        }
        at_low_priority(|| self.load_into(parts, plan, files, reuse, phases))
    }

    /// The executor of this name, and those that it stands before.
    fn executor(
        &self,
        name: &Arc<str>,
        plan: &Plan,
        files: &Files,
        parts: &mut LoadedParts,
        reuse: &[Arc<PolicyContent>],
    ) -> Result<Arc<dyn Executor>> {
        let key = ExecutorKey::of(plan, name);
        let known =
            parts.executors.get(&key).or_else(|| reuse.iter().find_map(|old| old.parts.executors.get(&key)));
        let executor = match (known, &key.plan) {
            (Some(executor), _) => Arc::clone(executor),
            (None, ExecutorPlan::Pool { kind, pool, sessions }) => {
                self.start_pool(name, *kind, *pool, *sessions)?
            }
            (None, ExecutorPlan::Triton { config, tls }) => {
                let tls = tls.as_ref().map(|tls| tls_files(tls, files)).transpose();
                let tls = tls.map_err(|error| error.context(format!("executor \"{name}\": tls")))?;
                Arc::new(TritonExecutor::start(name, config.clone(), tls, &self.metrics)?)
            }
            (None, ExecutorPlan::Pipeline { pool }) => {
                Arc::new(PipelineExecutor::start(name, *pool, &self.metrics))
            }
            (None, ExecutorPlan::Custom { config, plugin, inner }) => {
                let inner = self.executor(inner, plan, files, parts, reuse)?;
                let loaded = &parts.plugins[&(Arc::clone(plugin), plan.plugins[plugin].clone())];
                let plugin = loaded.executor.clone().expect("invariant: the plan wants this role");
                Arc::new(CustomExecutor::start(name, *config, plugin, inner, &self.metrics)?)
            }
        };
        parts.executors.insert(key, Arc::clone(&executor));
        Ok(executor)
    }

    fn plugins(
        &self,
        plan: &Plan,
        files: &Files,
        parts: &mut LoadedParts,
        reuse: &[Arc<PolicyContent>],
    ) -> Result<()> {
        // Plugins that nothing uses are still compiled: a broken one should be known.
        for (name, wanted) in &plan.plugins {
            files.progress.check()?;
            let key = (Arc::clone(name), wanted.clone());
            let plugin = match reuse.iter().find_map(|old| old.parts.plugins.get(&key)) {
                Some(plugin) => Arc::clone(plugin),
                None => Arc::new(self.load_plugin(name, wanted, files)?),
            };
            parts.plugins.insert(key, plugin);
        }
        Ok(())
    }

    fn load_into(
        &self,
        mut parts: LoadedParts,
        plan: Plan,
        files: &Files,
        reuse: &[Arc<PolicyContent>],
        phases: &mut Phases,
    ) -> Result<Arc<PolicyContent>> {
        let started = Instant::now();
        let mut models: BTreeMap<Arc<str>, Model> = BTreeMap::new();
        for name in pipelines::in_order(&plan) {
            files.progress.check()?;
            let from = LoadContext { plan: &plan, files, reuse };
            let route = self
                .route(name, from, &models, &mut parts)
                .map_err(|error| error.context(format!("model \"{name}\"")).model(name.to_string()))?;
            let model = models.entry(Arc::clone(&name.name)).or_insert_with(|| Model {
                versions: BTreeMap::new(),
                routing: plan.routing.get(&name.name).cloned(),
            });
            model.versions.insert(Arc::clone(&name.version), Arc::new(route));
        }
        phases.models = started.elapsed();

        let started = Instant::now();
        let executors = parts
            .executors
            .iter()
            .map(|(key, executor)| (Arc::clone(&key.name), Arc::clone(executor)))
            .collect();
        let content = Arc::new(PolicyContent { plan, executors, models, parts });
        self.run_checks(&content, files, reuse)?;
        phases.checks = started.elapsed();
        Ok(content)
    }

    fn start_pool(
        &self,
        name: &str,
        kind: ExecutorKind,
        pool: PoolConfig,
        sessions: SessionConfig,
    ) -> Result<Arc<dyn Executor>> {
        let (library, runtime, metrics) = (self.library.clone(), &self.runtime, &self.metrics);
        Ok(match kind {
            ExecutorKind::Onnx => {
                Arc::new(OnnxExecutor::start(name, pool, sessions, library, runtime, metrics)?)
            }
            _ => Arc::new(ThreadPoolExecutor::start(name, pool, sessions, library, runtime, metrics)?),
        })
    }

    fn load_plugin(&self, name: &Arc<str>, plan: &PluginPlan, files: &Files) -> Result<LoadedPlugin> {
        let named = |error: Error| error.context(format!("plugin \"{name}\"")).plugin(&**name);
        let wasm = files.read(&plan.file).map_err(named)?;
        let assets = plan.assets.iter().map(|(key, file)| Ok((key.clone(), files.read(file)?)));
        let mut spec = PluginSpec::new(Arc::clone(name), plan.limits.clone(), &self.engine, &self.metrics);
        spec.config.clone_from(&plan.config);
        spec.assets = assets.collect::<Result<_>>().map_err(named)?;
        let metrics = spec.metrics();
        if let Some(http) = &plan.http {
            let ca = http.ca.as_ref().map(|file| files.read(file)).transpose().map_err(named)?;
            let runtime = self.runtime.clone();
            spec.allow_http(http.limits.clone(), ca.as_deref(), runtime, &self.metrics).map_err(named)?;
        }
        let plugin = Plugin::load(&self.engine, spec, &wasm, &self.metrics, &files.progress.stop)?;
        let wants = |role| plan.roles.contains(&role);
        self.runtime.block_on(files.progress.unless_stopped(async {
            Ok(LoadedPlugin {
                metrics,
                transformer: match wants(Role::Transformer) {
                    true => Some(Arc::new(plugin.transformer(&self.metrics).await?)),
                    false => None,
                },
                model: match wants(Role::Model) {
                    true if plugin.info().roles.contains(&Role::StreamingModel) => {
                        Some(ModelPlugin::Streaming(Arc::new(plugin.streaming_model(&self.metrics).await?)))
                    }
                    true => Some(ModelPlugin::Model(Arc::new(plugin.model(&self.metrics).await?))),
                    false => None,
                },
                executor: match wants(Role::Executor) {
                    true => Some(Arc::new(plugin.executor(&self.metrics)?)),
                    false => None,
                },
            })
        }))
    }

    fn route(
        &self,
        name: &ModelName,
        from: LoadContext<'_>,
        models: &BTreeMap<Arc<str>, Model>,
        parts: &mut LoadedParts,
    ) -> Result<Route> {
        let LoadContext { plan, files, reuse } = from;
        let wanted = &plan.models[name];
        let executor = Arc::clone(&parts.executors[&ExecutorKey::of(plan, &wanted.executor)]);
        let plugin = |name: &Arc<str>| (Arc::clone(name), plan.plugins[name].clone());
        let callable = match &wanted.source {
            SourcePlan::Pipeline(pipeline) => {
                let model = self.pipeline(name, pipeline, plan, models)?;
                executor.load(&Source::Pipeline(Arc::new(model)))?
            }
            _ => self.callable(wanted, from, parts, &*executor)?,
        };
        if let Some(batching) = wanted.batching {
            batching.check(&*callable)?;
        }
        let transformer = wanted.transformer.as_ref().map(|name| {
            let loaded = parts.plugins[&plugin(name)].transformer.as_ref();
            Arc::clone(loaded.expect("invariant: the plan wants this role"))
        });
        let metrics = RouteMetrics::new(&self.metrics, name);
        let mut route = Route {
            name: name.clone(),
            executor,
            callable,
            transformer,
            timeout: wanted.timeout,
            batching: wanted.batching,
            labels: BTreeMap::new(),
            metrics,
            counters: GuardCounters::default(),
            evidence: ArcSwapOption::empty(),
            usage: Usage::default(),
            statistics: Arc::new(Statistics::new(wanted.batching)),
        };
        // The first of them is what is live.
        let live = reuse.first().and_then(|live| live.route(name));
        if let Some(old) = live.filter(|old| route.counts_on(old)) {
            route.statistics = Arc::clone(&old.statistics);
        }
        route.labels = labels(wanted, route.metadata(), files)?;
        Ok(route)
    }

    /// A model as it is, of an earlier policy if that has the same.
    fn callable(
        &self,
        wanted: &ModelPlan,
        from: LoadContext<'_>,
        parts: &mut LoadedParts,
        executor: &dyn Executor,
    ) -> Result<Arc<dyn Callable>> {
        let LoadContext { plan, files, reuse } = from;
        let plugin = |name: &Arc<str>| (Arc::clone(name), plan.plugins[name].clone());
        let key = match &wanted.source {
            SourcePlan::Pipeline(_) => unreachable!("a pipeline is made of what is loaded"),
            SourcePlan::Onnx { file, external } => CallableKey::Onnx {
                file: file.sha256.clone(),
                external: external.clone(),
                sessions: plan.base(&wanted.executor).1.sessions().expect("invariant: a pool runs files"),
            },
            SourcePlan::Plugin(name) => {
                let (name, plan) = plugin(name);
                CallableKey::Plugin { name, plan: plan.into(), idempotent: wanted.idempotent }
            }
            SourcePlan::Remote { name, version, reference } => CallableKey::Remote {
                executor: Box::new(ExecutorKey::of(plan, plan.base(&wanted.executor).0)),
                name: name.clone(),
                version: version.clone(),
                reference: reference.as_ref().map(|(file, _)| file.sha256.clone()),
            },
        };
        let known =
            parts.callables.get(&key).or_else(|| reuse.iter().find_map(|old| old.parts.callables.get(&key)));
        let callable = match known {
            // An executor may refuse a kind of model that another one has loaded.
            Some(callable) if !matches!(key, CallableKey::Plugin { .. }) => Arc::clone(callable),
            _ => executor.load(&self.source(wanted, plan, files, parts, plugin)?)?,
        };
        parts.callables.insert(key, Arc::clone(&callable));
        Ok(callable)
    }

    fn source(
        &self,
        wanted: &ModelPlan,
        plan: &Plan,
        files: &Files,
        parts: &LoadedParts,
        plugin: impl Fn(&Arc<str>) -> (Arc<str>, PluginPlan),
    ) -> Result<Source> {
        Ok(match &wanted.source {
            SourcePlan::Pipeline(_) => unreachable!("a pipeline is made of what is loaded"),
            SourcePlan::Onnx { file, external } => {
                let limit =
                    LoadLimit { time: plan.reload.model_load_timeout, cancel: files.progress.stop.clone() };
                Source::Onnx(onnx_source::read(file, external, files, limit)?)
            }
            SourcePlan::Plugin(name) => {
                let model = parts.plugins[&plugin(name)].model.as_ref();
                match model.expect("invariant: the plan wants this role") {
                    ModelPlugin::Model(plugin) => Source::Plugin(Arc::clone(plugin)),
                    ModelPlugin::Streaming(plugin) => {
                        Source::Streaming { plugin: Arc::clone(plugin), idempotent: wanted.idempotent }
                    }
                }
            }
            SourcePlan::Remote { name, version, reference } => Source::Remote {
                name: name.clone(),
                version: version.clone(),
                reference: match reference {
                    Some((file, _)) => {
                        Some(ReferenceFile { path: files.location(&file.path), bytes: files.read(file)? })
                    }
                    None => None,
                },
            },
        })
    }

    /// Runs the checks of every route that differs from what `reuse` has.
    fn run_checks(
        &self,
        content: &Arc<PolicyContent>,
        files: &Files,
        reuse: &[Arc<PolicyContent>],
    ) -> Result<()> {
        for (name, plan) in content.plan.models.iter().filter(|(_, plan)| !plan.checks.is_empty()) {
            let route = &content.models[&name.name].versions[&name.version];
            let unchanged = reuse.iter().any(|old| {
                let same_plan = old.plan.models.get(name).is_some_and(|old| old.checks == plan.checks);
                same_plan && old.route(name).is_some_and(|old| route.computes_the_same(old))
            });
            if unchanged {
                continue;
            }
            let timeout = plan.timeout.unwrap_or(content.plan.settings.limits.default_timeout);
            for check in &plan.checks {
                let samples = files.read(&check.file)?;
                let cancel = &files.progress.stop;
                let run = checks::run(content, route, check, &samples, timeout, cancel);
                self.runtime
                    .block_on(files.progress.unless_stopped(run))
                    .map_err(|error| error.context(format!("model \"{name}\"")))?;
            }
        }
        Ok(())
    }
}

/// Does the dear part of loading on a thread that yields to everything else.
fn at_low_priority<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let done = crate::config::at_low_priority(work);
    done.map_err(|error| Error::io(&error).context("cannot start a thread to load a policy"))?
}

fn tls_files(plan: &TlsPlan, files: &Files) -> Result<TlsFiles> {
    const CERTIFICATE: &str = "CERTIFICATE-----";
    let identity = match &plan.identity {
        Some((certificate, key)) => {
            Some((pem(certificate, CERTIFICATE, files)?, pem(key, "PRIVATE KEY-----", files)?))
        }
        None => None,
    };
    let ca = plan.ca.as_ref().map(|ca| pem(ca, CERTIFICATE, files)).transpose()?;
    Ok(TlsFiles { ca, identity, domain: plan.domain.clone() })
}

/// A file in PEM that has such a section: without it TLS would find nothing, and blame the remote.
fn pem(file: &File, section: &str, files: &Files) -> Result<Bytes> {
    let content = files.read(file)?;
    if content.windows(section.len()).any(|part| part == section.as_bytes()) {
        return Ok(content);
    }
    let (path, section) = (file.path.display(), section.trim_end_matches('-').to_lowercase());
    Err(Error::invalid(format!("{path} has no {section} in PEM")))
}

impl PolicyContent {
    /// The same but for one model, of which nothing is kept in memory.
    pub(super) fn without(&self, model: &str) -> PolicyContent {
        let mut models = self.models.clone();
        models.remove(model);
        pipelines::without(&mut models, model);
        let routes = || models.values().flat_map(|model| model.versions.values());
        let used =
            |callable: &Arc<dyn Callable>| routes().any(|route| Arc::ptr_eq(&route.callable, callable));
        let callables = self.parts.callables.iter().filter(|(_, callable)| used(callable));
        let parts = LoadedParts {
            executors: self.parts.executors.clone(),
            plugins: self.parts.plugins.clone(),
            callables: callables.map(|(key, callable)| (key.clone(), Arc::clone(callable))).collect(),
        };
        PolicyContent { plan: self.plan.without(model), executors: self.executors.clone(), models, parts }
    }
}

fn labels(
    wanted: &ModelPlan,
    metadata: &Metadata,
    files: &Files,
) -> Result<BTreeMap<Arc<str>, Arc<[String]>>> {
    let read = |(output, file): (&Arc<str>, &File)| {
        let known = metadata.outputs.iter().map(|spec| &*spec.name);
        if !known.clone().any(|name| *name == **output) {
            let hint = did_you_mean(output, known);
            return Err(Error::invalid(format!("labels: the model has no output \"{output}\"{hint}")));
        }
        let text = String::from_utf8(files.read(file)?.into())
            .map_err(|_| Error::invalid(format!("labels: {} is not UTF-8", file.path.display())))?;
        Ok((Arc::clone(output), text.lines().map(str::to_owned).collect()))
    };
    wanted.labels.iter().map(read).collect()
}

impl Route {
    pub(super) fn computes_the_same(&self, other: &Route) -> bool {
        if let (Some(ours), Some(theirs)) = (self.callable.pipeline(), other.callable.pipeline()) {
            return self.transformer.is_none() == other.transformer.is_none() && ours.is_same(theirs);
        }
        let same_transformer = match (&self.transformer, &other.transformer) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            _ => false,
        };
        // A plugin in the executor may answer for the model.
        let same_executor = Arc::ptr_eq(&self.executor, &other.executor)
            || [self, other].iter().all(|route| route.executor.kind() != CustomExecutor::KIND);
        same_transformer && same_executor && Arc::ptr_eq(&self.callable, &other.callable)
    }

    /// Whether a plugin in its executor decides how the model is called.
    pub(super) fn is_behind_plugin(&self) -> bool {
        self.executor.kind() == CustomExecutor::KIND
    }

    /// Whether the statistics of `other` go on with this route.
    fn counts_on(&self, other: &Route) -> bool {
        let same_place = Arc::ptr_eq(&self.executor, &other.executor) && self.batching == other.batching;
        same_place && self.computes_the_same(other)
    }
}
