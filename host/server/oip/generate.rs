//! The generate extension: a flat JSON object in, flat JSON objects out; `generate_stream` sends
//! them as server-sent events. A field with the name of an input is that input, every other field
//! is a parameter.

use super::errors::{error_json, status_of};
use super::infer::{self, InferStream};
use super::inference::ModelRequest;
use super::json;
use super::json_object::parse_object;
use super::parameters::request_id;
use super::request::{InferRequest, InferResponse};
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::offload;
use crate::policy::Route;
use crate::predict::walk::{each_field, shown};
use crate::predict::{
    self, MemoryBudget, Metadata, Parameters, Scalar, Shape, Tensor, TensorSpec, encode_tensor,
};
use crate::router::RequestScope;
use crate::server::http::streaming_body::{self, Step};
use crate::server::http::{self, Reply, ReplyContent, RequestBody};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde_json::value::RawValue;
use std::sync::Arc;

impl ModelRequest<'_> {
    /// `POST …/generate`: a model that streams must make exactly one response.
    pub async fn generate(&self, body: RequestBody) -> Reply {
        let mut stream = match self.begin_stream(body).await {
            Ok(stream) => stream,
            Err((scope, error)) => return self.end(scope, Err(error)).await,
        };
        let answer = match stream.next().await {
            Some(Ok(response)) => match stream.next().await {
                None => encoded(response, object).await.map(|text| http::json(StatusCode::OK, text)),
                Some(Err(error)) => Err(error),
                Some(Ok(_)) => Err(not_one("more than one")),
            },
            Some(Err(error)) => Err(error),
            None => Err(not_one("none")),
        };
        self.end(stream.into_scope(), answer).await
    }

    /// `POST …/generate_stream`: an error in the request is a reply like any other. An error of the
    /// model in place of its first response is an event, in a reply with the error's status.
    pub async fn generate_stream(&self, body: RequestBody) -> Reply {
        let mut stream = match self.begin_stream(body).await {
            Ok(stream) => stream,
            Err((scope, error)) => return self.end(scope, Err(error)).await,
        };
        let first = match stream.next().await.transpose() {
            Ok(None) => Ok(None),
            Ok(Some(first)) => encoded(first, event).await.map(Some),
            Err(error) => Err(error),
        };
        let first = match first {
            Ok(first) => first,
            Err(error) => return error_stream(stream.into_scope(), &error),
        };
        let (id, generation) = (Arc::clone(stream.scope().id()), stream.scope().generation());
        let content = match first {
            Some(event) => streaming_body::content(event, stream, next_event),
            None => {
                stream.end(status);
                ReplyContent::Empty
            }
        };
        let mut reply = event_stream(content);
        http::sign(&mut reply, &id, generation);
        reply
    }

    async fn begin_stream(&self, body: RequestBody) -> Result<InferStream, (RequestScope, Error)> {
        let mut scope = self.begin(Verb::Predict);
        match self.read_request(&mut scope, body).await {
            Ok((route, request)) => infer::stream(scope, &route, request),
            Err(error) => Err((scope, error)),
        }
    }

    async fn read_request(
        &self,
        scope: &mut RequestScope,
        body: RequestBody,
    ) -> Result<(Arc<Route>, InferRequest)> {
        let body = self.read(scope, body).await?;
        let route = self.resolve(scope)?;
        let (metadata_route, mut budget) = (Arc::clone(&route), self.public.router.budget());
        let request =
            offload::run(body.len(), move || request(&body, metadata_route.metadata(), &mut budget));
        Ok((route, request.await?))
    }
}

/// Encodes a response in this form, on another thread if it is large.
async fn encoded(response: InferResponse, form: fn(&InferResponse) -> Result<Bytes>) -> Result<Bytes> {
    let bytes = response.outputs.iter().map(|tensor| 3 * tensor.data().len()).sum();
    offload::run(bytes, move || form(&response)).await
}

/// Returns the reply of a stream that fails before its first response: a single event.
fn error_stream(scope: RequestScope, error: &Error) -> Reply {
    let mut reply = event_stream(ReplyContent::Whole(error_event(error)));
    *reply.status_mut() = status_of(error);
    http::add_hints(&mut reply, error);
    http::sign(&mut reply, scope.id(), scope.generation());
    scope.end(reply.status().as_u16(), Some(error));
    reply
}

fn error_event(error: &Error) -> Bytes {
    format!("data: {}\n\n", error_json(error)).into()
}

fn not_one(got: &str) -> Error {
    Error::invalid(format!(
        "generate expects model to produce exactly 1 response, use generate stream for model that may generate \
         various number of responses; this time it gave {got}"
    ))
}

fn status(error: Option<&Error>) -> u16 {
    error.map_or(StatusCode::OK, status_of).as_u16()
}

const UNREADABLE: &str = "the body is not a generate request";

