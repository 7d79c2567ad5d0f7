//! Configuration, statistics and the repository over HTTP. What these requests do is decided in
//! `control`, for both protocols.

use super::control::{
    ControlCall, load_model, model_config, model_statistics, repository_index, unload_model,
};
use super::endpoint::{ControlEndpoint, ModelPath};
use super::errors::{error_reply, method_not_allowed};
use super::json_object::parse_object;
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::offload;
use crate::policy::RouteQuery;
use crate::predict::walk::each_field;
use crate::predict::{self, MemoryBudget, Scalar};
use crate::server::http::{self, Reply, RequestBody};
use crate::server::state::Public;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Returns the method that an endpoint takes.
fn method(endpoint: &ControlEndpoint<'_>) -> &'static str {
    match endpoint {
        ControlEndpoint::Config(_) | ControlEndpoint::Statistics(_) => "GET",
        ControlEndpoint::Index | ControlEndpoint::Load(_) | ControlEndpoint::Unload(_) => "POST",
    }
}

pub(super) async fn answer(
    public: &Public,
    head: &Parts,
    body: RequestBody,
    endpoint: ControlEndpoint<'_>,
) -> Reply {
    let sent = if head.method == Method::HEAD { "GET" } else { head.method.as_str() };
    let allowed = method(&endpoint);
    if sent != allowed {
        return method_not_allowed(allowed);
    }
    let answer = match endpoint {
        ControlEndpoint::Config(path) => answer_config(public, head, path),
        ControlEndpoint::Statistics(path) => answer_statistics(public, head, path),
        ControlEndpoint::Index => answer_index(public, head, body).await,
        ControlEndpoint::Load(model) => answer_load(public, head, body, model).await,
        ControlEndpoint::Unload(model) => answer_unload(public, head, body, model).await,
    };
    answer.unwrap_or_else(|error| error_reply(&error))
}

fn answer_config(public: &Public, head: &Parts, path: ModelPath<'_>) -> Result<Reply> {
    let (model, version) = path.decode()?;
    let (headers, requester) = (&head.headers, public.requester(head));
    let id = http::request_id(headers);
    let caller = RouteQuery { request_id: &id, header: &http::header_lookup(headers) };
    let config = model_config(&public.router.policy(), &requester, &model, version.as_deref(), &caller)?;
    Ok(http::json_of(StatusCode::OK, &config))
}

/// Without a path, the statistics are those of all models.
fn answer_statistics(public: &Public, head: &Parts, path: Option<ModelPath<'_>>) -> Result<Reply> {
    let requester = public.requester(head);
    let (model, version) = match path {
        Some(path) => path.decode().map(|(model, version)| (Some(model), version))?,
        None => (None, None),
    };
    let policy = public.router.policy();
    let stats = model_statistics(&policy, &requester, model.as_deref(), version.as_deref())?;
    Ok(http::json_of(StatusCode::OK, &json!({"model_stats": stats})))
}

async fn answer_index(public: &Public, head: &Parts, body: RequestBody) -> Result<Reply> {
    #[derive(Default, Deserialize)]
    struct IndexRequest<'a> {
        #[serde(borrow)]
        ready: Option<Scalar<'a>>,
    }
    let ready = read(public, head, body, |body| {
        let request: IndexRequest<'_> = parse_object(body, UNREADABLE)?;
        match request.ready {
            None => Ok(false),
            Some(Scalar::Boolean(ready)) => Ok(ready),
            Some(other) => {
                let message = format!("{UNREADABLE}: ready is {other}, expected true or false");
                Err(Error::invalid(message).field("ready"))
            }
        }
    });
    let (ready, requester) = (ready.await?, public.requester(head));
    Ok(http::json_of(StatusCode::OK, &repository_index(&public.reloader, &requester, ready)))
}

fn control_call<'a>(public: &'a Public, head: &Parts, body: &RequestBody) -> ControlCall<'a> {
    let requester = public.requester(head);
    let id = Some(http::request_id(&head.headers));
    let actor = public.auditor.actor(&requester, body.connection(), &head.headers, id);
    ControlCall { reloader: &public.reloader, requester, auditor: &public.auditor, actor }
}

async fn answer_load(public: &Public, head: &Parts, body: RequestBody, model: &str) -> Result<Reply> {
    public.reloader.may_control()?;
    let (model, budget) = (http::decode_segment(model)?, public.router.budget());
    let call = control_call(public, head, &body);
    call.requester.require(Verb::Load, Some((&model, None)))?;
    let parameters = read(public, head, body, move |body| parameters(body, budget)).await?;
    load_model(call, &model, &parameters, budget).await?;
    Ok(http::empty(StatusCode::OK))
}

async fn answer_unload(public: &Public, head: &Parts, body: RequestBody, model: &str) -> Result<Reply> {
    public.reloader.may_control()?;
    let (model, budget) = (http::decode_segment(model)?, public.router.budget());
    let call = control_call(public, head, &body);
    call.requester.require(Verb::Load, Some((&model, None)))?;
    let parameters = read(public, head, body, move |body| parameters(body, budget)).await?;
    unload_model(call, &model, &parameters).await?;
    Ok(http::empty(StatusCode::OK))
}

const UNREADABLE: &str = "the body is not what this path takes";

/// Reads the parameters of a load or unload. Of a list or an object only the kind is kept, because
/// no parameter is one.
fn parameters(body: &[u8], mut budget: MemoryBudget) -> Result<Map<String, Value>> {
    #[derive(Deserialize)]
    struct ControlRequest<'a> {
        #[serde(borrow)]
        parameters: Option<&'a RawValue>,
    }
    let request: ControlRequest<'_> = parse_object(body, UNREADABLE)?;
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

/// Reads and parses a body. If there is none, the default is returned.
async fn read<T: Default + Send + 'static>(
    public: &Public,
    head: &Parts,
    body: RequestBody,
    parse: impl FnOnce(&[u8]) -> Result<T> + Send + 'static,
) -> Result<T> {
    let body = http::read_body(&head.headers, body, 0, &public.transfers, None).await?;
    offload::run(body.len(), move || {
        if body.iter().all(u8::is_ascii_whitespace) { Ok(T::default()) } else { parse(&body) }
    })
    .await
}
