//! Triton's extensions that inspect and load models: configuration, statistics, repository. Shared
//! by HTTP and gRPC.
//!
//! What a load does is decided in `policy::reload`; this file only interprets the request.

use super::config::{self, ModelConfig};
use super::phrases::unknown_model;
use super::statistics::{self, ModelStatistics};
use crate::access::{Requester, Verb};
use crate::error::{Error, Result};
use crate::policy::overlay::Overrides;
use crate::policy::reload::{Indexed, State};
use crate::policy::{Policy, Reloader, Route, RouteQuery};
use crate::predict::MemoryBudget;
use crate::predict::walk::built_bytes;
use crate::server::audit::{Actor, Auditor};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Returns the route of a model whose metadata the requester may read.
pub(in crate::server) fn readable<'a>(
    policy: &'a Policy,
    requester: &Requester,
    model: &str,
    version: Option<&str>,
    caller: &RouteQuery<'_>,
) -> Result<&'a Arc<Route>> {
    requester.require(Verb::Read, Some((model, version)))?;
    let route = policy.content.resolve(model, version, caller);
    let route = route.map_err(|error| requester.without_hints(error, model, version));
    let route = route.map_err(|error| unknown_model(error, model, version))?;
    requester.require(Verb::Read, Some((model, Some(&route.name.version))))?;
    Ok(route)
}

/// Returns the configuration of a model; without a version, of the version that a request of this
/// client would run on.
pub(in crate::server) fn model_config(
    policy: &Policy,
    requester: &Requester,
    model: &str,
    version: Option<&str>,
    caller: &RouteQuery<'_>,
) -> Result<ModelConfig> {
    let route = readable(policy, requester, model, version, caller)?;
    Ok(config::config(policy, route))
}

/// Returns the statistics of one version, of all versions of a model, or of all models.
pub(in crate::server) fn model_statistics(
    policy: &Policy,
    requester: &Requester,
    model: Option<&str>,
    version: Option<&str>,
) -> Result<Vec<ModelStatistics>> {
    if let Some(model) = model {
        requester.require(Verb::Read, Some((model, version)))?;
        // Only for the error, if a name is unknown.
        let caller = RouteQuery { request_id: "", header: &|_| None };
        policy
            .content
            .resolve(model, version, &caller)
            .map_err(|error| requester.without_hints(error, model, version))
            .map_err(|error| unknown_model(error, model, version))?;
    }
    let matches = |requested: Option<&str>, name: &str| requested.is_none_or(|requested| requested == name);
    let routes = policy.content.models().flat_map(|(_, model)| model.versions.values());
    let routes = routes.filter(|route| {
        let (name, number) = (&route.name.name, &route.name.version);
        matches(model, name)
            && matches(version, number)
            && requester.may(Verb::Read, Some((name, Some(number))))
    });
    Ok(routes.map(|route| statistics::statistics(route)).collect())
}

/// A version of a model, and whether it is served.
#[derive(serde::Serialize)]
pub(in crate::server) struct IndexEntry {
    pub name: String,
    pub version: String,
    pub state: &'static str,
    pub reason: &'static str,
}

pub(in crate::server) fn repository_index(
    reloader: &Reloader,
    requester: &Requester,
    ready_only: bool,
) -> Vec<IndexEntry> {
    let entry = |Indexed { name, version, state }| {
        let (state, reason) = match state {
            State::Ready => ("READY", ""),
            State::Unloaded => ("UNAVAILABLE", "unloaded"),
            State::Loading => ("LOADING", ""),
        };
        IndexEntry { name, version, state, reason }
    };
    let index = reloader.index().into_iter();
    index
        .filter(|entry| !ready_only || entry.state == State::Ready)
        .filter(|entry| requester.may(Verb::Read, Some((&entry.name, Some(&entry.version)))))
        .map(entry)
        .collect()
}

/// A call that loads or unloads a model.
pub(in crate::server) struct ControlCall<'a> {
    pub reloader: &'a Reloader,
    pub requester: Requester,
    pub auditor: &'a Auditor,
    pub actor: Actor,
}

