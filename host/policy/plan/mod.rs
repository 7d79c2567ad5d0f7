//! The plan: a manifest whose every name, file and number was checked, ready to be loaded.
//!
//! Making a plan reads files and computes their digests; it compiles nothing and starts nothing. All
//! faults are collected, so that one look mends them all.

mod batching;
mod bounds;
mod custom;
mod executors;
mod jobs;
mod models;
mod outbound;
pub mod pipelines;
mod plugins;
mod remote;
mod routing;

pub(super) use bounds::MS_MAX;
pub use jobs::JobsPlan;
pub use outbound::HttpPlan;
pub use pipelines::PipelinePlan;

use super::describe::{Description, describe};
use super::diagnostic::{Diagnostic, Diagnostics};
use super::files::{File, Files};
use super::manifest::{self, Manifest, Spanned};
use super::overlay::Overlay;
use super::secret::PluginConfig;
use super::settings::{ReloadSettings, Settings};
use crate::config::PluginLimits;
use crate::error::{Error, did_you_mean};
use crate::executor::{Batching, CustomConfig, PoolConfig, SessionConfig, TritonConfig};
use crate::input_file::{FileKind, FileLimits};
use crate::plugin::Role;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Plan {
    pub path: PathBuf,
    pub server: manifest::Server,
    pub settings: Settings,
    pub reload: ReloadSettings,
    pub jobs: JobsPlan,
    /// Every `inner` is there, and none leads back to itself.
    pub executors: BTreeMap<Arc<str>, ExecutorPlan>,
    pub plugins: BTreeMap<Arc<str>, PluginPlan>,
    pub models: BTreeMap<ModelName, ModelPlan>,
    pub routing: BTreeMap<Arc<str>, RoutingPlan>,
    pub pipelines: BTreeMap<Arc<str>, PipelinePlan>,
    /// What was changed of the manifest before it was planned.
    pub overlay: Overlay,
    pub description: Description,
    /// Names everything that is served and how: equal digests, equal behaviour.
    pub digest: String,
    /// The digest of what the files say, without the overlay.
    pub written: String,
}

/// `name:version`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName {
    pub name: Arc<str>,
    pub version: Arc<str>,
}

impl std::fmt::Display for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.version)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecutorKind {
    ThreadPool,
    Onnx,
    Triton,
    Custom,
    Pipeline,
}

impl ExecutorKind {
    pub const ALL: [ExecutorKind; 5] = [
        ExecutorKind::ThreadPool,
        ExecutorKind::Onnx,
        ExecutorKind::Triton,
        ExecutorKind::Custom,
        ExecutorKind::Pipeline,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ExecutorKind::ThreadPool => "thread-pool",
            ExecutorKind::Onnx => "onnx",
            ExecutorKind::Triton => "triton",
            ExecutorKind::Custom => "custom",
            ExecutorKind::Pipeline => "pipeline",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExecutorPlan {
    Pool { kind: ExecutorKind, pool: PoolConfig, sessions: SessionConfig },
    Triton { config: TritonConfig, tls: Option<Box<TlsPlan>> },
    Custom { config: CustomConfig, plugin: Arc<str>, inner: Arc<str> },
    Pipeline { pool: PoolConfig },
}

/// How an encrypted connection is checked; certificate and key are there together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsPlan {
    pub ca: Option<File>,
    pub identity: Option<(File, File)>,
    pub domain: Option<String>,
}

impl TlsPlan {
    pub fn files(&self) -> impl Iterator<Item = &File> {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.ca.iter().chain(identity)
    }
}

impl ExecutorPlan {
    pub fn kind(&self) -> ExecutorKind {
        match self {
            ExecutorPlan::Pool { kind, .. } => *kind,
            ExecutorPlan::Triton { .. } => ExecutorKind::Triton,
            ExecutorPlan::Custom { .. } => ExecutorKind::Custom,
            ExecutorPlan::Pipeline { .. } => ExecutorKind::Pipeline,
        }
    }

    /// Calls that run at once.
    pub fn workers(&self) -> usize {
        match self {
            ExecutorPlan::Pool { pool, .. } | ExecutorPlan::Pipeline { pool } => pool.workers,
            ExecutorPlan::Triton { config, .. } => config.workers,
            ExecutorPlan::Custom { config, .. } => config.workers,
        }
    }

