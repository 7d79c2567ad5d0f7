//! `POST /predict/stream`: each response as it comes, as server-sent events or as lines of JSON. A model that answers
//! once gives one. The protocols of others stream in forms of their own.

use super::http::{self, Reply, ReplyContent};
use super::plain::Public;
use super::request;
use super::streaming_body::{self, Step};
use crate::error::{Error, Result};
use crate::offload;
use crate::policy::Route;
use crate::predict::{self, Response, Responses};
use crate::router::RequestScope;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CACHE_CONTROL, HeaderValue};
use hyper::{HeaderMap, Request, StatusCode};
use std::sync::Arc;

pub(super) async fn answer(public: &Public, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let header = |name: &str| http::header(&parts.headers, name);
    let mut scope = public.router.begin(http::request_id(&parts.headers), "plain", &header);
    let form = Form::of(&parts.headers);
    let begun = begin(public, &mut scope, &header, body).await;
    let (id, generation) = (Arc::clone(scope.id()), scope.generation());
    let mut reply = match begun {
        Ok((route, responses)) => first(Stream { scope, route, responses, form }).await,
        Err(error) => refused(scope, &error),
    };
    http::sign(&mut reply, &id, generation);
    reply
}

async fn begin(
    public: &Public,
    scope: &mut RequestScope,
    header: &(dyn Fn(&str) -> Option<String> + Sync),
    body: Incoming,
) -> Result<(Arc<Route>, Responses)> {
    let body = http::read_body(body, &public.transfers).await?;
    let request = request::Request::read(body).await?;
    let route = scope.resolve(&request.head.model, request.head.version(), &header)?;
    let (options, input) = request.input(&route, public.router.budget()).await?;
    let responses = scope.stream(&route, options, input)?;
    Ok((route, responses))
}

/// What fails before its first response is answered as elsewhere, with its status.
async fn first(mut stream: Stream) -> Reply {
    let form = stream.form;
    let content = match stream.next().await {
        Some(Ok(part)) => streaming_body::content(part, stream, Stream::step),
        Some(Err(error)) => return refused(stream.scope, &error),
        None => {
            stream.scope.end(StatusCode::OK.as_u16(), None);
            form.end().into()
        }
    };
    let mut reply = Reply::new(content);
    reply.headers_mut().insert(hyper::header::CONTENT_TYPE, form.content_type());
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

fn refused(scope: RequestScope, error: &Error) -> Reply {
    let reply = http::error_reply(error, scope.id());
    scope.end(reply.status().as_u16(), Some(error));
    reply
}

/// How responses are written.
#[derive(Clone, Copy)]
enum Form {
    /// `data: …` and an empty line; the last event is `end` or `error`.
    Events,
    /// A line each; an error is the last line.
    Lines,
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if accepts.contains("text/event-stream") { Form::Events } else { Form::Lines }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Form::Events => "text/event-stream",
            Form::Lines => "application/x-ndjson",
        })
    }

    fn part(self, response: &Response) -> Result<Bytes> {
        let (before, after) = match self {
            Form::Events => ("data: {\"result\":", "}\n\n"),
            Form::Lines => ("{\"result\":", "}\n"),
        };
        let mut part = Vec::with_capacity(128);
        part.extend_from_slice(before.as_bytes());
        predict::encode_result(&response.payload, &mut part)?;
        // JSON of a plugin's own may have lines; between its tokens they mean nothing.
        part.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        part.extend_from_slice(after.as_bytes());
        Ok(part.into())
    }

    fn error(self, error: &Error, id: &str) -> Bytes {
        let ReplyContent::Whole(body) = http::error_reply(error, id).into_body() else { return Bytes::new() };
        let body = String::from_utf8_lossy(&body);
        match self {
            Form::Events => format!("event: error\ndata: {body}\n\n").into(),
            Form::Lines => format!("{body}\n").into(),
        }
    }

    fn end(self) -> Bytes {
        Bytes::from_static(match self {
            Form::Events => b"event: end\ndata: {}\n\n",
            Form::Lines => b"",
        })
    }
}

/// The responses to one request. Dropping it cancels the work.
struct Stream {
    scope: RequestScope,
    route: Arc<Route>,
    responses: Responses,
    form: Form,
}

impl Stream {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        let response = self.scope.next(&self.route, &mut self.responses).await?;
        let response = match response {
            Ok(response) => response,
            Err(error) => return Some(Err(error)),
        };
        let form = self.form;
        Some(offload::run(response.payload.json_bytes(), move || form.part(&response)).await)
    }

    fn step(mut self) -> Step<Self> {
        Box::pin(async move {
            match self.next().await {
                Some(Ok(part)) => (part, Some(self)),
                Some(Err(error)) => (self.end(Some(&error)), None),
                None => (self.end(None), None),
            }
        })
    }

    /// The last part, and the account of the whole.
    fn end(self, error: Option<&Error>) -> Bytes {
        let status = error.map_or(StatusCode::OK, http::status_of);
        let part = match error {
            Some(error) => self.form.error(error, self.scope.id()),
            None => self.form.end(),
        };
        self.scope.end(status.as_u16(), error);
        part
    }
}
