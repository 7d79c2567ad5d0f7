//! `/admin/policy`: the live policy, its executors and the last reload.

use super::state::Admin;
use super::status::executor_status;
use crate::plugin::{DrainTimeout, ReplicaStatus};
use crate::timestamp::seconds;
use serde_json::{Value, json};

pub(super) fn policy(admin: &Admin) -> Value {
    let report = admin.public.reloader.report();
    let policy = admin.public.router.policy();
    let executors: serde_json::Map<String, Value> = policy
        .content
        .executors
        .iter()
        .map(|(name, executor)| (name.to_string(), executor_status(&**executor)))
        .collect();
    let routes: serde_json::Map<String, Value> = policy
        .content
        .models()
        .flat_map(|(_, model)| model.versions.values())
        .map(|route| (route.name.to_string(), route.executor.name().into()))
        .collect();
    let mut value = serde_json::to_value(&report).expect("invariant: a report has string keys");
    value["executors"] = executors.into();
    value["routes"] = routes.into();
    let plugins: serde_json::Map<String, Value> = policy
        .content
        .shared_plugins()
        .map(|plugin| {
            let replicas: Vec<Value> = plugin.replicas().map(replica).collect();
            (plugin.name().to_string(), json!({"replicas": replicas}))
        })
        .collect();
    value["plugins"] = plugins.into();
    value["undrained"] = drain_timeouts(admin);
    value
}

/// Lists the calls that were ended because they outlived the drain of a replaced plugin.
fn drain_timeouts(admin: &Admin) -> Value {
    let entry = |ended: &DrainTimeout| json!({"plugin": &*ended.plugin, "at": seconds(ended.at), "calls": ended.calls, "requests": ended.requests});
    admin.engine.drain_timeouts().list().iter().map(entry).collect()
}

fn replica(status: ReplicaStatus) -> Value {
    let ReplicaStatus { state, in_flight, lost, reason } = status;
    json!({"state": state, "in_flight": in_flight, "lost": lost, "reason": reason})
}
