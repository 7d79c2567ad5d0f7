//! `hostler check`: a manifest or a plugin, without serving it.

use super::loaded::Loaded;
use super::rights::print_rights;
use crate::access;
use crate::app;
use crate::cancel::Cancel;
use crate::config::{EngineConfig, PluginLimits};
use crate::error::{Error, Result};
use crate::graph;
use crate::input_file::{self, FileKind, FileLimits, Progress};
use crate::metrics::Metrics;
use crate::output;
use crate::plugin::{CONTRACT_VERSION, Engine, Plugin, Role};
use crate::policy::files::{Files, hex_digest};
use crate::policy::plan::{ModelName, Plan};
use crate::server::tls;
use crate::trace_export;
use std::path::Path;
use std::sync::Arc;

/// `hostler check FILE`
pub fn check(
    file: &Path,
    resolve: Option<&str>,
    key_file: Option<&Path>,
    picture: Option<Picture>,
    quick: bool,
) -> Result<bool> {
    if file.extension().is_some_and(|extension| extension == "wasm") {
        return check_plugin(file);
    }
    let files = Files::default();
    let plan = Plan::read(&app::absolute(file)?, &files).map_err(app::unplanned)?;
    tls::check(&plan.settings.tls)?;
    if let Some(rules) = &plan.settings.access_rules {
        access::check(rules)?;
    }
    if let Some(traces) = &plan.settings.traces {
        trace_export::check(traces)?;
    }
    if let Some(key_file) = key_file {
        print_rights(&plan, key_file)?;
    }
    if let Some(model) = resolve {
        output::print_text(describe_route(&plan, model)?);
    }
    for pipeline in plan.pipelines.values() {
        let graph = &pipeline.graph;
        let mut text = match picture {
            None => graph::text(graph),
            Some(Picture::Mermaid) => graph::mermaid(graph),
            Some(Picture::Dot) => graph::dot(graph),
        };
        text.push('\n');
        output::print_text(text);
    }
    plan.unused_by_steps().iter().for_each(output::print);
    if picture.is_some() && !quick {
        drop(Loaded::new(plan, &files)?);
        return Ok(true);
    }
    let summary =
        format!("{} models, {} plugins, digest {}", plan.models.len(), plan.plugins.len(), plan.digest);
    if !quick {
        let loaded = Loaded::new(plan, &files)?;
        drop(loaded);
    }
    output::print(format_args!("{}: ok ({summary})", file.display()));
    Ok(true)
}

/// How the graphs of pipelines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    Mermaid,
    Dot,
}

fn describe_route(plan: &Plan, model: &str) -> Result<String> {
    let (name, version) = match model.split_once(':') {
        Some((name, version)) => (name, Some(version)),
        None => (model, None),
    };
    let line = |name: &ModelName| {
        let model = &plan.models[name];
        let transformer = model.transformer.as_ref().map(|plugin| format!(", transformer {plugin}"));
        let line = format!("{name} -> executor {}{}", model.executor, transformer.unwrap_or_default());
        output::one_line(&line).into_owned() + "\n"
    };
    let versions: Vec<&ModelName> = plan.models.keys().filter(|known| *known.name == *name).collect();
    let wanted = versions.iter().find(|known| version == Some(&known.version));
    match (wanted, version, plan.routing.get(name)) {
        (Some(known), ..) => Ok(line(known)),
        (None, None, Some(routing)) => {
            let total: u64 = routing.weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
            let share = |(version, weight): &(Arc<str>, u32)| {
                let known = ModelName { name: name.into(), version: Arc::clone(version) };
                format!("{:5.1} % {}", f64::from(*weight) * 100.0 / total.max(1) as f64, line(&known))
            };
            Ok(routing.weights.iter().map(share).collect())
        }
        (None, None, None) if versions.len() == 1 => Ok(line(versions[0])),
        _ => {
            let known: Vec<String> = plan.models.keys().map(ToString::to_string).collect();
            let hint = crate::error::did_you_mean(model, known.iter().map(String::as_str));
            Err(Error::not_found(format!("no model \"{model}\"{hint}; models: {}", known.join(", "))))
        }
    }
}

/// Prints what a component is, what it imports, and what a fresh instance costs.
fn check_plugin(file: &Path) -> Result<bool> {
    let wasm = input_file::read(file, FileLimits::default().of(FileKind::Plugin), &Progress::default())
        .map_err(|error| error.context(format!("cannot read {}", file.display())))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::failed(format!("cannot start a runtime: {error}")))?;
    // Few instances exist at once, so little address space is enough.
    let engine = Engine::new(EngineConfig { instances: 16, ..EngineConfig::default() });
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let metrics = Metrics::new();
    let limits = PluginLimits { memory_bytes: engine.memory_bytes_max(), ..PluginLimits::default() };
    let spec = engine.plugin_spec(name.into(), limits, &metrics);
    let plugin = Plugin::load(&engine, spec, &wasm, &metrics, &Cancel::default())?;
    let info = plugin.info();
    output::print(format_args!("{}: {} bytes, sha256 {}", file.display(), wasm.len(), hex_digest(&wasm)));
    output::print(format_args!("contract: hostler:plugin@{CONTRACT_VERSION}"));
    if info.roles.is_empty() {
        output::print(format_args!("roles: none; it exports {}", info.exports.join(", ")));
        output::print(format_args!(
            "a plugin exports hostler:plugin/transformer@{CONTRACT_VERSION}, …/model or …/executor,"
        ));
        output::print(format_args!("or hostler:concurrent/streaming-model@{CONTRACT_VERSION}"));
        return Ok(false);
    }
    let roles: Vec<&str> = info.roles.iter().map(|role: &Role| role.as_str()).collect();
    output::print(format_args!("roles: {}", roles.join(", ")));
    output::print("imports:");
    info.imports.iter().for_each(|import| output::print(format_args!("  {import}")));
    // Like loading a manifest: links each role and reads its metadata.
    for role in &info.roles {
        match role {
            Role::Transformer => drop(runtime.block_on(plugin.transformer(&metrics))?),
            Role::Model => drop(runtime.block_on(plugin.model(&metrics))?),
            Role::Executor => drop(plugin.executor(&metrics)?),
            Role::StreamingModel => {
                // An instance of a streaming model is not created for each call, so its cost is not
                // meaningful.
                drop(runtime.block_on(plugin.streaming_model(&metrics))?);
                return Ok(true);
            }
        }
    }
    // The first instances fill the pool. Requests pay the cost of the later ones.
    runtime.block_on(plugin.fresh_instance_cost(10))?;
    let cost = runtime.block_on(plugin.fresh_instance_cost(200))?;
    output::print(format_args!("fresh instance: {:.1} us", cost.as_secs_f64() * 1e6));
    Ok(true)
}
