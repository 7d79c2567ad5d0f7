//! Describes a plan: every attribute that decides what is served, and a digest of them all.
//!
//! The digest decides whether a reload finds anything new. Each struct is therefore destructured in
//! full: a new field does not compile until it is described or left out on purpose.

use super::description::{CONFIG, Description};
use super::files::hex_digest;
use super::plan::{
    CheckPlan, ExecutorPlan, ModelPlan, Plan, PluginPlan, RoutingPlan, SourcePlan, StickyBy, TenantPlan,
    TenantsPlan, TlsPlan, WebhooksPlan, described_limits,
};
use crate::config::{Instances, PluginLimits, SharedLimits};
use crate::executor::{Batching, CustomConfig, PoolConfig, SessionConfig, TritonConfig};
use crate::tenants::TenantLimits;
use std::collections::BTreeMap;

/// Attributes and their values.
type Entry = BTreeMap<String, String>;

/// Fills in the description and the digest of a plan whose other fields are complete.
pub(super) fn describe(plan: &mut Plan) {
    plan.description = description(plan);
    let described = serde_json::to_vec(&plan.description).expect("invariant: maps of strings");
    plan.digest = hex_digest(&described)[..16].to_owned();
}

fn description(plan: &Plan) -> Description {
    let Plan {
        jobs,
        webhooks,
        executors,
        plugins,
        models,
        routing,
        pipelines,
        tenants,
        // These do not decide what is served, or are compared by themselves (`Plan::is_unchanged`).
        path: _,
        text: _,
        server: _,
        job_store: _,
        settings: _,
        reload: _,
        overlay: _,
        description: _,
        digest: _,
        written: _,
    } = plan;
    let mut description = Description::new();
    let mut entry = owned(jobs.entries());
    entry.extend(webhooks.iter().flat_map(WebhooksPlan::described));
    description.insert("jobs".into(), entry);
    for (name, plan) in executors {
        description.insert(format!("executor \"{name}\""), executor(plan));
    }
    for (name, plan) in plugins {
        description.insert(format!("plugin \"{name}\""), plugin(name, plan));
    }
    for (name, plan) in models {
        description.insert(format!("model \"{name}\""), model(plan));
    }
    for (name, pipeline) in pipelines {
        description.insert(format!("pipeline \"{name}\""), pipeline.graph.entries());
    }
    for (name, plan) in routing {
        let RoutingPlan { weights, by } = plan;
        let weights =
            weights.iter().map(|(version, weight)| (format!("weight.{version}"), weight.to_string()));
        let mut entry: Entry = weights.collect();
        let by = match by {
            StickyBy::RequestId => "request-id".to_owned(),
            StickyBy::Header(header) => format!("header:{header}"),
        };
        entry.insert("by".into(), by);
        description.insert(format!("routing \"{name}\""), entry);
    }
    let TenantsPlan { named, others } = tenants;
    for (name, TenantPlan { callers, limits }) in named {
        let mut entry = owned(described_limits(limits));
        entry.insert("callers".into(), callers.join(" "));
        description.insert(format!("tenant \"{name}\""), entry);
    }
    if *others != TenantLimits::default() {
        description.insert("tenant \"*\"".into(), owned(described_limits(others)));
    }
    description
}

fn executor(plan: &ExecutorPlan) -> Entry {
    match plan {
        ExecutorPlan::Pool { kind, pool, sessions } => {
            let PoolConfig { workers, queue } = pool;
            let SessionConfig { device, sessions, intra_threads } = sessions;
            owned([
                ("kind", kind.as_str().to_owned()),
                ("workers", workers.to_string()),
                ("queue", queue.to_string()),
                ("device", device.to_string()),
                ("sessions", sessions.to_string()),
                ("intra_threads", intra_threads.to_string()),
            ])
        }
        ExecutorPlan::Pipeline { pool } => {
            let PoolConfig { workers, queue } = pool;
            owned([
                ("kind", "pipeline".to_owned()),
                ("workers", workers.to_string()),
                ("queue", queue.to_string()),
            ])
        }
        ExecutorPlan::Triton { config, tls } => triton(config, tls.as_deref()),
        ExecutorPlan::Custom { config, plugin, inner } => {
            let CustomConfig { workers, threads, on_failure } = config;
            owned([
                ("kind", "custom".to_owned()),
                ("plugin", plugin.to_string()),
                ("inner", inner.to_string()),
                ("workers", workers.to_string()),
                ("threads", threads.to_string()),
                ("on_failure", on_failure.as_str().to_owned()),
            ])
        }
    }
}

