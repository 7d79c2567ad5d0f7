//! Checks `[routing]`: the version that a request without one gets.

use super::model_plan::ModelPlan;
use super::planner::Planner;
use super::routing_plan::RoutingPlan;
use crate::policy::manifest::{Manifest, Spanned};
use crate::policy::model_name::{ModelName, parse_model_name};
use crate::policy::sticky_by::StickyBy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Planner<'_> {
    pub(super) fn routing(
        &mut self,
        manifest: &Manifest,
        models: &BTreeMap<ModelName, ModelPlan>,
    ) -> BTreeMap<Arc<str>, RoutingPlan> {
        let mut plans = BTreeMap::new();
        let mut versions: BTreeMap<&str, Vec<&Arc<str>>> = BTreeMap::new();
        for name in models.keys() {
            versions.entry(&*name.name).or_default().push(&name.version);
        }
        for (key, table) in &manifest.routing {
            let name = key.get_ref().as_str();
            let Some(known) = versions.get(name) else {
                let hint = self.did_you_mean(name, versions.keys().copied());
                self.fault(key.span(), format!("[routing.{name}]: no model \"{name}\"{hint}"));
                continue;
            };
            let weights = table.weights.get_ref();
            let names: BTreeSet<&str> = known.iter().map(|known| &***known).collect();
            for version in weights.keys().filter(|version| !names.contains(version.as_str())) {
                let hint = self.did_you_mean(version, known.iter().map(|version| &***version));
                let message =
                    format!("[routing.{name}]: model \"{name}\" has no version \"{version}\"{hint}");
                self.fault(table.weights.span(), message);
            }
            if weights.values().all(|weight| *weight == 0) {
                self.fault(table.weights.span(), format!("[routing.{name}]: all weights are 0"));
            }
            let Some(by) = self.sticky_by(name, table.by.as_ref()) else { continue };
            let weights =
                weights.iter().map(|(version, weight)| (version.as_str().into(), *weight)).collect();
            plans.insert(name.into(), RoutingPlan { weights, by });
        }
        let with_rule: BTreeSet<&str> = manifest.routing.keys().map(|key| key.get_ref().as_str()).collect();
        for (name, versions) in versions.into_iter().filter(|(_, versions)| versions.len() > 1) {
            if !with_rule.contains(name) {
                self.ambiguous(manifest, name, &versions);
            }
        }
        plans
    }

    /// Reports several versions without a rule: "latest" is never implied. The hint shows the lines
    /// to add.
    fn ambiguous(&mut self, manifest: &Manifest, name: &str, versions: &[&Arc<str>]) {
        if self.has_many_faults() {
            // Finding its place searches all models, which is only worth it for faults that are
            // shown.
            self.more += 1;
            return;
        }
        let first = versions.first().map(ToString::to_string).unwrap_or_default();
        let weights: Vec<String> = versions
            .iter()
            .map(|version| format!("{} = {}", toml_key(version), if ***version == *first { 100 } else { 0 }))
            .collect();
        let hint = format!("add\n[routing.{}]\nweights = {{ {} }}", toml_key(name), weights.join(", "));
        let list: Vec<&str> = versions.iter().map(|version| &***version).collect();
        let message = format!(
            "model \"{name}\" has the versions {} and no rule says which one a request without a version gets",
            list.join(", ")
        );
        let last = manifest
            .models
            .keys()
            .rfind(|key| parse_model_name(key.get_ref()).is_some_and(|parsed| *parsed.name == *name));
        self.hinted(last.map(Spanned::span).unwrap_or_default(), message, hint);
    }

    fn sticky_by(&mut self, name: &str, by: Option<&Spanned<String>>) -> Option<StickyBy> {
        let Some(by) = by else { return Some(StickyBy::RequestId) };
        let parsed = StickyBy::parse(by.get_ref());
        if parsed.is_none() {
            let message = format!("[routing.{name}]: by = \"{}\" is not known", by.get_ref());
            self.hinted(by.span(), message, "write \"request-id\" or \"header:<name>\"");
        }
        parsed
    }
}

fn toml_key(key: &str) -> String {
    let bare = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if bare { key.to_owned() } else { format!("\"{key}\"") }
}
