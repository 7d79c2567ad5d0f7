//! The plain interface: `/predict` in JSON, and what a load balancer or a person asks for.

use super::http::{self, Reply};
use super::{Service, jobs, oip, stream};
use crate::error::{Error, Result};
use crate::jobs::Jobs;
use crate::metrics::{Metrics, Served};
use crate::policy::{Reloader, Route};
use crate::predict::{self, JsonText, Parameters, Payload};
use crate::router::{Ask, Journey, Router};
use crate::shutdown::Readiness;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Items of one batch at most.
pub(super) const BATCH_ITEMS_MAX: usize = 1000;

pub(super) const UNREADABLE: &str = "the body is not what this path takes";

/// Everything that the public listener serves.
pub struct Public {
    pub router: Arc<Router>,
    pub jobs: Arc<Jobs>,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub reloader: Arc<Reloader>,
}

impl Service for Public {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        if let Some(form) = Form::asked(&request) {
            return self.answered(request, form).await;
        }
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let get = method == Method::GET || method == Method::HEAD;
        match path.as_str() {
            // What is rarely asked for is kept out of the future of the others, which is moved for each request.
            "/predict/stream" if method == Method::POST => Box::pin(stream::answer(self, request)).await,
            "/health" if get => http::json(StatusCode::OK, &b"{\"status\":\"ok\"}"[..]),
            "/ready" if get => self.ready(),
            "/metrics" if get => metrics_reply(&self.metrics, &self.router),
            "/models" if get => self.models(),
            "/predict" | "/predict/batch" | "/predict/stream" => http::method_not_allowed("POST"),
            "/health" | "/ready" | "/metrics" | "/models" => http::method_not_allowed("GET"),
            _ if jobs::takes(&path) => Box::pin(jobs::answer(self, request, &path)).await,
            _ if path == "/v2" || path.starts_with("/v2/") => oip::answer(self, request, &path).await,
            _ => match Form::model(&path) {
                Some(_) => http::method_not_allowed("POST"),
                // A client of the protocol with a base path that nobody here has: it reads errors in its own form.
                None if path.contains("/v2/") => oip::no_such_path(&path),
                None => http::no_such_path(&method, &path),
            },
        }
    }
}

/// How a prediction is asked for.
enum Form {
    /// `POST /predict`
    Single,
    /// `POST /predict/batch`
    Batch,
    /// `POST /predict/<model>`, the body being the input.
    Body(String),
}

impl Form {
    fn asked(request: &Request<Incoming>) -> Option<Self> {
        if request.method() != Method::POST {
            return None;
        }
        match request.uri().path() {
            "/predict" => Some(Form::Single),
            "/predict/batch" => Some(Form::Batch),
            "/predict/stream" => None,
            path if jobs::takes(path) => None,
            path => Form::model(path).map(|model| Form::Body(model.to_owned())),
        }
    }

    /// The model that a path of the third form names.
    fn model(path: &str) -> Option<&str> {
        path.strip_prefix("/predict/").filter(|model| !model.contains('/'))
    }
}

impl Public {
    async fn answered(&self, request: Request<Incoming>, form: Form) -> Reply {
        let (parts, body) = request.into_parts();
        let asked = Asked { headers: &parts.headers, query: parts.uri.query() };
        let id = http::request_id(&parts.headers);
        let mut journey = self.router.begin(id, "plain", &asked.header());
        let outcome = match http::read_body(body, self.router.limits()).await {
            Ok(body) => match form {
                Form::Single => self.single(&mut journey, &asked, body).await,
                Form::Batch => Box::pin(self.batch(&mut journey, &asked, body)).await,
                Form::Body(model) => self.body(&mut journey, &asked, body, &model).await,
            },
            Err(error) => Err(error),
        };
        let (mut reply, error) = match outcome {
            Ok(reply) => (reply, None),
            Err(error) => (http::error_reply(&error, journey.id()), Some(error)),
        };
        http::sign(&mut reply, journey.id(), journey.generation());
        journey.end(reply.status().as_u16(), error.as_ref());
        reply
    }

    async fn single(&self, journey: &mut Journey, asked: &Asked<'_>, body: Bytes) -> Result<Reply> {
        let request: Single<'_> = http::parse_object(&body, UNREADABLE)?;
        let version = request.version.map(Version::into_text);
        let route = journey.resolve(&request.model, version.as_deref(), &asked.header())?;
        let input = self.input(&route, &body, request.data)?;
        let ask = Ask {
            parameters: parameters(request.parameters.as_ref())?,
            timeout: timeout(request.timeout_ms)?,
        };
        let response = journey.predict(&route, ask, input).await?;
        envelope(journey, &route, &response.payload)
    }

