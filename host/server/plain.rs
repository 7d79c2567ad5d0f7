//! The plain interface: `/predict` in JSON, and what a load balancer or a person asks for.

use super::cross_site::{self, CrossSite, Sensitivity};
use super::http::{self, Reply};
use super::request::{self, BatchRequest, UNREADABLE};
use super::transfers::Transfers;
use super::{Service, jobs, oip, probes, stream};
use crate::error::{Error, Result};
use crate::jobs::Jobs;
use crate::metrics::{ExportedModels, Metrics};
use crate::offload;
use crate::policy::{Reloader, Route};
use crate::predict::{self, Payload};
use crate::router::{self, CallOptions, RequestScope, Router};
use crate::shutdown::Readiness;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// Everything that the public listener serves.
pub struct Public {
    pub router: Arc<Router>,
    pub jobs: Arc<Jobs>,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub reloader: Arc<Reloader>,
    pub cross_site: CrossSite,
    pub transfers: Arc<Transfers>,
}

impl Service for Public {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        // Predictions are for anybody, so that pages of other sites matter only where some may read answers.
        if !self.cross_site.has_origins()
            && let Some(form) = Form::parse_path(&request)
        {
            return self.answered(request, form).await;
        }
        Box::pin(self.checked(request)).await
    }
}

impl Public {
    /// Answers a request that a page of another site may have made.
    async fn checked(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path();
        if let Err(error) = self.cross_site.check(&request, sensitivity(path)) {
            self.metrics.errors.with_label_values(&[error.kind().as_str()]).inc();
            return cross_site::refusal(&error, path);
        }
        let Some(reader) = self.cross_site.reader(request.headers()) else {
            return self.routed(request).await;
        };
        let mut reply = match cross_site::preflight(&request) {
            Some(reply) => reply,
            None => self.routed(request).await,
        };
        cross_site::let_read(&mut reply, reader);
        reply
    }

    async fn routed(&self, request: Request<Incoming>) -> Reply {
        if let Some(form) = Form::parse_path(&request) {
            return self.answered(request, form).await;
        }
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let get = method == Method::GET || method == Method::HEAD;
        match path.as_str() {
            "/predict/stream" if method == Method::POST => stream::answer(self, request).await,
            "/health" if get => http::json(StatusCode::OK, &b"{\"status\":\"ok\"}"[..]),
            "/ready" if get => self.ready(),
            "/metrics" if get => metrics_reply(&self.metrics, &self.router),
            "/models" if get => self.models(),
            "/predict" | "/predict/batch" | "/predict/stream" => http::method_not_allowed("POST"),
            "/health" | "/ready" | "/metrics" | "/models" => http::method_not_allowed("GET"),
            _ if jobs::takes(&path) => jobs::answer(self, request, &path).await,
            _ if oip::is_path(&path) => oip::answer(self, request, &path).await,
            _ => match Form::model(&path) {
                Some(_) => http::method_not_allowed("POST"),
                // A client of the protocol with a base path that nobody here has: it reads errors in its own form.
                None if path.contains("/v2/") => oip::no_such_path(&path),
                None => http::no_such_path(&method, &path),
            },
        }
    }
}