    /// Admissions that may wait for a worker.
    pub fn queue(&self) -> usize {
        match self {
            ExecutorPlan::Pool { pool, .. } | ExecutorPlan::Pipeline { pool } => pool.queue,
            ExecutorPlan::Triton { .. } | ExecutorPlan::Custom { .. } => 0,
        }
    }

    /// How it holds models that it runs itself.
    pub fn sessions(&self) -> Option<SessionConfig> {
        match self {
            ExecutorPlan::Pool { sessions, .. } => Some(*sessions),
            ExecutorPlan::Triton { .. } | ExecutorPlan::Custom { .. } | ExecutorPlan::Pipeline { .. } => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PluginPlan {
    pub file: File,
    pub limits: PluginLimits,
    pub config: PluginConfig,
    pub assets: BTreeMap<String, File>,
    pub http: Option<Box<HttpPlan>>,
    /// The roles that models want of it.
    pub roles: BTreeSet<Role>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelPlan {
    pub source: SourcePlan,
    pub executor: Arc<str>,
    pub transformer: Option<Arc<str>>,
    pub timeout: Option<Duration>,
    pub batching: Option<Batching>,
    /// By output.
    pub labels: BTreeMap<Arc<str>, File>,
    pub idempotent: bool,
    pub checks: Vec<CheckPlan>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourcePlan {
    Onnx {
        file: File,
        external: Vec<File>,
    },
    Plugin(Arc<str>),
    /// With a file too, that is what the remote must be like.
    Remote {
        name: String,
        version: Option<String>,
        reference: Option<(File, Vec<File>)>,
    },
    Pipeline(Arc<str>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct CheckPlan {
    pub file: File,
    pub tolerance: f64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingPlan {
    /// Version and weight; the weights' sum is positive.
    pub weights: Vec<(Arc<str>, u32)>,
    pub by: StickyBy,
}

/// What keeps a caller on one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyBy {
    RequestId,
    Header(String),
}

impl StickyBy {
    /// `request-id` or `header:<name>`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "request-id" => Some(StickyBy::RequestId),
            Some(("header", header)) if !header.is_empty() => Some(StickyBy::Header(header.to_lowercase())),
            _ => None,
        }
    }
}

/// Why there is no plan.
pub enum Unplanned {
    /// Something is wrong.
    Faulty(Box<Diagnostics>),
    /// A pinned file does not have its digest yet.
    Pending(Vec<String>),
}

impl Unplanned {
    /// Whether the same files may be read well later: what is wrong is a shortage, not their content.
    pub fn is_transient(&self) -> bool {
        match self {
            Unplanned::Faulty(diagnostics) => diagnostics.faults.iter().any(|fault| fault.transient),
            Unplanned::Pending(_) => false,
        }
    }

    /// One line for each fault.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Unplanned::Faulty(diagnostics) => diagnostics.lines(),
            Unplanned::Pending(files) => files.clone(),
        }
    }
}

impl Plan {
    /// Where models of an executor run in the end: it, or the last of its inner ones.
    pub fn base(&self, executor: &str) -> (&Arc<str>, &ExecutorPlan) {
        base(&self.executors, executor).expect("invariant: a plan names what it has")
    }

    /// Reads the manifest and every file that it names.
    pub fn read(path: &Path, files: &Files) -> Result<Self, Unplanned> {
        Plan::read_under(&Overlay::default(), path, files)
    }

    /// The same, with what model control has changed.
    pub(super) fn read_under(overlay: &Overlay, path: &Path, files: &Files) -> Result<Self, Unplanned> {
        let unreadable = |error: Error| {
            let fault = Diagnostic::new(format!("cannot read the manifest: {error}"));
            let fault = Diagnostic { transient: error.is_transient(), ..fault };
            Unplanned::Faulty(Box::new(Diagnostics::new(path, "", vec![fault])))
        };
        let file = files.file(path, FileLimits::default().of(FileKind::Manifest)).map_err(unreadable)?;
        let text = String::from_utf8(files.read(&file).map_err(unreadable)?.into())
            .map_err(|_| unreadable(Error::invalid("it is not UTF-8")))?;
        let mut manifest = Manifest::parse(path, &text).map_err(Unplanned::Faulty)?;
        let bare = Planner::new(path, files, Overlay::default()).check(&manifest, &text);
        if overlay.is_empty() {
            return bare;
        }
        let overlay = overlay.apply(&mut manifest);
        let plan = Planner::new(path, files, overlay).check(&manifest, &text)?;
        // What is wrong without the overlay is no fault of the plan under it.
        let written = bare.map_or_else(|_| plan.digest.clone(), |bare| bare.digest);
        Ok(Plan { written, ..plan })
    }

    /// The same but for one model, which counts as unloaded.
    pub(super) fn without(&self, model: &str) -> Plan {
        let mut plan = self.clone();
        let (gone, kept) = plan.models.into_iter().partition(|(name, _)| *name.name == *model);
        let gone: BTreeMap<ModelName, ModelPlan> = gone;
        plan.models = kept;
        plan.routing.remove(model);
        plan.overlay.unload(model, gone.keys().map(|name| name.version.to_string()).collect());
        plan.describe();
        Plan { written: self.written.clone(), ..plan }
    }

    fn describe(&mut self) {
        self.description = describe(self);
        let described = serde_json::to_vec(&self.description).expect("invariant: maps of strings");
        self.digest = super::files::hex_digest(&described)[..16].to_owned();
        self.written.clone_from(&self.digest);
    }
}

/// Faults that are shown, which fit into one error; more are counted.
const FAULTS_MAX: usize = 40;

struct Planner<'a> {
    path: &'a Path,
    folder: &'a Path,
    files: &'a Files,
    limits: FileLimits,
    /// As it was applied to the manifest.
    overlay: Overlay,
    faults: Vec<Diagnostic>,
    /// Faults beside these, which are only counted.
    more: usize,
    pending: Vec<String>,
    /// Plugins whose file cannot be read; that was said once already.
    unreadable: BTreeSet<String>,
}

impl<'a> Planner<'a> {
    fn new(path: &'a Path, files: &'a Files, overlay: Overlay) -> Self {
        let folder = path.parent().unwrap_or(Path::new("."));
        let (faults, pending, unreadable) = (Vec::new(), Vec::new(), BTreeSet::new());
        let limits = FileLimits::default();
        Planner { path, folder, files, limits, overlay, faults, more: 0, pending, unreadable }
    }

    fn check(mut self, manifest: &Manifest, text: &str) -> Result<Plan, Unplanned> {
        match self.plan(manifest, text) {
            Some(plan) if self.faults.is_empty() && self.pending.is_empty() => Ok(plan),
            _ if self.faults.is_empty() => Err(Unplanned::Pending(self.pending)),
            _ => {
                self.faults.truncate(FAULTS_MAX);
                let faults = self
                    .faults
                    .into_iter()
                    .map(|fault| crate::policy::settings::placed(fault, text))
                    .collect();
                let more = self.more;
                Err(Unplanned::Faulty(Box::new(Diagnostics::new(self.path, text, faults).and_more(more))))
            }
        }
    }

    /// None where something is missing that the rest is built on; a fault says what.
    fn plan(&mut self, manifest: &Manifest, text: &str) -> Option<Plan> {
        let settings = self.take(Settings::from_manifest(&manifest.server, self.folder));
        let reload = self.take(ReloadSettings::from_manifest(&manifest.reload));
        let jobs = self.jobs(&manifest.jobs);
        self.limits = self.file_limits(&manifest.files);
        let executors = self.executors(manifest);
        let mut plugins = self.plugins(manifest);
        self.custom_plugins(manifest, &executors, &mut plugins);
        let default = self.policy_default(manifest, &executors);
        let pipelines = self.pipelines(manifest, text);
        let models = self.models(manifest, &executors, &mut plugins, default.as_ref(), &pipelines);
        self.pipeline_models(manifest, &pipelines, &models);
        self.policy_names(manifest, &models);
        let routing = self.routing(manifest, &models);
        if models.is_empty() && self.faults.is_empty() && self.overlay.unloaded.is_empty() {
            let fault = Diagnostic::new("the manifest serves no model");
            self.faults.push(fault.hint("add a table such as\n[models.simple]\npath = \"simple.onnx\""));
        }
        let mut plan = Plan {
            path: self.path.to_owned(),
            server: manifest.server.clone(),
            settings: settings?,
            reload: reload?,
            jobs,
            executors,
            plugins,
            models,
            routing,
            pipelines,
            overlay: self.overlay.clone(),
            description: Description::new(),
            digest: String::new(),
            written: String::new(),
        };
        plan.describe();
        Some(plan)
    }

    fn take<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }

    fn fault(&mut self, span: Range<usize>, message: impl Into<String>) -> &mut Diagnostic {
        if self.has_many_faults() {
            // The last one is given to be changed by the caller, and taken away by the next.
            self.more += 1;
            self.faults.truncate(FAULTS_MAX);
        }
        self.faults.push(Diagnostic::new(message).at(span));
        self.faults.last_mut().expect("invariant: just pushed")
    }

    /// There are as many faults as anybody reads: more are counted, and no hints are looked for.
    fn has_many_faults(&self) -> bool {
        self.faults.len() >= FAULTS_MAX
    }

    /// ` (did you mean "x"?)`, or nothing. It takes the product of the names' lengths for each known name.
    fn did_you_mean<'n>(&self, name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
        if self.has_many_faults() { String::new() } else { did_you_mean(name, known) }
    }