/// Loads a model with the overrides in `parameters`.
pub(in crate::server) async fn load_model(
    call: ControlCall<'_>,
    model: &str,
    parameters: &Map<String, Value>,
    budget: MemoryBudget,
) -> Result<()> {
    let ControlCall { reloader, requester, auditor, actor } = call;
    requester.require(Verb::Load, Some((model, None)))?;
    reloader.may_control()?;
    let overrides = overrides(reloader, model, parameters, budget)
        .map_err(|error| error.context(format_args!("failed to load '{}'", cut(model))))?;
    let without_hints = |error| requester.without_hints(error, model, None);
    auditor.record(actor, "load", cut(model)).await?;
    reloader.load_model(model.to_owned(), overrides).await.map_err(without_hints)
}

/// Unloads a model, and the pipelines that use it if the parameter `unload_dependents` is true.
pub(in crate::server) async fn unload_model(
    call: ControlCall<'_>,
    model: &str,
    parameters: &Map<String, Value>,
) -> Result<()> {
    let ControlCall { reloader, requester, auditor, actor } = call;
    requester.require(Verb::Load, Some((model, None)))?;
    reloader.may_control()?;
    let mut dependents = false;
    for (name, value) in parameters {
        let fault = match (&**name, value) {
            ("unload_dependents", Value::Bool(value)) => {
                dependents = *value;
                continue;
            }
            ("unload_dependents", Value::Null) => "has no value that is true or false".to_owned(),
            ("unload_dependents", value) => {
                format!("is {}; it is true or false", cut(&value.to_string()))
            }
            _ => "is not known; unload_dependents is".to_owned(),
        };
        let (model, name) = (cut(model), cut(name));
        let message = format!("failed to unload '{model}': parameter \"{name}\" {fault}");
        return Err(Error::invalid(message).field(name));
    }
    let dependent = if dependents { reloader.dependents(model) } else { Vec::new() };
    for dependent in &dependent {
        requester.require(Verb::Load, Some((dependent, None)))?;
    }
    let target = match dependent.is_empty() {
        true => cut(model),
        false => format!("{}, with {}", cut(model), dependent.join(", ")),
    };
    auditor.record(actor, "unload", target).await?;
    let unloaded = reloader.unload_model(model.to_owned(), dependents).await;
    unloaded.map_err(|error| requester.without_hints(error, model, None))
}

/// The error for a named repository. The manifest is the only repository, and it has no name.
pub(in crate::server) const OTHER_REPOSITORY: &str = "'repository_name' specification is not supported: there is one \
    repository here, the manifest; leave the name out";

fn overrides(
    reloader: &Reloader,
    model: &str,
    parameters: &Map<String, Value>,
    mut budget: MemoryBudget,
) -> Result<Overrides> {
    let mut overrides = Overrides::default();
    for (name, value) in parameters {
        if name == "config" {
            budget.charge(value.as_str().map_or(0, built_bytes), "config")?;
            let fields = value.as_str().map(serde_json::from_str::<Map<String, Value>>);
            let reason = match fields {
                Some(Ok(fields)) => {
                    overrides = Overrides::from_config(&changed(reloader, model, fields))
                        .map_err(|error| error.context("parameter \"config\""))?;
                    continue;
                }
                Some(Err(error)) => error.to_string(),
                None => "it must be a text".into(),
            };
            let message = format!("parameter \"config\" is not a JSON object in a text: {reason}");
            return Err(Error::invalid(message).field(name));
        }
        let shown = cut(name);
        let message = match name.starts_with("file:") {
            true => format!(
                "parameter \"{shown}\": Invalid file path: files are not taken from requests, since a model's file is \
                 code that runs; put it in its place and load the model"
            ),
            false => format!("parameter \"{shown}\" is not known; config is"),
        };
        return Err(Error::invalid(message).field(shown));
    }
    Ok(overrides)
}

/// Shortens a name from a request for a message.
fn cut(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Returns the fields of a configuration that differ from the model's own: clients send back the
/// whole configuration that they received.
fn changed(reloader: &Reloader, model: &str, mut fields: Map<String, Value>) -> Map<String, Value> {
    let policy = reloader.live().snapshot();
    let caller = RouteQuery { request_id: "", header: &|_| None };
    let now = model_config(&policy, &Requester::unrestricted(), model, None, &caller);
    let now = now.map_or(Value::Null, |config| json!(config));
    let same = |key: &str, value: &Value| now[key] == *value || (key == "name" && *value == *model);
    fields.retain(|key, value| Overrides::takes(key) || !same(key, value));
    if let Some(Value::Object(batching)) = fields.get_mut("dynamic_batching") {
        let now = &now["dynamic_batching"];
        batching.retain(|key, value| key == "max_queue_delay_microseconds" || now[key] != *value);
    }
    fields
}
