//! Triton's extensions that look at models and load them: configuration, statistics, repository.
//!
//! The first half is for both protocols and knows none; the second half is their routes over HTTP. What a load
//! does is up to `reload`; this only reads what was asked.

use super::config::{self, ModelConfig};
use super::infer::unknown_model;
use super::statistics::{self, ModelStatistics};
use crate::error::{Error, Result};
use crate::offload;
use crate::policy::overlay::Overrides;
use crate::policy::reload::{Indexed, State};
use crate::policy::{Policy, Reloader, RouteQuery};
use crate::predict::walk::{built_bytes, each_field};
use crate::predict::{self, MemoryBudget, Scalar};
use crate::server::compression;
use crate::server::http::{self, Reply};
use crate::server::plain::Public;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The configuration of a model; without a version, of the one that this caller would get.
pub(in crate::server) fn model_config(
    policy: &Policy,
    model: &str,
    version: Option<&str>,
    caller: &RouteQuery<'_>,
) -> Result<ModelConfig> {
    let route = policy.content.resolve(model, version, caller);
    let route = route.map_err(|error| unknown_model(error, version))?;
    Ok(config::config(policy, route))
}

/// The statistics of one version, of all versions of a model, or of all models.
pub(in crate::server) fn model_statistics(
    policy: &Policy,
    model: Option<&str>,
    version: Option<&str>,
) -> Result<Vec<ModelStatistics>> {
    if let Some(model) = model {
        // Says what is wrong with the names.
        let caller = RouteQuery { request_id: "", header: &|_| None };
        policy.content.resolve(model, version, &caller).map_err(|error| unknown_model(error, version))?;
    }
    let wanted = |request: Option<&str>, name: &str| request.is_none_or(|request| request == name);
    let routes = policy.content.models().flat_map(|(_, model)| model.versions.values());
    let routes =
        routes.filter(|route| wanted(model, &route.name.name) && wanted(version, &route.name.version));
    Ok(routes.map(|route| statistics::statistics(route)).collect())
}

/// A model and version, and whether it is served.
#[derive(serde::Serialize)]
pub(in crate::server) struct IndexEntry {
    pub name: String,
    pub version: String,
    pub state: &'static str,
    pub reason: &'static str,
}

pub(in crate::server) fn repository_index(reloader: &Reloader, ready_only: bool) -> Vec<IndexEntry> {
    let entry = |Indexed { name, version, state }| {
        let (state, reason) = match state {
            State::Ready => ("READY", ""),
            State::Unloaded => ("UNAVAILABLE", "unloaded"),
            State::Loading => ("LOADING", ""),
        };
        IndexEntry { name, version, state, reason }
    };
    let index = reloader.index().into_iter();
    index.filter(|entry| !ready_only || entry.state == State::Ready).map(entry).collect()
}

/// Loads a model, as `parameters` say.
pub(in crate::server) async fn load_model(
    reloader: &Reloader,
    model: &str,
    parameters: &Map<String, Value>,
    budget: MemoryBudget,
) -> Result<()> {
    reloader.may_control()?;
    let overrides = overrides(reloader, model, parameters, budget)
        .map_err(|error| error.context(format_args!("failed to load '{}'", cut(model))))?;
    reloader.load_model(model.to_owned(), overrides).await
}

/// Unloads a model, and if `unload_dependents` says so the pipelines that use it.
pub(in crate::server) async fn unload_model(
    reloader: &Reloader,
    model: &str,
    parameters: &Map<String, Value>,
) -> Result<()> {
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
    reloader.unload_model(model.to_owned(), dependents).await
}

/// There is one repository, the manifest, and it has no name.
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

/// Names from a request, cut before they go into a message.
fn cut(name: &str) -> String {
    name.chars().take(80).collect()
}

/// A configuration without what the model's own says anyway: callers send back the whole that they were given.
fn changed(reloader: &Reloader, model: &str, mut fields: Map<String, Value>) -> Map<String, Value> {
    let policy = reloader.live().snapshot();
    let caller = RouteQuery { request_id: "", header: &|_| None };
    let now = model_config(&policy, model, None, &caller);
    let now = now.map_or(Value::Null, |config| json!(config));
    let same = |key: &str, value: &Value| now[key] == *value || (key == "name" && *value == *model);
    fields.retain(|key, value| Overrides::takes(key) || !same(key, value));
    if let Some(Value::Object(batching)) = fields.get_mut("dynamic_batching") {
        let now = &now["dynamic_batching"];
        batching.retain(|key, value| key == "max_queue_delay_microseconds" || now[key] != *value);
    }
    fields
}

