//! Checks a manifest and collects its faults. Each table of the manifest is checked in a file of
//! its own.

use super::plan::Plan;
use super::unplanned::Unplanned;
use crate::error::{Error, did_you_mean};
use crate::input_file::{FileKind, FileLimits};
use crate::policy::describe::describe;
use crate::policy::description::Description;
use crate::policy::diagnostic::{Diagnostic, Diagnostics};
use crate::policy::files::{File, Files};
use crate::policy::manifest::{Manifest, Spanned};
use crate::policy::model_name::{ModelName, NAME_FORM, is_name, parse_model_name, taken_by};
use crate::policy::overlay::Overlay;
use crate::policy::settings::{self, ReloadSettings, Settings};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Faults that are shown. They fit into one error; further ones are only counted.
const FAULTS_MAX: usize = 40;

pub(super) struct Planner<'a> {
    pub(super) path: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) files: &'a Files,
    pub(super) limits: FileLimits,
    /// The overlay as it was applied to the manifest.
    pub(super) overlay: Overlay,
    pub(super) faults: Vec<Diagnostic>,
    /// The number of further faults.
    pub(super) more: usize,
    pending: Vec<String>,
    /// Plugins whose file cannot be read. That was reported already.
    pub(super) unreadable: BTreeSet<String>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(path: &'a Path, files: &'a Files, overlay: Overlay) -> Self {
        let folder = path.parent().unwrap_or(Path::new("."));
        let (faults, pending, unreadable) = (Vec::new(), Vec::new(), BTreeSet::new());
        let limits = FileLimits::default();
        Planner { path, folder, files, limits, overlay, faults, more: 0, pending, unreadable }
    }

    pub(super) fn check(mut self, manifest: &Manifest, text: &str) -> Result<Plan, Unplanned> {
        match self.plan(manifest, text) {
            Some(plan) if self.faults.is_empty() && self.pending.is_empty() => Ok(plan),
            _ if self.faults.is_empty() => Err(Unplanned::Pending(self.pending)),
            _ => {
                self.faults.truncate(FAULTS_MAX);
                let faults = self.faults.into_iter().map(|fault| settings::placed(fault, text)).collect();
                let more = self.more;
                Err(Unplanned::Faulty(Box::new(Diagnostics::new(self.path, text, faults).and_more(more))))
            }
        }
    }

    /// Returns `None` if a part is missing that the rest is built on. A fault says which.
    fn plan(&mut self, manifest: &Manifest, text: &str) -> Option<Plan> {
        let settings = self.take(Settings::from_manifest(&manifest.server, self.folder));
        let reload = self.take(ReloadSettings::from_manifest(&manifest.reload));
        let jobs = self.jobs(&manifest.jobs);
        let webhooks = self.webhooks(&manifest.jobs);
        let tenants = self.tenants(manifest);
        let job_store = self.job_store(manifest);
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
        let may_be_empty = manifest.server.is_explicit() || !self.overlay.unloaded.is_empty();
        if models.is_empty() && self.faults.is_empty() && !may_be_empty {
            let fault = Diagnostic::new("the manifest serves no model");
            self.faults.push(fault.hint("add a table such as\n[models.simple]\npath = \"simple.onnx\""));
        }
        let mut plan = Plan {
            path: self.path.to_owned(),
            text: text.into(),
            server: manifest.server.clone(),
            settings: settings?,
            reload: reload?,
            jobs,
            webhooks,
            job_store,
            executors,
            plugins,
            models,
            routing,
            pipelines,
            tenants,
            overlay: self.overlay.clone(),
            description: Description::new(),
            digest: String::new(),
            written: String::new(),
        };
        describe(&mut plan);
        plan.written.clone_from(&plan.digest);
        Some(plan)
    }

    fn take<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }

    pub(super) fn fault(&mut self, span: Range<usize>, message: impl Into<String>) -> &mut Diagnostic {
        if self.has_many_faults() {
            // The caller may still change the last fault; the next call removes it.
            self.more += 1;
            self.faults.truncate(FAULTS_MAX);
        }
        self.faults.push(Diagnostic::new(message).at(span));
        self.faults.last_mut().expect("invariant: just pushed")
    }

    /// Whether enough faults were found. Further ones are only counted, and no hints are searched
    /// for.
    pub(super) fn has_many_faults(&self) -> bool {
        self.faults.len() >= FAULTS_MAX
    }

    /// Returns ` (did you mean "x"?)` or an empty text. Each known name costs time proportional to
    /// the product of the names' lengths.
    pub(super) fn did_you_mean<'n>(&self, name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
        if self.has_many_faults() { String::new() } else { did_you_mean(name, known) }
    }

    pub(super) fn hinted(&mut self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.fault(span, message).hint = Some(hint.into());
    }

    pub(super) fn file(&mut self, what: &str, path: &Spanned<PathBuf>, kind: FileKind) -> Option<File> {
        let full = self.folder.join(path.get_ref());
        match self.files.file(&full, self.limits.of(kind)) {
            Ok(file) => Some(file),
            Err(error) => {
                self.unreadable(what, path, &error);
                None
            }
        }
    }

    pub(super) fn unreadable(&mut self, what: &str, path: &Spanned<PathBuf>, error: &Error) {
        let full = self.folder.join(path.get_ref());
        let fault = self.fault(path.span(), format!("{what}: cannot read {}: {error}", full.display()));
        fault.transient = error.is_transient();
    }

    /// Returns whether a file has the digest that it is pinned to. If it has another one, the plan
    /// waits for the right file.
    pub(super) fn pinned(&mut self, what: &str, file: &File, pin: Option<&Spanned<String>>) -> bool {
        let Some(pin) = pin else { return true };
        let wanted = pin.get_ref().trim_start_matches("sha256:").to_lowercase();
        if wanted.len() != 64 || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let message = format!("{what}: sha256 is not a digest of 64 hexadecimal digits");
            self.hinted(pin.span(), message, format!("the file now has {}", file.sha256));
        } else if wanted != file.sha256 {
            let path = file.path.display();
            self.pending
                .push(format!("{what}: {path} has sha256 {}, the manifest expects {wanted}", file.sha256));
        } else {
            return true;
        }
        false
    }

    pub(super) fn model_name(&mut self, key: &Spanned<String>) -> Option<ModelName> {
        let name = parse_model_name(key.get_ref());
        if name.is_none() {
            let message = format!("\"{}\" is not a model's name", key.get_ref());
            let hint = format!("write \"name\" or \"name:version\", each of {NAME_FORM}");
            self.hinted(key.span(), message, hint);
        }
        if let Some(name) = name.as_ref().map(|name| &name.name)
            && let Some(why) = taken_by(name)
        {
            let hint = format!(
                "choose another name, such as \"{name}-model\"; the name of a `remote` may stay the same"
            );
            self.hinted(key.span(), format!("no model can be named \"{name}\": {why}"), hint);
        }
        name
    }

    pub(super) fn check_name(&mut self, what: &str, key: &Spanned<String>) {
        if !is_name(key.get_ref()) {
            let message = format!("\"{}\" is not a name: [{what}s] cannot have it", key.get_ref());
            self.hinted(key.span(), message, format!("use {NAME_FORM}"));
        }
    }
}