    fn hinted(&mut self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.fault(span, message).hint = Some(hint.into());
    }

    fn file(&mut self, what: &str, path: &Spanned<PathBuf>, kind: FileKind) -> Option<File> {
        let full = self.folder.join(path.get_ref());
        match self.files.file(&full, self.limits.of(kind)) {
            Ok(file) => Some(file),
            Err(error) => {
                self.unreadable(what, path, &error);
                None
            }
        }
    }

    fn unreadable(&mut self, what: &str, path: &Spanned<PathBuf>, error: &Error) {
        let full = self.folder.join(path.get_ref());
        let fault = self.fault(path.span(), format!("{what}: cannot read {}: {error}", full.display()));
        fault.transient = error.is_transient();
    }

    /// A pinned file that has another digest is still to come. True if the file is as its pin says.
    fn pinned(&mut self, what: &str, file: &File, pin: Option<&Spanned<String>>) -> bool {
        let Some(pin) = pin else { return true };
        let wanted = pin.get_ref().trim_start_matches("sha256:").to_lowercase();
        if wanted.len() != 64 || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let message = format!("{what}: sha256 is not a digest of 64 hexadecimal digits");
            self.hinted(pin.span(), message, format!("the file now has {}", file.sha256));
        } else if wanted != file.sha256 {
            let path = file.path.display();
            self.pending
                .push(format!("{what}: {path} has sha256 {}, the manifest waits for {wanted}", file.sha256));
        } else {
            return true;
        }
        false
    }