    async fn batch(&self, journey: &mut Journey, asked: &Asked<'_>, body: Bytes) -> Result<Reply> {
        let request: Batch<'_> = http::parse_object(&body, UNREADABLE)?;
        let version = request.version.map(Version::into_text);
        let route = journey.resolve(&request.model, version.as_deref(), &asked.header())?;
        if request.items.len() > BATCH_ITEMS_MAX {
            let message = format!("{} items; at most {BATCH_ITEMS_MAX} are allowed", request.items.len());
            return Err(Error::too_large(message).field("items"));
        }
        let (shared, timeout) = (parameters(request.parameters.as_ref())?, timeout(request.timeout_ms)?);
        let mut answers: Vec<Option<Result<Vec<u8>>>> = request.items.iter().map(|_| None).collect();
        let mut runnable = Vec::new();
        let mut indices = Vec::new();
        for (index, item) in request.items.iter().enumerate() {
            let prepared =
                http::parse_object::<Item<'_>>(item.get().as_bytes(), "not an item").and_then(|item| {
                    let own = parameters(item.parameters.as_ref())?;
                    let parameters = if own.is_empty() { shared.clone() } else { own };
                    Ok((Ask { parameters, timeout }, self.input(&route, &body, item.data)?))
                });
            match prepared {
                Ok(prepared) => {
                    runnable.push(prepared);
                    indices.push(index);
                }
                Err(error) => answers[index] = Some(Err(error)),
            }
        }
        if !runnable.is_empty() {
            for (index, answer) in indices.into_iter().zip(journey.predict_batch(&route, runnable).await?) {
                answers[index] = Some(answer.and_then(|response| {
                    let mut result = Vec::new();
                    predict::encode_result(&response.payload, &mut result)?;
                    Ok(result)
                }));
            }
        }
        let answers = answers.into_iter().map(|answer| answer.expect("invariant: every item was answered"));
        Ok(batch_reply(journey, &route, answers))
    }

    /// The body itself is the input: a JPEG, a text, a JSON record.
    async fn body(&self, journey: &mut Journey, asked: &Asked<'_>, body: Bytes, name: &str) -> Result<Reply> {
        let name = http::decode_segment(name)?;
        let (model, version) = match name.split_once(':') {
            Some((model, version)) => (model, Some(version)),
            None => (&*name, None),
        };
        let route = journey.resolve(model, version, &asked.header())?;
        let content_type = http::header(asked.headers, "content-type").unwrap_or_default();
        let is_json = content_type.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
        let input = if is_json {
            let value = parse_json::<&RawValue>(&body)?;
            self.input(&route, &body, value)?
        } else if route.transformer.is_some() {
            let content_type =
                if content_type.is_empty() { "application/octet-stream".to_owned() } else { content_type };
            Payload::Bytes { content_type, data: body }
        } else {
            return Err(Error::unsupported(format!(
                "model \"{}\" has no transformer, so its input must be JSON (content-type: application/json)",
                route.name
            )));
        };
        let response = journey.predict(&route, asked.ask()?, input).await?;
        match &response.payload {
            Payload::Bytes { content_type, data } => {
                let content_type = HeaderValue::from_str(content_type).map_err(|_| {
                    Error::failed(format!("the plugin gave the content type {content_type:?}, which is none"))
                })?;
                Ok(http::reply(StatusCode::OK, content_type, data.clone()))
            }
            payload => envelope(journey, &route, payload),
        }
    }

    pub(super) fn input(&self, route: &Route, body: &Bytes, data: &RawValue) -> Result<Payload> {
        self.router.input(route, JsonText::from_checked(body.slice_ref(data.get().as_bytes())))
    }

    fn ready(&self) -> Reply {
        let draining = self.readiness.refusal().map(str::to_owned);
        let unready = || Some(self.router.policy().content.unready()?.message().to_owned());
        match draining.or_else(unready) {
            None => http::json(StatusCode::OK, &b"{\"ready\":true}"[..]),
            Some(why) => http::json_of(
                StatusCode::SERVICE_UNAVAILABLE,
                &serde_json::json!({"ready": false, "reason": why}),
            ),
        }
    }

    fn models(&self) -> Reply {
        let policy = self.router.policy();
        let routes = policy.content.models().flat_map(|(_, model)| model.versions.values());
        let models: Vec<_> = routes
            .map(|route| {
                serde_json::json!({
                    "name": &*route.name.name,
                    "version": &*route.name.version,
                    "executor": route.executor.name(),
                    "transformer": route.transformer.as_ref().map(|transformer| &**transformer.name()),
                    "timeout_ms": route.timeout.map(|timeout| timeout.as_millis() as u64),
                    "inputs": http::tensor_specs(&route.callable.metadata().inputs),
                    "outputs": http::tensor_specs(&route.callable.metadata().outputs),
                })
            })
            .collect();
        http::json_of(StatusCode::OK, &serde_json::json!({"models": models, "generation": policy.generation}))
    }
}

/// Metrics, with the gauges read now.
pub(super) fn metrics_reply(metrics: &Metrics, router: &Router) -> Reply {
    let contents = router.contents();
    let mut served = Served::default();
    for content in &contents {
        served.plugins.extend(content.families());
        // Where two have an executor of one name, the first one's is told.
        let new = content.executors.iter().filter(|(name, _)| !served.executors.contains(&***name));
        let new: Vec<_> = new.collect();
        for (name, executor) in new {
            crate::executor::export_gauges(&**executor, metrics);
            served.executors.insert(name);
        }
    }
    let text = metrics.render(&served);
    http::reply(StatusCode::OK, HeaderValue::from_static("text/plain; version=0.0.4"), text)
}