/// What is asked here over HTTP, with names as they are in the path.
pub(super) enum ControlRequest<'a> {
    /// `GET v2/models/{model}[/versions/{version}]/config`
    Config(&'a str, Option<&'a str>),
    /// `GET v2/models/stats`, `GET v2/models/{model}[/versions/{version}]/stats`
    Statistics(Option<&'a str>, Option<&'a str>),
    /// `POST v2/repository/index`
    Index,
    /// `POST v2/repository/models/{model}/load`
    Load(&'a str),
    /// `POST v2/repository/models/{model}/unload`
    Unload(&'a str),
}

impl<'a> ControlRequest<'a> {
    pub fn of(segments: &[&'a str]) -> Option<Self> {
        Some(match *segments {
            ["v2", "models", "stats"] => ControlRequest::Statistics(None, None),
            ["v2", "models", model, "config"] => ControlRequest::Config(model, None),
            ["v2", "models", model, "stats"] => ControlRequest::Statistics(Some(model), None),
            ["v2", "models", model, "versions", version, "config"] => {
                ControlRequest::Config(model, Some(version))
            }
            ["v2", "models", model, "versions", version, "stats"] => {
                ControlRequest::Statistics(Some(model), Some(version))
            }
            ["v2", "repository", "index"] => ControlRequest::Index,
            ["v2", "repository", "models", model, "load"] => ControlRequest::Load(model),
            ["v2", "repository", "models", model, "unload"] => ControlRequest::Unload(model),
            _ => return None,
        })
    }

    fn method(&self) -> &'static str {
        match self {
            ControlRequest::Config(..) | ControlRequest::Statistics(..) => "GET",
            ControlRequest::Index | ControlRequest::Load(_) | ControlRequest::Unload(_) => "POST",
        }
    }
}

pub(super) async fn answer(
    public: &Public,
    request: ControlRequest<'_>,
    head: &Parts,
    body: Incoming,
) -> Reply {
    let method = if head.method == Method::HEAD { "GET" } else { head.method.as_str() };
    if method != request.method() {
        return super::method_not_allowed(request.method());
    }
    let answer = match request {
        ControlRequest::Config(model, version) => answer_config(public, &head.headers, model, version),
        ControlRequest::Statistics(model, version) => answer_statistics(public, model, version),
        ControlRequest::Index => answer_index(public, head, body).await,
        ControlRequest::Load(model) => answer_load(public, head, body, model).await,
        ControlRequest::Unload(model) => answer_unload(public, head, body, model).await,
    };
    answer.unwrap_or_else(|error| super::error_reply(&error))
}

fn decoded(name: Option<&str>) -> Result<Option<String>> {
    name.map(http::decode_segment).transpose()
}

fn answer_config(public: &Public, headers: &HeaderMap, model: &str, version: Option<&str>) -> Result<Reply> {
    let (model, version) = (http::decode_segment(model)?, decoded(version)?);
    let id = http::request_id(headers);
    let header = |name: &str| http::header(headers, name);
    let caller = RouteQuery { request_id: &id, header: &header };
    let config = model_config(&public.router.policy(), &model, version.as_deref(), &caller)?;
    Ok(http::json_of(StatusCode::OK, &config))
}

fn answer_statistics(public: &Public, model: Option<&str>, version: Option<&str>) -> Result<Reply> {
    let (model, version) = (decoded(model)?, decoded(version)?);
    let stats = model_statistics(&public.router.policy(), model.as_deref(), version.as_deref())?;
    Ok(http::json_of(StatusCode::OK, &json!({"model_stats": stats})))
}

async fn answer_index(public: &Public, head: &Parts, body: Incoming) -> Result<Reply> {
    #[derive(Default, Deserialize)]
    struct LoadRequest<'a> {
        #[serde(borrow)]
        ready: Option<Scalar<'a>>,
    }
    let ready = read(public, head, body, |body| {
        let request: LoadRequest<'_> = super::parse_object(body, UNREADABLE)?;
        match request.ready {
            None => Ok(false),
            Some(Scalar::Boolean(ready)) => Ok(ready),
            Some(other) => {
                let message = format!("{UNREADABLE}: ready is {other}, expected true or false");
                Err(Error::invalid(message).field("ready"))
            }
        }
    });
    Ok(http::json_of(StatusCode::OK, &repository_index(&public.reloader, ready.await?)))
}

async fn answer_load(public: &Public, head: &Parts, body: Incoming, model: &str) -> Result<Reply> {
    public.reloader.may_control()?;
    let (model, budget) = (http::decode_segment(model)?, public.router.budget());
    let parameters = read(public, head, body, move |body| parameters(body, budget)).await?;
    load_model(&public.reloader, &model, &parameters, budget).await?;
    Ok(super::empty(StatusCode::OK))
}

async fn answer_unload(public: &Public, head: &Parts, body: Incoming, model: &str) -> Result<Reply> {
    public.reloader.may_control()?;
    let (model, budget) = (http::decode_segment(model)?, public.router.budget());
    let parameters = read(public, head, body, move |body| parameters(body, budget)).await?;
    unload_model(&public.reloader, &model, &parameters).await?;
    Ok(super::empty(StatusCode::OK))
}

const UNREADABLE: &str = "the body is not what this path takes";

/// The parameters of a load or unload. Of a list or an object is kept that it is one: no parameter is.
fn parameters(body: &[u8], mut budget: MemoryBudget) -> Result<Map<String, Value>> {
    #[derive(Deserialize)]
    struct Control<'a> {
        #[serde(borrow)]
        parameters: Option<&'a RawValue>,
    }
    let request: Control<'_> = super::parse_object(body, UNREADABLE)?;
    let mut parameters = Map::new();
    let Some(fields) = request.parameters else { return Ok(parameters) };
    let unreadable = |error: &serde_json::Error| {
        Error::invalid(format!("{UNREADABLE}: parameters: {}", http::in_plain_words(error)))
    };
    let walked = each_field(fields.get(), |name, value| {
        let value = Scalar::of(value).map_err(|error| unreadable(&error))?;
        predict::charge_parameter(&mut budget, &name, &value)?;
        parameters.insert(name.into_owned(), value.into());
        Ok(())
    });
    walked.map_err(|stopped| stopped.into_error(unreadable))?;
    Ok(parameters)
}

/// Reads a body, which may be left out.
async fn read<T: Default + Send + 'static>(
    public: &Public,
    head: &Parts,
    body: Incoming,
    parse: impl FnOnce(&[u8]) -> Result<T> + Send + 'static,
) -> Result<T> {
    let body = compression::read_body(&head.headers, body, &public.transfers).await?;
    offload::run(body.len(), move || {
        if body.iter().all(u8::is_ascii_whitespace) { Ok(T::default()) } else { parse(&body) }
    })
    .await
}