/// How much it matters who asks for a path.
fn sensitivity(path: &str) -> Sensitivity {
    if jobs::takes(path) || oip::is_control(path) {
        Sensitivity::Controls
    } else if probes::is_probe(path)
        || path == "/predict"
        || path.starts_with("/predict/")
        || oip::is_open(path)
    {
        Sensitivity::Open
    } else {
        Sensitivity::Reads
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
    fn parse_path(request: &Request<Incoming>) -> Option<Self> {
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
        let http_head = RequestHead { headers: &parts.headers, query: parts.uri.query() };
        let id = http::request_id(&parts.headers);
        let mut scope = self.router.begin(id, "plain", &http_head.header());
        let outcome = match http::read_body(body, &self.transfers).await {
            Ok(body) => match form {
                Form::Single => self.single(&mut scope, &http_head, body).await,
                Form::Batch => Box::pin(self.batch(&mut scope, &http_head, body)).await,
                Form::Body(model) => self.body(&mut scope, &http_head, body, &model).await,
            },
            Err(error) => Err(error),
        };
        let (mut reply, error) = match outcome {
            Ok(reply) => (reply, None),
            Err(error) => (http::error_reply(&error, scope.id()), Some(error)),
        };
        http::sign(&mut reply, scope.id(), scope.generation());
        scope.end(reply.status().as_u16(), error.as_ref());
        reply
    }

    async fn single(
        &self,
        scope: &mut RequestScope,
        http_head: &RequestHead<'_>,
        body: Bytes,
    ) -> Result<Reply> {
        let request = request::Request::read(body).await?;
        let route = scope.resolve(&request.head.model, request.head.version(), &http_head.header())?;
        let (options, input) = request.input(&route, self.router.budget()).await?;
        let response = scope.predict(&route, options, input).await?;
        envelope(scope, &route, response.payload).await
    }

    async fn batch(
        &self,
        scope: &mut RequestScope,
        http_head: &RequestHead<'_>,
        body: Bytes,
    ) -> Result<Reply> {
        let request = BatchRequest::read(body).await?;
        let route = scope.resolve(&request.head.model, request.head.version(), &http_head.header())?;
        let items = request.inputs(&route, self.router.budget()).await?;
        let mut answers: Vec<Option<Result<Payload>>> = items.iter().map(|_| None).collect();
        let mut runnable = Vec::new();
        let mut indices = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Ok(item) => {
                    runnable.push(item);
                    indices.push(index);
                }
                Err(error) => answers[index] = Some(Err(error)),
            }
        }
        if !runnable.is_empty() {
            for (index, answer) in indices.into_iter().zip(scope.predict_batch(&route, runnable).await?) {
                answers[index] = Some(answer.map(|response| response.payload));
            }
        }
        let answers = answers.into_iter().map(|answer| answer.expect("invariant: every item was answered"));
        Ok(batch_reply(scope, &route, answers.collect()).await)
    }

    /// The body itself is the input: a JPEG, a text, a JSON record.
    async fn body(
        &self,
        scope: &mut RequestScope,
        http_head: &RequestHead<'_>,
        body: Bytes,
        name: &str,
    ) -> Result<Reply> {
        let name = http::decode_segment(name)?;
        let (model, version) = match name.split_once(':') {
            Some((model, version)) => (model, Some(version)),
            None => (&*name, None),
        };
        let route = scope.resolve(model, version, &http_head.header())?;
        let content_type = http::header(http_head.headers, "content-type").unwrap_or_default();
        let is_json = content_type.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
        let input = if is_json {
            let (route, mut budget) = (Arc::clone(&route), self.router.budget());
            offload::run(body.len(), move || {
                let value = parse_json::<&RawValue>(&body)?;
                router::input(&route, request::part(&body, value), &mut budget)
            })
            .await?
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
        let response = scope.predict(&route, http_head.call_options()?, input).await?;
        match response.payload {
            Payload::Bytes { content_type, data } => {
                let content_type = HeaderValue::from_str(&content_type).map_err(|_| {
                    Error::failed(format!("the plugin gave the content type {content_type:?}, which is none"))
                })?;
                Ok(http::reply(StatusCode::OK, content_type, data))
            }
            payload => envelope(scope, &route, payload).await,
        }
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
    let mut served = ExportedModels::default();
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
pub(super) struct RequestHead<'a> {
    pub headers: &'a HeaderMap,
    pub query: Option<&'a str>,
}

impl RequestHead<'_> {
    pub fn header(&self) -> impl Fn(&str) -> Option<String> {
        |name| http::header(self.headers, name)
    }

    /// Parameters and timeout from the query, where the body is the input.
    fn call_options(&self) -> Result<CallOptions> {
        let mut options = CallOptions::default();
        for pair in self.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let (name, value) =
                (http::decode_segment(name)?, http::decode_segment(&value.replace('+', " "))?);
            // `true`, `3` and `0.5` are what they look like; everything else is text.
            let typed = serde_json::from_str(&value).ok().filter(serde_json::Value::is_boolean);
            let number = || serde_json::from_str(&value).ok().filter(serde_json::Value::is_number);
            let typed = typed.or_else(number).unwrap_or(serde_json::Value::String(value));
            if name == "timeout_ms" {
                options.timeout = Some(timeout(&typed)?);
            } else {
                let parameter = predict::parameter(&name, &typed)?;
                options.parameters.push((name, parameter));
            }
        }
        Ok(options)
    }
}

fn parse_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    if body.is_empty() {
        return Err(Error::invalid("the body is empty; send a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Error::invalid(format!("{UNREADABLE}: {}", http::in_plain_words(&error))))
}

/// The timeout of a query.
fn timeout(http_head: &serde_json::Value) -> Result<Duration> {
    match http_head.as_u64() {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => {
            let message =
                format!("timeout_ms is {http_head}; it must be a whole number of milliseconds, at least 1");
            Err(Error::invalid(message).field("timeout_ms"))
        }
    }
}

/// `{"model", "version", "id", "result"}`
async fn envelope(scope: &RequestScope, route: &Route, payload: Payload) -> Result<Reply> {
    let mut body = open_envelope(scope, route);
    body.extend_from_slice(b",\"result\":");
    let body = offload::run(payload.json_bytes(), move || {
        predict::encode_result(&payload, &mut body).map(|()| {
            body.push(b'}');
            body
        })
    });
    Ok(http::json(StatusCode::OK, body.await?))
}

fn open_envelope(scope: &RequestScope, route: &Route) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    for (before, value) in [
        (&b"{\"model\":"[..], &*route.name.name),
        (b",\"version\":", &route.name.version),
        (b",\"id\":", scope.id()),
    ] {
        body.extend_from_slice(before);
        serde_json::to_writer(&mut body, value).expect("invariant: writing to memory");
    }
    body
}

/// Results in the order of the items, null where there is an error instead.
async fn batch_reply(scope: &RequestScope, route: &Route, answers: Vec<Result<Payload>>) -> Reply {
    let body = open_envelope(scope, route);
    let bytes = answers.iter().flatten().map(Payload::json_bytes).sum();
    let (body, errors) = offload::run(bytes, move || encode_batch(body, answers)).await;
    errors.iter().for_each(|error| scope.count_error(error));
    http::json(StatusCode::OK, body)
}

/// Appends results and errors to `body`; the errors are also given back, to be counted.
fn encode_batch(mut body: Vec<u8>, answers: Vec<Result<Payload>>) -> (Vec<u8>, Vec<Error>) {
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    body.extend_from_slice(b",\"results\":[");
    for (index, answer) in answers.into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let start = body.len();
        let Err(error) = answer.and_then(|payload| predict::encode_result(&payload, &mut body)) else {
            continue;
        };
        // What was written of it before it failed.
        body.truncate(start);
        body.extend_from_slice(b"null");
        let mut entry = serde_json::json!({
            "index": index,
            "kind": error.kind().as_str(),
            "message": error.message(),
        });
        if let Some(step) = error.step_name() {
            entry["step"] = step.into();
        }
        if let Some(field) = error.field_name() {
            entry["field"] = field.into();
        }
        entries.push(entry);
        errors.push(error);
    }
    body.extend_from_slice(b"],\"errors\":");
    serde_json::to_writer(&mut body, &entries).expect("invariant: writing to memory");
    body.push(b'}');
    (body, errors)
}
