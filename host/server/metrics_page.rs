//! The page of metrics, in the text format of Prometheus. The public and the admin listener serve
//! it.

use super::http::{self, Reply};
use crate::metrics::{ExportedModels, Metrics};
use crate::router::Router;

/// Returns all metrics. Gauges are read now.
pub(super) fn reply(metrics: &Metrics, router: &Router) -> Reply {
    let contents = router.contents();
    let mut served = ExportedModels::default();
    for content in &contents {
        served.plugins.extend(content.families());
        // If two contents have an executor of the same name, the first one's gauges are exported.
        let new = content.executors.iter().filter(|(name, _)| !served.executors.contains(&***name));
        let new: Vec<_> = new.collect();
        for (name, executor) in new {
            crate::executor::export_gauges(&**executor, metrics);
            served.executors.insert(name);
        }
    }
    let text = metrics.render(&served);
    http::metrics(text)
}
