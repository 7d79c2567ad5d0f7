//! A plan: everything that a policy is made of, checked.

use super::executor_plan::{ExecutorPlan, base};
use super::jobs_plan::JobsPlan;
use super::model_plan::ModelPlan;
use super::pipeline_plan::PipelinePlan;
use super::plugin_plan::PluginPlan;
use super::routing_plan::RoutingPlan;
use super::store_plan::StorePlan;
use super::tenants_plan::TenantsPlan;
use super::webhooks_plan::WebhooksPlan;
use crate::policy::description::Description;
use crate::policy::manifest;
use crate::policy::model_name::ModelName;
use crate::policy::overlay::Overlay;
use crate::policy::settings::{ReloadSettings, Settings};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Plan {
    pub path: PathBuf,
    /// The manifest as it was read. The file may have changed since.
    pub text: Arc<str>,
    pub server: manifest::Server,
    pub settings: Settings,
    pub reload: ReloadSettings,
    pub jobs: JobsPlan,
    /// `None` if jobs can have no webhooks.
    pub webhooks: Option<WebhooksPlan>,
    /// Like `server`, read at start only.
    pub job_store: StorePlan,
    /// Every `inner` exists, and none leads back to itself.
    pub executors: BTreeMap<Arc<str>, ExecutorPlan>,
    pub plugins: BTreeMap<Arc<str>, PluginPlan>,
    pub models: BTreeMap<ModelName, ModelPlan>,
    pub routing: BTreeMap<Arc<str>, RoutingPlan>,
    pub pipelines: BTreeMap<Arc<str>, PipelinePlan>,
    pub tenants: TenantsPlan,
    /// The changes that were applied to the manifest before it was planned.
    pub overlay: Overlay,
    pub description: Description,
    /// Identifies everything that is served and how: plans with equal digests behave the same.
    pub digest: String,
    /// The digest of what the files say, without the overlay.
    pub written: String,
}

impl Plan {
    /// Returns the executor that runs the models of this executor in the end: the executor itself,
    /// or the last of its inner ones.
    pub fn base(&self, executor: &str) -> (&Arc<str>, &ExecutorPlan) {
        base(&self.executors, executor).expect("invariant: a plan names what it has")
    }

    /// Whether a reload from one plan to the other has nothing to do.
    pub(in crate::policy) fn is_unchanged(&self, other: &Plan) -> bool {
        let Plan {
            path: _,
            text: _,
            // These are read at start only: a reload reports their changes and applies none of
            // them.
            server: _,
            job_store: _,
            settings: _,
            reload,
            // The digest covers these, because the description contains them.
            jobs: _,
            webhooks: _,
            executors: _,
            plugins: _,
            models: _,
            routing: _,
            pipelines: _,
            tenants: _,
            description: _,
            overlay,
            digest,
            written: _,
        } = self;
        (digest, reload, overlay) == (&other.digest, &other.reload, &other.overlay)
    }

    /// Removes a model, and records it as unloaded. The caller must describe the plan again.
    pub(in crate::policy) fn unload(&mut self, model: &str) {
        let models = std::mem::take(&mut self.models);
        let (unloaded, kept) = models.into_iter().partition(|(name, _)| *name.name == *model);
        let unloaded: BTreeMap<ModelName, ModelPlan> = unloaded;
        self.models = kept;
        self.routing.remove(model);
        self.overlay.unload(model, unloaded.keys().map(|name| name.version.to_string()).collect());
    }
}