    fn model_name(&mut self, key: &Spanned<String>) -> Option<ModelName> {
        let name = parse_model_name(key.get_ref());
        if name.is_none() {
            let message = format!("\"{}\" is not a model's name", key.get_ref());
            let hint =
                "write \"name\" or \"name:version\", each of 1 to 64 letters, digits, '.', '_' and '-'";
            self.hinted(key.span(), message, hint);
        }
        name
    }

    fn check_name(&mut self, what: &str, key: &Spanned<String>) {
        if !is_name(key.get_ref()) {
            let message = format!("\"{}\" is not a name: [{what}s] cannot have it", key.get_ref());
            self.hinted(key.span(), message, "use 1 to 64 letters, digits, '.', '_' and '-'");
        }
    }
}

fn base<'a>(
    executors: &'a BTreeMap<Arc<str>, ExecutorPlan>,
    name: &str,
) -> Option<(&'a Arc<str>, &'a ExecutorPlan)> {
    match executors.get_key_value(name)? {
        (_, ExecutorPlan::Custom { inner, .. }) => base(executors, inner),
        found => Some(found),
    }
}

/// A name of a model, a version, an executor, a plugin: `[A-Za-z0-9._-]{1,64}`.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// `name:version`; a name alone is version 1.
pub fn parse_model_name(text: &str) -> Option<ModelName> {
    let (name, version) = text.split_once(':').unwrap_or((text, "1"));
    (is_name(name) && is_name(version)).then(|| ModelName { name: name.into(), version: version.into() })
}