/// Headers and query of a request.
pub(super) struct Asked<'a> {
    pub headers: &'a HeaderMap,
    pub query: Option<&'a str>,
}

impl Asked<'_> {
    pub fn header(&self) -> impl Fn(&str) -> Option<String> {
        |name| http::header(self.headers, name)
    }

    /// Parameters and timeout from the query, where the body is the input.
    fn ask(&self) -> Result<Ask> {
        let mut ask = Ask::default();
        for pair in self.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let (name, value) =
                (http::decode_segment(name)?, http::decode_segment(&value.replace('+', " "))?);
            // `true`, `3` and `0.5` are what they look like; everything else is text.
            let typed = serde_json::from_str(&value).ok().filter(serde_json::Value::is_boolean);
            let number = || serde_json::from_str(&value).ok().filter(serde_json::Value::is_number);
            let typed = typed.or_else(number).unwrap_or(serde_json::Value::String(value));
            if name == "timeout_ms" {
                ask.timeout = timeout(Some(typed))?;
            } else {
                let parameter = predict::parameter(&name, &typed)?;
                ask.parameters.push((name, parameter));
            }
        }
        Ok(ask)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Single<'a> {
    #[serde(borrow)]
    pub model: Cow<'a, str>,
    #[serde(borrow)]
    pub version: Option<Version<'a>>,
    #[serde(borrow)]
    pub data: &'a RawValue,
    pub parameters: Option<Fields>,
    pub timeout_ms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    version: Option<Version<'a>>,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    parameters: Option<Fields>,
    timeout_ms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    pub data: &'a RawValue,
    pub parameters: Option<Fields>,
}

pub(super) type Fields = serde_json::Map<String, serde_json::Value>;

/// `"2"` or `2`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "version must be a string or a whole number")]
pub(super) enum Version<'a> {
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Number(u64),
}

impl<'a> Version<'a> {
    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Version::Text(text) => text,
            Version::Number(number) => number.to_string().into(),
        }
    }
}

fn parse_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    if body.is_empty() {
        return Err(Error::invalid("the body is empty; send a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        Error::invalid(format!("{UNREADABLE}: {}", http::in_plain_words(&error.to_string())))
    })
}

pub(super) fn parameters(fields: Option<&Fields>) -> Result<Parameters> {
    let fields = fields.into_iter().flatten();
    fields.map(|(name, value)| Ok((name.clone(), predict::parameter(name, value)?))).collect()
}

pub(super) fn timeout(asked: Option<serde_json::Value>) -> Result<Option<Duration>> {
    let Some(asked) = asked else { return Ok(None) };
    match asked.as_u64() {
        Some(ms) if ms > 0 => Ok(Some(Duration::from_millis(ms))),
        _ => {
            let message =
                format!("timeout_ms is {asked}; it must be a whole number of milliseconds, at least 1");
            Err(Error::invalid(message).field("timeout_ms"))
        }
    }
}

/// `{"model", "version", "id", "result"}`
fn envelope(journey: &Journey, route: &Route, payload: &Payload) -> Result<Reply> {
    let mut body = open_envelope(journey, route);
    body.extend_from_slice(b",\"result\":");
    predict::encode_result(payload, &mut body)?;
    body.push(b'}');
    Ok(http::json(StatusCode::OK, body))
}

fn open_envelope(journey: &Journey, route: &Route) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    for (before, value) in [
        (&b"{\"model\":"[..], &*route.name.name),
        (b",\"version\":", &route.name.version),
        (b",\"id\":", journey.id()),
    ] {
        body.extend_from_slice(before);
        serde_json::to_writer(&mut body, value).expect("invariant: writing to memory");
    }
    body
}

/// Results in the order of the items, null where there is an error instead.
fn batch_reply(journey: &Journey, route: &Route, answers: impl Iterator<Item = Result<Vec<u8>>>) -> Reply {
    let mut body = open_envelope(journey, route);
    let mut errors = Vec::new();
    body.extend_from_slice(b",\"results\":[");
    for (index, answer) in answers.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        match answer {
            Ok(result) => body.extend_from_slice(&result),
            Err(error) => {
                body.extend_from_slice(b"null");
                journey.count_error(&error);
                let mut entry = serde_json::json!({
                    "index": index,
                    "kind": error.kind().as_str(),
                    "message": error.message(),
                });
                if let Some(field) = error.field_name() {
                    entry["field"] = field.into();
                }
                errors.push(entry);
            }
        }
    }
    body.extend_from_slice(b"],\"errors\":");
    serde_json::to_writer(&mut body, &errors).expect("invariant: writing to memory");
    body.push(b'}');
    http::json(StatusCode::OK, body)
}
