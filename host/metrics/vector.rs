//! Metrics with labels, whose series can be removed.

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::Metric;
use std::collections::HashMap;

/// Metrics that differ in their labels.
pub(super) trait Vector: Send + Sync {
    fn remove_where(&self, is_unused: &dyn Fn(&Metric) -> bool);
}

impl<T: MetricVecBuilder> Vector for MetricVec<T> {
    fn remove_where(&self, is_unused: &dyn Fn(&Metric) -> bool) {
        for family in self.collect() {
            for metric in family.get_metric().iter().filter(|metric| is_unused(metric)) {
                let labels = metric.get_label().iter().map(|label| (label.name(), label.value()));
                // It exists, because nothing else removes series.
                drop(self.remove(&labels.collect::<HashMap<_, _>>()));
            }
        }
    }
}
