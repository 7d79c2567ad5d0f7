//! `/admin/status`: what serves now and how it does, in one small document.

use super::state::Admin;
use crate::executor::{Executor, PipelineModel};
use crate::metrics::{LatencyTotals, Metrics, latency_totals};
use crate::policy::Route;
use crate::policy::plan::{Plan, PluginPlan, SourcePlan};
use crate::policy::statistics::Totals;
use crate::timestamp::seconds;
use serde_json::{Value, json};
use std::time::SystemTime;

pub(super) fn status(admin: &Admin) -> Value {
    let public = &admin.public;
    let (policy, report) = (public.router.policy(), public.reloader.summary());
    let content = &policy.content;
    let routes = content.models().flat_map(|(_, model)| model.versions.values());
    let models: Vec<Value> = routes.map(|route| model(route, &content.plan)).collect();
    let executors: Vec<Value> = content.executors.iter().map(|(name, of)| executor(name, &**of)).collect();
    let plugins: Vec<Value> =
        content.plan.plugins.iter().map(|(name, plan)| plugin(name, plan, &public.metrics)).collect();
    json!({
        "generation": policy.generation,
        "at": seconds(SystemTime::now()),
        "started": seconds(admin.started),
        "stale": report.stale_reason.is_some(),
        "stale_reason": report.stale_reason,
        "access_stale": public.metrics.access.stale.get() != 0,
        "rollout": report.rollout.map(|progress| {
            json!({"stage": progress.stage, "generation": progress.generation, "share": progress.share})
        }),
        "executors": executors,
        "latency_bounds_ms": LatencyTotals::bounds_ms(),
        "models": models,
        "plugins": plugins,
    })
}

fn executor(name: &str, executor: &dyn Executor) -> Value {
    let mut entry = executor_status(executor);
    entry["name"] = name.into();
    entry
}

/// Returns the kind and the current load of an executor.
pub(super) fn executor_status(executor: &dyn Executor) -> Value {
    let status = executor.status();
    json!({
        "kind": executor.kind(),
        "workers": status.workers,
        "busy": status.busy,
        "overdue": status.overdue,
        "inflight": status.inflight,
        "queue_length": status.queue_length,
        "queue_capacity": status.queue_capacity,
        "saturation": status.saturation(),
    })
}

fn model(route: &Route, plan: &Plan) -> Value {
    let Totals { success, fail, .. } = route.statistics.totals();
    let latency = latency_totals(&route.metrics.duration);
    let available = route.check_available().and_then(|()| route.callable.ready());
    let reason = available.err().map(|error| error.message().to_owned());
    let plugin = plan.models.get(&route.name).and_then(|model| match &model.source {
        SourcePlan::Plugin(name) => Some(&**name),
        _ => None,
    });
    let pipeline = PipelineModel::of(&*route.callable).map(|pipeline| &*pipeline.program().graph.name);
    json!({
        "model": &*route.name.name,
        "version": &*route.name.version,
        "executor": route.executor.name(),
        "transformer": route.transformer.as_ref().map(|transformer| &**transformer.name()),
        "plugin": plugin,
        "pipeline": pipeline,
        "streaming": route.is_streaming(),
        "ready": reason.is_none(),
        "reason": reason,
        "requests": success.count + fail.count,
        "errors": fail.count,
        "latency": {
            "counts": latency.counts,
            "p50_ms": latency.percentile_ms(0.5),
            "p99_ms": latency.percentile_ms(0.99),
        },
    })
}

fn plugin(name: &str, plan: &PluginPlan, metrics: &Metrics) -> Value {
    let label = [name];
    let of = &metrics.plugins;
    let roles: Vec<String> = plan.roles.iter().map(ToString::to_string).collect();
    json!({
        "name": name,
        "role": roles.join(", "),
        "instances": of.instances.with_label_values(&label).get(),
        "calls": of.calls.with_label_values(&label).get(),
        "traps": of.traps.with_label_values(&label).get(),
        "memory_bytes": of.memory_bytes.with_label_values(&label).get(),
        "memory_largest_bytes": of.memory_largest_bytes.with_label_values(&label).get(),
        "held_bytes": of.held_bytes.with_label_values(&label).get(),
        "state_bytes": of.state_bytes.with_label_values(&label).get(),
    })
}