fn request(body: &[u8], metadata: &Metadata, budget: &mut MemoryBudget) -> Result<InferRequest> {
    let mut reader = Reader {
        metadata,
        budget,
        request: InferRequest {
            id: None,
            parameters: Parameters::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        },
    };
    // The whole body is checked before any field of it is used.
    let body: &RawValue = parse_object(body, UNREADABLE)?;
    let is_input = |name: &str| metadata.inputs.iter().any(|spec| *spec.name == *name);
    let mut nested = None;
    let walked = each_field(body.get(), |name, value| {
        if name == "parameters" && !is_input(&name) && nested.is_none() {
            nested = Some(value);
            return Ok(());
        }
        reader.field(&name, value)
    });
    walked.map_err(|stopped| stopped.into_error(|error| unreadable(UNREADABLE, error)))?;
    if let Some(nested) = nested {
        const EXPECTED: &str = "Expected JSON object for keyword: 'parameters'";
        if !nested.get().starts_with('{') {
            return Err(Error::invalid(format!("{EXPECTED}: expected a JSON object")));
        }
        let walked = each_field(nested.get(), |name, value| {
            let read = reader.field(&name, value);
            read.map_err(|error| {
                match error.field_name().is_some_and(|field| field.starts_with("parameters.")) {
                    true => error.context("Converting keyword: 'parameters'"),
                    false => error,
                }
            })
        });
        walked.map_err(|stopped| stopped.into_error(|error| unreadable(EXPECTED, error)))?;
    }
    Ok(reader.request)
}

fn unreadable(what: &str, error: &serde_json::Error) -> Error {
    Error::invalid(format!("{what}: {}", http::in_plain_words(error)))
}

struct Reader<'a> {
    metadata: &'a Metadata,
    budget: &'a mut MemoryBudget,
    request: InferRequest,
}

impl Reader<'_> {
    /// Reads a field. One with the name of an input is that input, `id` is the request's id, and
    /// every other one is a parameter.
    fn field(&mut self, name: &str, value: &RawValue) -> Result<()> {
        if let Some(spec) = self.metadata.inputs.iter().find(|spec| *spec.name == *name) {
            predict::refuse_duplicate(&self.request.inputs, name)?;
            self.request.inputs.push(input(spec, value.get(), self.budget)?);
            return Ok(());
        }
        let read = Scalar::of(value).map_err(|error| {
            let words = http::in_plain_words(&error);
            Error::invalid(format!("{UNREADABLE}: \"{}\": {words}", shown(name)))
        })?;
        predict::charge_parameter(self.budget, name, &read)?;
        match (name, read) {
            ("id", value) => self.request.id = request_id(value)?,
            (name, value) => {
                let value = value.parameter(name)?;
                self.request.parameters.push((name.to_owned(), value));
            }
        }
        Ok(())
    }
}

/// Reads an input from lists of any nesting. If they do not have the input's shape, its shape is
/// filled with their elements.
fn input(spec: &TensorSpec, text: &str, budget: &mut MemoryBudget) -> Result<Tensor> {
    let tensor = predict::decode_tensor(spec, text, None, budget)?;
    if spec.shape.accepts(tensor.shape()) {
        return Ok(tensor);
    }
    // An input that does not fill the shape is refused later, with the shape of its lists.
    match predict::filled_shape(&spec.shape, tensor.count()).filter(|_| tensor.shape().len() < 2) {
        Some(shape) => tensor.reshaped(shape),
        None => Ok(tensor),
    }
}

/// Encodes a response as one flat object. An output with one element is that element.
fn object(response: &InferResponse) -> Result<Bytes> {
    let mut out = Vec::with_capacity(256);
    write(response, &mut out)?;
    Ok(out.into())
}

fn write(response: &InferResponse, out: &mut Vec<u8>) -> Result<()> {
    json::begin(out, response);
    for tensor in &response.outputs {
        json::text(out, b",", tensor.name());
        out.push(b':');
        if tensor.count() == 1 {
            encode_tensor(&tensor.reshaped(Shape::new())?, false, out).map_err(not_encodable)?;
        } else {
            encode_tensor(tensor, true, out).map_err(not_encodable)?;
        }
    }
    out.push(b'}');
    Ok(())
}

/// Adds a hint to an error: the client chose a form that cannot hold this response, and can choose
/// another.
fn not_encodable(error: Error) -> Error {
    Error::new(error.kind(), format!("{}; ask for it with infer, as binary data", error.message()))
}

fn event(response: &InferResponse) -> Result<Bytes> {
    let mut out = b"data: ".to_vec();
    write(response, &mut out)?;
    out.extend_from_slice(b"\n\n");
    Ok(out.into())
}

fn event_stream(content: ReplyContent) -> Reply {
    let mut reply = Reply::new(content);
    let headers = reply.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

/// Returns the next response as an event. An error is the last event.
fn next_event(mut stream: InferStream) -> Step<InferStream> {
    Box::pin(async move {
        let Some(response) = stream.next().await else {
            stream.end(status);
            return (Bytes::new(), None);
        };
        let event = match response {
            Ok(response) => encoded(response, event).await,
            Err(error) => Err(error),
        };
        match event {
            Ok(event) => (event, Some(stream)),
            Err(error) => {
                stream.into_scope().end(status(Some(&error)), Some(&error));
                (error_event(&error), None)
            }
        }
    })
}