fn triton(config: &TritonConfig, tls: Option<&TlsPlan>) -> Entry {
    let TritonConfig { url, workers, threads, channels, connect_timeout, keepalive, message_bytes_max } =
        config;
    let keepalive = keepalive.map_or_else(|| "none".to_owned(), |silence| silence.as_millis().to_string());
    let mut entry = owned([
        ("kind", "triton".to_owned()),
        ("url", url.clone()),
        ("workers", workers.to_string()),
        ("threads", threads.to_string()),
        ("channels", channels.to_string()),
        ("connect_timeout_ms", connect_timeout.as_millis().to_string()),
        ("keepalive_ms", keepalive),
        ("max_message_mb", (message_bytes_max >> 20).to_string()),
    ]);
    let Some(TlsPlan { ca, identity, domain }) = tls else { return entry };
    entry.extend(ca.as_ref().map(|file| ("tls.ca".into(), file.sha256.clone())));
    if let Some((certificate, key)) = identity {
        entry.insert("tls.cert".into(), certificate.sha256.clone());
        entry.insert("tls.key".into(), key.sha256.clone());
    }
    entry.extend(domain.as_ref().map(|domain| ("tls.domain".into(), domain.clone())));
    entry
}

fn plugin(name: &str, plan: &PluginPlan) -> Entry {
    // The roles follow from the models and executors that use the plugin.
    let PluginPlan { file, limits, config, assets, http, roles: _ } = plan;
    let PluginLimits {
        instances,
        memory_bytes,
        timeout,
        result_bytes,
        handles,
        held_bytes,
        held_total_bytes,
        log_bytes,
        state_bytes,
        calls_max,
        shared,
        // These bound the compilation only, not what is served.
        compile: _,
    } = limits;
    let instances = match instances {
        None => "by role",
        Some(Instances::Fresh) => "fresh",
        Some(Instances::Reused) => "reused",
        Some(Instances::Shared) => "shared",
    };
    let mut entry = owned([
        ("file", file.sha256.clone()),
        ("instances", instances.to_owned()),
        ("memory_mb", (memory_bytes >> 20).to_string()),
        ("timeout_ms", timeout.as_millis().to_string()),
        ("result_mb", (result_bytes >> 20).to_string()),
        ("held_mb", (held_bytes >> 20).to_string()),
        ("held_total_mb", (held_total_bytes >> 20).to_string()),
        ("handles", handles.to_string()),
        ("log_kb", (log_bytes >> 10).to_string()),
        ("state_kb", (state_bytes >> 10).to_string()),
        ("calls_max", calls_max.to_string()),
    ]);
    if *shared != SharedLimits::default() {
        let SharedLimits { replicas, in_flight, turn, grace, drain } = shared;
        entry.extend(owned([
            ("replicas", replicas.to_string()),
            ("max_in_flight", in_flight.to_string()),
            ("turn_ms", turn.as_millis().to_string()),
            ("grace_ms", grace.as_millis().to_string()),
        ]));
        entry.extend(drain.map(|drain| ("drain_ms".to_owned(), drain.as_millis().to_string())));
    }
    entry.extend(config.digests(name).map(|(key, digest)| (format!("{CONFIG}{key}"), digest)));
    entry.extend(assets.iter().map(|(key, file)| (format!("assets.{key}"), file.sha256.clone())));
    entry.extend(http.iter().flat_map(|http| http.described()));
    entry
}

fn model(plan: &ModelPlan) -> Entry {
    let ModelPlan { source, executor, transformer, timeout, batching, labels, idempotent, checks } = plan;
    let mut entry = owned([("executor", executor.to_string())]);
    match source {
        SourcePlan::Onnx { file, external } => {
            entry.insert("file".into(), file.sha256.clone());
            for data in external {
                let name = data.beside(file).to_string_lossy();
                entry.insert(format!("external.{name}"), data.sha256.clone());
            }
        }
        SourcePlan::Plugin(plugin) => drop(entry.insert("plugin".into(), plugin.to_string())),
        SourcePlan::Pipeline(pipeline) => drop(entry.insert("pipeline".into(), pipeline.to_string())),
        SourcePlan::Remote { name, version, reference } => {
            let version = version.as_deref().unwrap_or("the only one");
            entry.insert("remote".into(), format!("{name}, version {version}"));
            entry.extend(reference.as_ref().map(|(file, _)| ("file".into(), file.sha256.clone())));
        }
    }
    entry.extend(timeout.map(|timeout| ("timeout_ms".into(), timeout.as_millis().to_string())));
    entry.extend(transformer.as_ref().map(|name| ("transformer".into(), name.to_string())));
    if *idempotent {
        entry.insert("idempotent".into(), "true".into());
    }
    if let Some(Batching { max_size, max_delay }) = batching {
        entry.insert("max_batch_size".into(), max_size.to_string());
        entry.insert("max_queue_delay_us".into(), max_delay.as_micros().to_string());
    }
    for (output, file) in labels {
        entry.insert(format!("labels.{output}"), file.sha256.clone());
    }
    for (index, check) in checks.iter().enumerate() {
        let CheckPlan { file, tolerance } = check;
        entry.insert(format!("checks.{index}"), format!("{} within {tolerance}", file.sha256));
    }
    entry
}

fn owned<'a>(entries: impl IntoIterator<Item = (&'a str, String)>) -> Entry {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
