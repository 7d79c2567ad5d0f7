//! A plan in words: what each thing is, so that two plans can be compared and a person can read why.

use super::plan::{ExecutorPlan, Plan, SourcePlan, StickyBy, TlsPlan};
use crate::config::Instances;
use crate::executor::TritonConfig;
use std::collections::BTreeMap;

/// `model "a:1"` to `executor` to `onnx`.
pub type Description = BTreeMap<String, BTreeMap<String, String>>;

/// Before the keys of a plugin's config. Of their values only digests are known, and changes show not even those.
const CONFIG: &str = "config.";

pub fn describe(plan: &Plan) -> Description {
    let mut description = Description::new();
    description.insert("jobs".into(), owned(plan.jobs.entries()));
    for (name, executor) in &plan.executors {
        let entry = match executor {
            ExecutorPlan::Pool { kind, pool, sessions } => owned([
                ("kind", kind.as_str().to_owned()),
                ("workers", pool.workers.to_string()),
                ("queue", pool.queue.to_string()),
                ("device", sessions.device.to_string()),
                ("sessions", sessions.sessions.to_string()),
                ("intra_threads", sessions.intra_threads.to_string()),
            ]),
            ExecutorPlan::Pipeline { pool } => owned([
                ("kind", "pipeline".to_owned()),
                ("workers", pool.workers.to_string()),
                ("queue", pool.queue.to_string()),
            ]),
            ExecutorPlan::Triton { config, tls } => triton(config, tls.as_deref()),
            ExecutorPlan::Custom { config, plugin, inner } => owned([
                ("kind", "custom".to_owned()),
                ("plugin", plugin.to_string()),
                ("inner", inner.to_string()),
                ("workers", config.workers.to_string()),
                ("threads", config.threads.to_string()),
                ("on_failure", config.on_failure.as_str().to_owned()),
            ]),
        };
        description.insert(format!("executor \"{name}\""), entry);
    }
    for (name, plugin) in &plan.plugins {
        let limits = &plugin.limits;
        let instances = match limits.instances {
            None => "by role",
            Some(Instances::Fresh) => "fresh",
            Some(Instances::Reused) => "reused",
            Some(Instances::Shared) => "shared",
        };
        let mut entry = owned([
            ("file", plugin.file.sha256.clone()),
            ("instances", instances.to_owned()),
            ("memory_mb", (limits.memory_bytes >> 20).to_string()),
            ("timeout_ms", limits.timeout.as_millis().to_string()),
            ("result_mb", (limits.result_bytes >> 20).to_string()),
            ("held_mb", (limits.held_bytes >> 20).to_string()),
            ("held_total_mb", (limits.held_total_bytes >> 20).to_string()),
            ("handles", limits.handles.to_string()),
            ("log_kb", (limits.log_bytes >> 10).to_string()),
            ("state_kb", (limits.state_bytes >> 10).to_string()),
            ("calls_max", limits.calls_max.to_string()),
        ]);
        let shared = crate::config::SharedLimits::default();
        if limits.shared != shared {
            let now = limits.shared;
            entry.extend(owned([
                ("replicas", now.replicas.to_string()),
                ("max_in_flight", now.in_flight.to_string()),
                ("turn_ms", now.turn.as_millis().to_string()),
                ("grace_ms", now.grace.as_millis().to_string()),
            ]));
            let drain = now.drain.map(|drain| ("drain_ms".to_owned(), drain.as_millis().to_string()));
            entry.extend(drain);
        }
        entry.extend(plugin.config.digests(name).map(|(key, digest)| (format!("{CONFIG}{key}"), digest)));
        entry.extend(plugin.assets.iter().map(|(key, file)| (format!("assets.{key}"), file.sha256.clone())));
        entry.extend(plugin.http.iter().flat_map(|http| http.described()));
        description.insert(format!("plugin \"{name}\""), entry);
    }
    for (name, model) in &plan.models {
        let mut entry = owned([("executor", model.executor.to_string())]);
        match &model.source {
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
        let timeout = model.timeout.map(|timeout| timeout.as_millis().to_string());
        let transformer = model.transformer.as_ref().map(|name| name.to_string());
        entry.extend(timeout.map(|ms| ("timeout_ms".into(), ms)));
        entry.extend(transformer.map(|name| ("transformer".into(), name)));
        if model.idempotent {
            entry.insert("idempotent".into(), "true".into());
        }
        if let Some(batching) = model.batching {
            entry.insert("max_batch_size".into(), batching.max_size.to_string());
            entry.insert("max_queue_delay_us".into(), batching.max_delay.as_micros().to_string());
        }
        for (output, file) in &model.labels {
            entry.insert(format!("labels.{output}"), file.sha256.clone());
        }
        for (index, check) in model.checks.iter().enumerate() {
            let value = format!("{} within {}", check.file.sha256, check.tolerance);
            entry.insert(format!("checks.{index}"), value);
        }
        description.insert(format!("model \"{name}\""), entry);
    }
    for (name, pipeline) in &plan.pipelines {
        description.insert(format!("pipeline \"{name}\""), pipeline.graph.entries());
    }
    for (name, routing) in &plan.routing {
        let weights =
            routing.weights.iter().map(|(version, weight)| (format!("weight.{version}"), weight.to_string()));
        let mut entry: BTreeMap<String, String> = weights.collect();
        let by = match &routing.by {
            StickyBy::RequestId => "request-id".to_owned(),
            StickyBy::Header(header) => format!("header:{header}"),
        };
        entry.insert("by".into(), by);
        description.insert(format!("routing \"{name}\""), entry);
    }
    description
}

fn triton(config: &TritonConfig, tls: Option<&TlsPlan>) -> BTreeMap<String, String> {
    let keepalive =
        config.keepalive.map_or_else(|| "none".to_owned(), |silence| silence.as_millis().to_string());
    let mut entry = owned([
        ("kind", "triton".to_owned()),
        ("url", config.url.clone()),
        ("workers", config.workers.to_string()),
        ("threads", config.threads.to_string()),
        ("channels", config.channels.to_string()),
        ("connect_timeout_ms", config.connect_timeout.as_millis().to_string()),
        ("keepalive_ms", keepalive),
        ("max_message_mb", (config.message_bytes_max >> 20).to_string()),
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

fn owned<const N: usize>(entries: [(&str, String); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What changes from `old` to `new`, a line each. None is no change.
pub fn diff(old: &Description, new: &Description) -> Vec<String> {
    let mut lines = Vec::new();
    for (thing, before) in old {
        match new.get(thing) {
            None => lines.push(format!("{thing}: removed")),
            Some(after) => lines.extend(attributes(thing, before, after)),
        }
    }
    let added = new.keys().filter(|thing| !old.contains_key(*thing));
    lines.extend(added.map(|thing| format!("{thing}: added")));
    lines
}

fn attributes(
    thing: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let line = |key: &String| {
        let (old, new) = (before.get(key), after.get(key));
        if key.starts_with(CONFIG) {
            let change = match (old, new) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            };
            return (old != new).then(|| format!("{thing}: {key} {change}"));
        }
        let show = |value: Option<&String>| value.map_or_else(|| "none".to_owned(), |value| short(value));
        (old != new).then(|| format!("{thing}: {key} {} -> {}", show(old), show(new)))
    };
    keys.into_iter().filter_map(line).collect()
}

/// Digests by their first twelve digits.
fn short(value: &str) -> String {
    let is_digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { value[..12].to_owned() } else { value.to_owned() }
}
