//! What `/metrics` shows: only executors and plugins of policies that serve.

use super::families::Families;
use super::plugins::INSTANCES;
use prometheus::proto::MetricFamily;
use std::collections::BTreeSet;

/// What the serving policies contain. Metrics of other executors and plugins are hidden, and
/// continue where they were if those return before the last policy with them is freed.
#[derive(Default)]
pub struct ExportedModels<'a> {
    pub executors: BTreeSet<&'a str>,
    /// If two have the same name, the first one is used.
    pub plugins: Vec<&'a Families>,
}

impl ExportedModels<'_> {
    pub(super) fn keep(&self, family: &mut MetricFamily) {
        let instances = family.name() == INSTANCES;
        family.mut_metric().retain(|metric| {
            // Shown while any instance is alive.
            (instances && metric.get_gauge().get_value() > 0.0)
                || metric.get_label().iter().all(|label| match label.name() {
                    "executor" => self.executors.contains(label.value()),
                    "plugin" => self.plugins.iter().any(|plugin| &**plugin.plugin() == label.value()),
                    _ => true,
                })
        });
    }
}
