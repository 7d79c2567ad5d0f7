//! The generate extension: a flat JSON object in, flat JSON objects out; `generate_stream` gives them as
//! server-sent events. A field that is named as an input is that input, every other one is a parameter.

use super::infer::{self, InferRequest, InferResponse, InferStream};
use super::inference::Asked;
use super::{error_json, json, status_of};
use crate::error::{Error, Result};
use crate::predict::{self, JsonLimits, Metadata, Parameters, Shape, Tensor, TensorSpec, encode_tensor};
use crate::router::Journey;
use crate::server::http::{self, Content, Reply};
use crate::server::parts::{self, Step};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

impl Asked<'_> {
    /// `POST …/generate`: a model that streams must give exactly one response.
    pub async fn generate(&self, body: Incoming) -> Reply {
        let mut stream = match self.begin_stream(body).await {
            Ok(stream) => stream,
            Err((journey, error)) => return self.end(journey, Err(error)).await,
        };
        let answer = match stream.next().await {
            Some(Ok(response)) => match stream.next().await {
                None => object(&response).map(|text| http::json(StatusCode::OK, text)),
                Some(Err(error)) => Err(error),
                Some(Ok(_)) => Err(not_one("more than one")),
            },
            Some(Err(error)) => Err(error),
            None => Err(not_one("none")),
        };
        self.end(stream.into_journey(), answer).await
    }

    /// `POST …/generate_stream`: what is wrong with the request is an answer like any other; what the model has
    /// instead of a first response is an event, with its status.
    pub async fn generate_stream(&self, body: Incoming) -> Reply {
        let mut stream = match self.begin_stream(body).await {
            Ok(stream) => stream,
            Err((journey, error)) => return self.end(journey, Err(error)).await,
        };
        let first = match stream.next().await.transpose() {
            Ok(first) => first.as_ref().map(event).transpose(),
            Err(error) => Err(error),
        };
        let first = match first {
            Ok(first) => first,
            Err(error) => return fault(stream.into_journey(), &error),
        };
        let (id, generation) = (Arc::clone(stream.journey().id()), stream.journey().generation());
        let content = match first {
            Some(event) => parts::content(event, stream, next_event),
            None => {
                stream.end(status);
                Content::Empty
            }
        };
        let mut reply = event_stream(content);
        http::sign(&mut reply, &id, generation);
        reply
    }

    async fn begin_stream(&self, body: Incoming) -> Result<InferStream, (Journey, Error)> {
        let mut journey = self.begin();
        let begun = match self.read(body).await {
            Ok(body) => self.resolve(&mut journey).and_then(|route| {
                let request = request(&body, route.metadata(), self.limits())?;
                Ok((route, request))
            }),
            Err(error) => Err(error),
        };
        match begun {
            Ok((route, request)) => infer::stream(journey, &route, request),
            Err(error) => Err((journey, error)),
        }
    }
}

/// The one event of a stream that ends before its first response.
fn fault(journey: Journey, error: &Error) -> Reply {
    let mut reply = event_stream(Content::Whole(fault_event(error)));
    *reply.status_mut() = status_of(error);
    http::retry_after(&mut reply, error);
    http::sign(&mut reply, journey.id(), journey.generation());
    journey.end(reply.status().as_u16(), Some(error));
    reply
}

fn fault_event(error: &Error) -> Bytes {
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

/// The fields of a request, as they stand.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of inputs and parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

fn request(body: &[u8], metadata: &Metadata, limits: JsonLimits) -> Result<InferRequest> {
    const UNREADABLE: &str = "the body is not a generate request";
    let mut request =
        InferRequest { id: None, parameters: Parameters::new(), inputs: Vec::new(), outputs: Vec::new() };
    let mut fields = super::parse_object::<Object<'_>>(body, UNREADABLE)?.0;
    let is_input = |name: &str| metadata.inputs.iter().any(|spec| *spec.name == *name);
    let mut nested = None;
    if let Some(place) = fields.iter().position(|(name, _)| name == "parameters" && !is_input(name)) {
        let (_, value) = fields.remove(place);
        let inner: Object<'_> =
            http::parse_object(value.get().as_bytes(), "Expected JSON object for keyword: 'parameters'")?;
        nested = Some(inner);
    }
    let nested = nested.into_iter().flat_map(|inner| inner.0).map(|field| (field, true));
    for ((name, value), is_nested) in fields.into_iter().map(|field| (field, false)).chain(nested) {
        if let Some(spec) = metadata.inputs.iter().find(|spec| *spec.name == *name) {
            request.inputs.push(input(spec, value.get(), limits)?);
            continue;
        }
        let read: Value = serde_json::from_str(value.get())
            .map_err(|error| Error::invalid(format!("{UNREADABLE}: \"{name}\": {error}")))?;
        match (&*name, read) {
            ("id", Value::String(id)) => request.id = Some(id),
            (name, value) => {
                let parameter = predict::parameter(name, &value).map_err(|error| match is_nested {
                    true => error.context("Converting keyword: 'parameters'"),
                    false => error,
                })?;
                request.parameters.push((name.to_owned(), parameter));
            }
        }
    }
    Ok(request)
}

/// Elements in whatever lists; where these are not of the input's shape, its shape is filled with the elements.
fn input(spec: &TensorSpec, text: &str, limits: JsonLimits) -> Result<Tensor> {
    let tensor = predict::decode_tensor(spec, text, None, limits)?;
    if predict::fits(&spec.shape, tensor.shape()) {
        return Ok(tensor);
    }
    // What cannot be filled is refused with its own shape.
    match infer::filled(&spec.shape, tensor.count()).filter(|_| tensor.shape().len() < 2) {
        Some(shape) => tensor.reshaped(shape),
        None => Ok(tensor),
    }
}

/// A response as one flat object: an output of one element is that element.
fn object(response: &InferResponse) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    write(response, &mut out)?;
    Ok(out)
}

fn write(response: &InferResponse, out: &mut Vec<u8>) -> Result<()> {
    json::begin(out, response);
    for tensor in &response.outputs {
        json::text(out, b",", tensor.name());
        out.push(b':');
        if tensor.count() == 1 {
            encode_tensor(&tensor.reshaped(Shape::new())?, false, out).map_err(unsayable)?;
        } else {
            encode_tensor(tensor, true, out).map_err(unsayable)?;
        }
    }
    out.push(b'}');
    Ok(())
}

/// The caller chose a form that this answer does not fit, and can choose another.
fn unsayable(error: Error) -> Error {
    Error::new(error.kind(), format!("{}; ask for it with infer, as binary data", error.message()))
}

fn event(response: &InferResponse) -> Result<Bytes> {
    let mut out = b"data: ".to_vec();
    write(response, &mut out)?;
    out.extend_from_slice(b"\n\n");
    Ok(out.into())
}

fn event_stream(content: Content) -> Reply {
    let mut reply = Reply::new(content);
    let headers = reply.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

/// The next response as an event. An error is the last one.
fn next_event(mut stream: InferStream) -> Step<InferStream> {
    Box::pin(async move {
        let Some(response) = stream.next().await else {
            stream.end(status);
            return (Bytes::new(), None);
        };
        match response.and_then(|response| event(&response)) {
            Ok(event) => (event, Some(stream)),
            Err(error) => {
                stream.into_journey().end(status(Some(&error)), Some(&error));
                (fault_event(&error), None)
            }
        }
    })
}
