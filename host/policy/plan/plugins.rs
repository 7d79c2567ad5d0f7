//! `[plugins]`: files, limits, assets.

use super::{Planner, PluginPlan};
use crate::config::{Instances, PluginLimits, SharedLimits};
use crate::policy::manifest::{self, Manifest, Spanned};
use crate::policy::settings::milliseconds;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Planner<'_> {
    pub(super) fn plugins(&mut self, manifest: &Manifest) -> BTreeMap<Arc<str>, PluginPlan> {
        let mut plans = BTreeMap::new();
        for (key, table) in &manifest.plugins {
            let name = key.get_ref().as_str();
            self.check_name("plugin", key);
            let what = format!("plugin \"{name}\"");
            let limits = self.plugin_limits(&what, table);
            let file = self.file(&what, &table.path);
            let assets: Vec<_> = table
                .assets
                .iter()
                .filter_map(|(asset, path)| {
                    Some((asset.clone(), self.file(&format!("{what}: asset \"{asset}\""), path)?))
                })
                .collect();
            let http = table.http.as_ref().and_then(|http| self.http(&what, http));
            let Some(file) = file else {
                self.unreadable.insert(name.to_owned());
                continue;
            };
            self.pinned(&what, &file, table.sha256.as_ref());
            let plan = PluginPlan {
                file,
                limits,
                config: table.config.clone(),
                assets: assets.into_iter().collect(),
                http: http.map(Box::new),
                roles: BTreeSet::new(),
            };
            plans.insert(name.into(), plan);
        }
        plans
    }

    fn plugin_limits(&mut self, what: &str, table: &manifest::Plugin) -> PluginLimits {
        let default = PluginLimits::default();
        let instances = match table.instances.as_ref().map(|word| (word.get_ref().as_str(), word)) {
            None => default.instances,
            Some(("fresh", _)) => Some(Instances::Fresh),
            Some(("reused", _)) => Some(Instances::Reused),
            Some(("shared", _)) => Some(Instances::Shared),
            Some((other, word)) => {
                let message = format!("{what}: instances = \"{other}\" is not known");
                self.hinted(word.span(), message, "write \"fresh\", \"reused\" or \"shared\"");
                default.instances
            }
        };
        for (key, zero) in [
            ("memory_mb", table.memory_mb.as_ref().filter(|mb| *mb.get_ref() == 0).map(Spanned::span)),
            ("timeout_ms", table.timeout_ms.as_ref().filter(|ms| *ms.get_ref() == 0).map(Spanned::span)),
            ("replicas", table.replicas.as_ref().filter(|count| *count.get_ref() == 0).map(Spanned::span)),
            ("max_in_flight", table.max_in_flight.as_ref().filter(|n| *n.get_ref() == 0).map(Spanned::span)),
            ("turn_ms", table.turn_ms.as_ref().filter(|ms| *ms.get_ref() == 0).map(Spanned::span)),
        ] {
            if let Some(span) = zero {
                self.fault(span, format!("{what}: {key} must be at least 1"));
            }
        }
        let mb =
            |value: Option<usize>, default: usize| value.map_or(default, |mb| mb.saturating_mul(1 << 20));
        PluginLimits {
            instances,
            memory_bytes: mb(table.memory_mb.as_ref().map(|mb| *mb.get_ref()), default.memory_bytes),
            timeout: table.timeout_ms.as_ref().map_or(default.timeout, |ms| milliseconds(*ms.get_ref())),
            result_bytes: mb(table.result_mb, default.result_bytes),
            handles: table.handles.unwrap_or(default.handles),
            log_bytes: table.log_kb.map_or(default.log_bytes, |kb| kb.saturating_mul(1 << 10)),
            state_bytes: table.state_kb.map_or(default.state_bytes, |kb| kb.saturating_mul(1 << 10)),
            calls_max: table.calls_max.unwrap_or(default.calls_max).max(1),
            shared: SharedLimits {
                replicas: table.replicas.as_ref().map_or(default.shared.replicas, |count| *count.get_ref()),
                in_flight: table.max_in_flight.as_ref().map_or(default.shared.in_flight, |n| *n.get_ref()),
                turn: table.turn_ms.as_ref().map_or(default.shared.turn, |ms| milliseconds(*ms.get_ref())),
                grace: table.grace_ms.map_or(default.shared.grace, milliseconds),
                drain: table.drain_ms.map(milliseconds),
            },
        }
    }
}
