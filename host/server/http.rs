//! What all HTTP routes share: bodies, replies, request ids, error kind to status.

use super::transfers::{Receiving, Transfers};
use super::wake_gate;
use crate::error::{Error, Kind, Result};
use crate::task_timer;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, Response, StatusCode};
use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub type Reply = Response<ReplyContent>;

/// What an answer carries: all at once, or parts as they come. One that is whole costs no box.
#[derive(Default)]
pub enum ReplyContent {
    #[default]
    Empty,
    Whole(Bytes),
    Parts(Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>),
}

impl From<Bytes> for ReplyContent {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { ReplyContent::Empty } else { ReplyContent::Whole(bytes) }
    }
}

impl Body for ReplyContent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            ReplyContent::Empty => Poll::Ready(None),
            ReplyContent::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = ReplyContent::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            ReplyContent::Parts(body) => body.as_mut().poll_frame(task),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyContent::Empty => true,
            ReplyContent::Whole(_) => false,
            ReplyContent::Parts(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyContent::Empty => SizeHint::with_exact(0),
            ReplyContent::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyContent::Parts(body) => body.size_hint(),
        }
    }
}

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const GENERATION: HeaderName = HeaderName::from_static("x-hostler-generation");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The field at fault where a body does not arrive.
const BODY: &str = "body";

/// Reads a body whole, within the limits of size, time and pace.
pub async fn read_body(mut body: Incoming, transfers: &Arc<Transfers>) -> Result<Bytes> {
    let limits = transfers.limits();
    let max = limits.max_body_bytes;
    let too_large = || Error::too_large(format!("the body is over {} MB; see max_body_mb", max >> 20));
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let read = collect(&mut body, max, transfers);
    match task_timer::within(limits.body_timeout, read).await {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(Unread::TooLarge)) => Err(too_large()),
        Some(Err(Unread::Refused(error))) => {
            // Rare, and not to be a part of every request.
            Box::pin(discard(body, max)).await;
            Err(error)
        }
        Some(Err(Unread::Broken(error))) if left(&error) => {
            Err(Error::cancelled("the client left before its body was whole"))
        }
        Some(Err(Unread::Broken(error))) => Err(Error::invalid(format!("cannot read the body: {error}"))),
        None => {
            let ms = limits.body_timeout.as_millis();
            Err(Error::deadline(format!("the body did not arrive within {ms} ms")).field(BODY))
        }
    }
}

enum Unread {
    TooLarge,
    /// For what the host holds already, or for its pace.
    Refused(Error),
    Broken(hyper::Error),
}

/// Whether a body broke off because its client is gone, and not because of what it holds.
fn left(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| {
        matches!(cause.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
    })
}

/// Room that is reserved at once for what has not arrived yet.
pub const RESERVED_BYTES_MAX: usize = 64 << 20;

/// One frame, as small requests have, is not copied. Room for the others is reserved once, so that a large body is not
/// copied while it grows; what has not arrived takes no memory.
async fn collect(body: &mut Incoming, max: usize, transfers: &Arc<Transfers>) -> Result<Bytes, Unread> {
    let length = body.size_hint().exact().map(|length| length as usize);
    let mut receiving = Receiving::new(transfers);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = receiving.unless_aborted(wake_gate::next_frame(body)).await;
        let Some(frame) = frame.map_err(Unread::Refused)? else { break };
        let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > max {
            return Err(Unread::TooLarge);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(length.unwrap_or(max).min(RESERVED_BYTES_MAX));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
        receiving.hold(first.len() + rest.len(), length).await.map_err(Unread::Refused)?;
    }
    Ok(receiving.finish(if rest.is_empty() { first } else { rest.freeze() }))
}

/// Takes the rest of a refused body and keeps nothing of it: most clients read an answer only once they have sent their
/// request, and lose it if the connection ends before. Not for long, since a slow client may send for ever.
async fn discard(mut body: Incoming, mut max: usize) {
    const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

    let discarded = task_timer::within(DISCARD_TIMEOUT, async {
        while let Some(Ok(frame)) = wake_gate::next_frame(&mut body).await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match max.checked_sub(bytes) {
                Some(left) => max = left,
                None => return,
            }
        }
    });
    discarded.await;
}

