//! Compares routes, so that a reload keeps what has not changed.
//!
//! One comparison names every field of a route, so that a new field cannot be forgotten.

use crate::executor::{Callable, CustomExecutor, PipelineModel, PluginCallable, StreamingCallable};
use crate::policy::route::Route;
use std::sync::Arc;

/// The parts in which two routes are the same.
struct Comparison {
    /// Calls of either route compute the same.
    result: bool,
    executor: bool,
    timeout: bool,
    batching: bool,
    labels: bool,
}

/// Whether calls of either compute the same. An executor makes callables of its own for a plugin
/// that a reload has kept.
fn are_same(one: &Arc<dyn Callable>, other: &Arc<dyn Callable>) -> bool {
    Arc::ptr_eq(one, other)
        || PluginCallable::are_same(&**one, &**other)
        || StreamingCallable::are_same(&**one, &**other)
}

impl Route {
    fn compare(&self, other: &Route) -> Comparison {
        let Route {
            name: _,
            executor,
            callable,
            transformer,
            timeout,
            batching,
            labels,
            metrics: _,
            counters: _,
            evidence: _,
            statistics: _,
            usage: _,
        } = self;
        let same_executor = Arc::ptr_eq(executor, &other.executor);
        let result = if let (Some(ours), Some(theirs)) =
            (PipelineModel::of(&**callable), PipelineModel::of(&*other.callable))
        {
            transformer.is_none() == other.transformer.is_none() && ours.is_same(theirs)
        } else {
            let same_transformer = match (transformer, &other.transformer) {
                (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
                (None, None) => true,
                _ => false,
            };
            // A plugin in the executor may answer for the model.
            let no_plugin = !self.is_behind_plugin() && !other.is_behind_plugin();
            same_transformer && (same_executor || no_plugin) && are_same(callable, &other.callable)
        };
        Comparison {
            result,
            executor: same_executor,
            timeout: *timeout == other.timeout,
            batching: *batching == other.batching,
            labels: *labels == other.labels,
        }
    }

    pub(in crate::policy) fn computes_the_same(&self, other: &Route) -> bool {
        self.compare(other).result
    }

    /// Whether the guard has nothing to compare between the two routes.
    pub(in crate::policy) fn runs_the_same(&self, other: &Route) -> bool {
        let Comparison { result, executor, timeout, batching, labels } = self.compare(other);
        result && executor && timeout && batching && labels
    }

    /// Whether a plugin in its executor decides how the model is called.
    pub(in crate::policy) fn is_behind_plugin(&self) -> bool {
        self.executor.kind() == CustomExecutor::KIND
    }

    /// Whether this route continues the statistics of `other`.
    pub(super) fn continues_statistics_of(&self, other: &Route) -> bool {
        let Comparison { result, executor, timeout: _, batching, labels: _ } = self.compare(other);
        result && executor && batching
    }
}
