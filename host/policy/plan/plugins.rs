//! Checks `[plugins]`: files, limits and assets.

use super::bounds::MEMORY_MB_MAX;
use super::planner::Planner;
use super::plugin_plan::PluginPlan;
use crate::config::{CompileLimits, Instances, PluginLimits, SharedLimits};
use crate::input_file::FileKind;
use crate::policy::manifest::{self, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

impl Planner<'_> {
    pub(super) fn plugins(&mut self, manifest: &Manifest) -> BTreeMap<Arc<str>, PluginPlan> {
        let mut plans = BTreeMap::new();
        for (key, table) in &manifest.plugins {
            let name = key.get_ref().as_str();
            self.check_name("plugin", key);
            let what = format!("plugin \"{name}\"");
            let limits = self.plugin_limits(&what, table);
            let file = self.file(&what, &table.path, FileKind::Plugin);
            let assets: Vec<_> = table
                .assets
                .iter()
                .filter_map(|(asset, path)| {
                    let what = format!("{what}: asset \"{asset}\"");
                    Some((asset.clone(), self.file(&what, path, FileKind::Asset)?))
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
        let instances = match table.instances.as_ref().map(|value| (value.get_ref().as_str(), value)) {
            None => default.instances,
            Some(("fresh", _)) => Some(Instances::Fresh),
            Some(("reused", _)) => Some(Instances::Reused),
            Some(("shared", _)) => Some(Instances::Shared),
            Some((other, value)) => {
                let message = format!("{what}: instances = \"{other}\" is not known");
                self.hinted(value.span(), message, "write \"fresh\", \"reused\" or \"shared\"");
                default.instances
            }
        };
        let table_name = format!("{what}: ");
        let of = table_name.as_str();
        let shared = &default.shared;
        let held_mb =
            self.number(of, "held_mb", table.held_mb.as_ref(), default.held_bytes >> 20, 1..=MEMORY_MB_MAX);
        let held_total_mb = self.number(
            of,
            "held_total_mb",
            table.held_total_mb.as_ref(),
            (default.held_total_bytes >> 20).max(held_mb),
            1..=1 << 20,
        );
        if let Some(total) = table.held_total_mb.as_ref().filter(|_| held_total_mb < held_mb) {
            let message = format!(
                "{what}: held_total_mb = {held_total_mb} is less than held_mb = {held_mb}: the limit of \
                 all instances must be at least that of one"
            );
            self.fault(total.span(), message);
        }
        PluginLimits {
            instances,
            memory_bytes: self.number(
                of,
                "memory_mb",
                table.memory_mb.as_ref(),
                default.memory_bytes >> 20,
                1..=MEMORY_MB_MAX,
            ) << 20,
            timeout: self.ms(of, "timeout_ms", table.timeout_ms.as_ref()).unwrap_or(default.timeout),
            result_bytes: self.number(
                of,
                "result_mb",
                table.result_mb.as_ref(),
                default.result_bytes >> 20,
                0..=MEMORY_MB_MAX,
            ) << 20,
            handles: self.number(of, "handles", table.handles.as_ref(), default.handles, 0..=1 << 20),
            held_bytes: held_mb << 20,
            held_total_bytes: held_total_mb << 20,
            log_bytes: self.number(
                of,
                "log_kb",
                table.log_kb.as_ref(),
                default.log_bytes >> 10,
                0..=64 << 10,
            ) << 10,
            state_bytes: self.number(
                of,
                "state_kb",
                table.state_kb.as_ref(),
                default.state_bytes >> 10,
                0..=MEMORY_MB_MAX << 10,
            ) << 10,
            calls_max: self
                .number(of, "calls_max", table.calls_max.as_ref(), default.calls_max, 0..=1_000_000_000_000)
                .max(1),
            shared: SharedLimits {
                replicas: self.number(of, "replicas", table.replicas.as_ref(), shared.replicas, 1..=128),
                in_flight: self.number(
                    of,
                    "max_in_flight",
                    table.max_in_flight.as_ref(),
                    shared.in_flight,
                    1..=1 << 20,
                ),
                turn: self.ms(of, "turn_ms", table.turn_ms.as_ref()).unwrap_or(shared.turn),
                grace: self.ms_or_none(of, "grace_ms", table.grace_ms.as_ref()).unwrap_or(shared.grace),
                drain: self.ms_or_none(of, "drain_ms", table.drain_ms.as_ref()),
            },
            compile: self.compile_limits(of, table),
        }
    }

    fn compile_limits(&mut self, of: &str, table: &manifest::Plugin) -> CompileLimits {
        let CompileLimits { cpu, memory_bytes } = CompileLimits::default();
        let cpu_s = self.number(of, "compile_s", table.compile_s.as_ref(), cpu.as_secs(), 1..=3600);
        // With less, not even the smallest plugin compiles.
        let mb = self.number(of, "compile_mb", table.compile_mb.as_ref(), memory_bytes >> 20, 128..=65_536);
        CompileLimits { cpu: Duration::from_secs(cpu_s), memory_bytes: mb << 20 }
    }
}