/// Reads what must be a JSON object; `otherwise` begins the error.
pub fn parse_object<'a, T: serde::Deserialize<'a>>(text: &'a [u8], otherwise: &str) -> Result<T> {
    parse_with(text, otherwise, std::marker::PhantomData)
}

/// The same, with what reads it.
pub fn parse_with<'a, S: serde::de::DeserializeSeed<'a>>(
    text: &'a [u8],
    otherwise: &str,
    seed: S,
) -> Result<S::Value> {
    // serde would take a list of the fields' values as well.
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Err(Error::invalid("the body is empty; send a JSON object")),
        Some(b'{') => read_whole(text, seed)
            .map_err(|error| Error::invalid(format!("{otherwise}: {}", in_plain_words(&error)))),
        Some(_) => Err(Error::invalid(format!("{otherwise}: expected a JSON object"))),
    }
}

fn read_whole<'a, S: serde::de::DeserializeSeed<'a>>(
    text: &'a [u8],
    seed: S,
) -> serde_json::Result<S::Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Bytes of what a parser says that are kept: it may quote the name of a field whole.
const WORDS_BYTES_MAX: usize = 1 << 10;

/// What serde says of a value of another type, without the names that types have in this program.
pub fn in_plain_words(error: &serde_json::Error) -> String {
    let mut message = Cut(String::new());
    // An error is no more than what does not fit.
    let _ = write!(message, "{error}");
    let message = message.0.as_str();
    let type_or_value = ["invalid type: ", "invalid value: "];
    let Some(rest) = type_or_value.iter().find_map(|start| message.strip_prefix(start)) else {
        return message.to_owned();
    };
    let Some((got, wanted)) = rest.rsplit_once(", expected ") else { return message.to_owned() };
    let (wanted, place) = wanted.find(" at line ").map_or((wanted, ""), |at| wanted.split_at(at));
    let got = match got.split_once(' ') {
        Some(("integer", number)) => format!("the number {}", number.trim_matches('`')),
        Some(("floating", number)) => {
            format!("the number {}", number.trim_start_matches("point ").trim_matches('`'))
        }
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        Some(("string", text)) => format!("the text {text}"),
        _ => match got {
            "map" => "an object".to_owned(),
            "sequence" => "a list".to_owned(),
            got => got.to_owned(),
        },
    };
    let wanted = match wanted {
        "i64" | "u64" | "usize" => "a whole number of 64 bits",
        "f64" => "a number",
        "a map" => "an object",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        wanted if wanted.starts_with("struct ") => "an object",
        wanted => wanted,
    };
    format!("got {got}, expected {wanted}{place}")
}

/// Text up to a limit.
struct Cut(String);

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = WORDS_BYTES_MAX.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(std::fmt::Error) } else { Ok(()) }
    }
}

/// The caller's request id, if it is one that can go into a log; otherwise a new one.
pub fn request_id(headers: &HeaderMap) -> Arc<str> {
    match headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| usable_as_id(id)) {
        Some(id) => id.into(),
        None => new_id(),
    }
}

/// 128 random bits in hexadecimal.
fn new_id() -> Arc<str> {
    let mut id = [0; 32];
    for half in id.chunks_exact_mut(16) {
        let mut bits = fastrand::u64(..);
        for digit in half {
            bits = bits.rotate_left(4);
            *digit = b"0123456789abcdef"[bits as usize & 15];
        }
    }
    std::str::from_utf8(&id).expect("invariant: digits are ASCII").into()
}

/// Whether a text may go into a log and a header as it is.
pub fn usable_as_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A header's value as text.
pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

pub fn reply(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ReplyContent::from(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, JSON, body)
}

pub fn json_of(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    json(status, serde_json::to_vec(value).expect("invariant: answers have string keys"))
}

pub fn text(status: StatusCode, body: String) -> Reply {
    reply(status, HeaderValue::from_static("text/plain; charset=utf-8"), body)
}

