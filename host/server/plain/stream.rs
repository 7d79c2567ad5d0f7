//! `POST /predict/stream`: each response is sent when it is made, as a server-sent event or as a
//! line of JSON. A model that answers once sends one. Other protocols stream in forms of their own.

use super::request;
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::offload;
use crate::policy::Route;
use crate::predict::{self, Response, Responses};
use crate::router::RequestScope;
use crate::server::http::streaming_body::{self, Step};
use crate::server::http::{self, Reply, ReplyContent, RequestBody};
use crate::server::state::Public;
use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};
use std::sync::Arc;

pub(in crate::server) async fn answer(public: &Public, head: &Parts, body: RequestBody) -> Reply {
    let id = http::request_id(&head.headers);
    let mut scope = public.router.begin(
        id,
        "plain",
        public.authority(head, Verb::Predict),
        &http::header_lookup(&head.headers),
    );
    let form = StreamForm::of(&head.headers);
    let begun = begin(public, &mut scope, head, body).await;
    let (id, generation) = (Arc::clone(scope.id()), scope.generation());
    let mut reply = match begun {
        Ok((route, responses)) => first(PredictStream { scope, route, responses, form }).await,
        Err(error) => refused(scope, &error),
    };
    http::sign(&mut reply, &id, generation);
    reply
}

async fn begin(
    public: &Public,
    scope: &mut RequestScope,
    head: &Parts,
    body: RequestBody,
) -> Result<(Arc<Route>, Responses)> {
    let body = public.read(scope, head, body).await?;
    let request = request::Request::read(body).await?;
    let route =
        scope.resolve(&request.head.model, request.head.version(), &http::header_lookup(&head.headers))?;
    let (options, input) = request.input(&route, public.router.budget()).await?;
    let responses = scope.stream(&route, options, input)?;
    Ok((route, responses))
}

/// Begins the reply with the first response. An error before it is a reply with the error's status,
/// as for other routes.
async fn first(mut stream: PredictStream) -> Reply {
    let form = stream.form;
    let content = match stream.next().await {
        Some(Ok(part)) => streaming_body::content(part, stream, PredictStream::step),
        Some(Err(error)) => return refused(stream.scope, &error),
        None => {
            stream.scope.end(StatusCode::OK.as_u16(), None);
            form.end().into()
        }
    };
    let mut reply = Reply::new(content);
    reply.headers_mut().insert(CONTENT_TYPE, form.content_type());
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
enum StreamForm {
    /// Each response is `data: …` and an empty line; the last event is `end` or `error`.
    Events,
    /// Each response is a line; an error is the last line.
    Lines,
}

impl StreamForm {
    fn of(headers: &HeaderMap) -> Self {
        match http::accepts(headers, "text/event-stream") {
            true => StreamForm::Events,
            false => StreamForm::Lines,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            StreamForm::Events => "text/event-stream",
            StreamForm::Lines => "application/x-ndjson",
        })
    }

    fn part(self, response: &Response) -> Result<Bytes> {
        let (before, after) = match self {
            StreamForm::Events => ("data: {\"result\":", "}\n\n"),
            StreamForm::Lines => ("{\"result\":", "}\n"),
        };
        let mut part = Vec::with_capacity(128);
        part.extend_from_slice(before.as_bytes());
        predict::encode_result(&response.payload, &mut part)?;
        // JSON that a plugin made may have line breaks. Between tokens they have no meaning.
        part.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        part.extend_from_slice(after.as_bytes());
        Ok(part.into())
    }

    fn error(self, error: &Error, id: &str) -> Bytes {
        let ReplyContent::Whole(body) = http::error_reply(error, id).into_body() else { return Bytes::new() };
        let body = String::from_utf8_lossy(&body);
        match self {
            StreamForm::Events => format!("event: error\ndata: {body}\n\n").into(),
            StreamForm::Lines => format!("{body}\n").into(),
        }
    }

    fn end(self) -> Bytes {
        Bytes::from_static(match self {
            StreamForm::Events => b"event: end\ndata: {}\n\n",
            StreamForm::Lines => b"",
        })
    }
}

/// The responses to one request. Dropping this cancels the work.
struct PredictStream {
    scope: RequestScope,
    route: Arc<Route>,
    responses: Responses,
    form: StreamForm,
}

impl PredictStream {
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

    /// Accounts for the stream and returns its last part.
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