/// Inputs or outputs of a model, as the Open Inference Protocol writes them.
pub fn tensor_specs(specs: &[crate::predict::TensorSpec]) -> Vec<serde_json::Value> {
    let spec = |spec: &crate::predict::TensorSpec| serde_json::json!({"name": &*spec.name, "datatype": spec.datatype.as_str(), "shape": &spec.shape[..]});
    specs.iter().map(spec).collect()
}

/// Says which request and which policy an answer belongs to.
pub fn sign<B>(reply: &mut Response<B>, id: &str, generation: u64) {
    if let Ok(id) = HeaderValue::from_str(id) {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    reply.headers_mut().insert(GENERATION, generation.into());
}

/// Error kind to status of the plain interface: the one place that says so.
pub fn status_of(error: &Error) -> StatusCode {
    match error.kind() {
        Kind::InvalidInput => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        // The caller was late, not the work.
        Kind::Deadline if error.field_name() == Some(BODY) => StatusCode::REQUEST_TIMEOUT,
        Kind::Deadline => StatusCode::GATEWAY_TIMEOUT,
        Kind::Cancelled => StatusCode::from_u16(499).expect("invariant: a three-digit code"),
        Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Forbidden => StatusCode::FORBIDDEN,
    }
}

/// An error in the form of the plain interface.
pub fn error_reply(error: &Error, id: &str) -> Reply {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        error: Fields<'a>,
    }

    #[derive(serde::Serialize)]
    struct Fields<'a> {
        kind: &'static str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        plugin: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<&'a str>,
        request_id: &'a str,
    }

    let fields = Fields {
        kind: error.kind().as_str(),
        message: error.message(),
        field: error.field_name(),
        model: error.model_name(),
        plugin: error.plugin_name(),
        step: error.step_name(),
        request_id: id,
    };
    let mut reply = json_of(status_of(error), &Body { error: fields });
    retry_after(&mut reply, error);
    reply
}

/// Overload passes; one second is the shortest that the header can say.
pub fn retry_after(reply: &mut Reply, error: &Error) {
    if error.kind() == Kind::Overloaded {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

/// A path that exists, asked with another verb.
pub fn method_not_allowed(allow: &'static str) -> Reply {
    let body =
        format!("{{\"error\":{{\"kind\":\"unsupported\",\"message\":\"this path takes {allow} only\"}}}}");
    let mut reply = json(StatusCode::METHOD_NOT_ALLOWED, body);
    reply.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static(allow));
    reply
}

/// A path that does not exist.
pub fn no_such_path(method: &Method, path: &str) -> Reply {
    let path: String = path.chars().take(200).collect();
    let mut message = String::new();
    let _ = write!(message, "no route {method} {path}; see GET /models, POST /predict, GET /v2");
    let error = Error::not_found(message);
    error_reply(&error, "")
}

/// One part of a path, decoded.
pub fn decode_segment(segment: &str) -> Result<String> {
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
    decoded.map(Into::into).map_err(|_| Error::invalid("the path is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_of_this_program_is_named() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "it is never read")]
        struct Thing {
            number: Option<i64>,
            list: Option<Vec<Thing>>,
            flag: Option<bool>,
        }
        for (text, expected) in [
            (
                r#"{"number": 1.5}"#,
                "got the number 1.5, expected a whole number of 64 bits at line 1 column 14",
            ),
            (
                r#"{"number": "1, expected f64"}"#,
                "got the text \"1, expected f64\", expected a whole number of 64 bits",
            ),
            (r#"{"number": {}}"#, "got an object, expected a whole number of 64 bits"),
            (r#"{"number": true}"#, "got true, expected a whole number of 64 bits"),
            (r#"{"list": {}}"#, "got an object, expected a list"),
            (r#"{"list": [7]}"#, "got the number 7, expected an object"),
            (r#"{"flag": null, "list": [null]}"#, "got null, expected an object"),
            (r#"{"flag": []}"#, "got a list, expected true or false"),
            (
                r#"{"number": 9223372036854775808}"#,
                "got the number 9223372036854775808, expected a whole number",
            ),
            (r#"{"flag": tru}"#, "expected ident"),
        ] {
            let message = parse_object::<Thing>(text.as_bytes(), "not a thing").unwrap_err();
            let message = message.message().strip_prefix("not a thing: ").unwrap();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }
}
