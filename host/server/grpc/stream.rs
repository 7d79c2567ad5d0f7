//! `ModelStreamInfer`: many requests on one call, each with any number of responses.
//!
//! Requests run side by side. Responses of a streaming model come as they are made; those of models that answer
//! once come in the order of their requests, as callers without ids expect. An error is a message and not
//! the end: the stream goes on.

use super::frame::{self, Messages};
use super::received::Message;
use super::{Grpc, infer, status};
use crate::error::{Error, Result};
use crate::predict::Parameter;
use crate::proto::inference::{ModelInferResponse, ModelStreamInferResponse};
use crate::router::RequestScope;
use crate::server::oip::infer::{self as oip, ENABLE_EMPTY_FINAL, InferRequest, InferResponse};
use crate::server::transfers::{Abort, Hold, Transfer};
use crate::server::{http, stopped};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tonic::Status;
use tonic::codec::{EncodeBody, SingleMessageCompressionOverride};
use tonic::codegen::tokio_stream::Stream;
use tonic_prost::ProstEncoder;

/// Requests of one stream that are read and not answered: clients have one stream for all that they wait for.
const READ_MAX: usize = 1024;

/// Those of them that take the places of an executor.
const RUNNING_MAX: usize = 64;

/// What they may hold, in multiples of the largest message.
const MESSAGES_HELD_MAX: usize = 4;

/// Responses that wait for a slow reader, before the work waits as well; one that is larger than all may be waits
/// alone.
const WAITING_MAX: usize = 16;
const WAITING_BYTES_MAX: usize = 4 << 20;

/// What a response takes besides its contents.
const HEAD_BYTES: usize = 512;

/// Set on a response: whether it is the last to its request.
const FINAL: &str = "triton_final_response";

type StreamReply = Result<ModelStreamInferResponse, Status>;

/// An answer that waits for the caller, and what it uses of the bounds.
struct Waiting {
    answer: StreamReply,
    _bytes: Option<OwnedSemaphorePermit>,
    _hold: Hold,
}

/// What the caller reads. Dropped when it leaves, and all its work with it.
pub(super) struct StreamReplies {
    receiver: mpsc::Receiver<Waiting>,
    driver: AbortHandle,
}

impl Stream for StreamReplies {
    type Item = StreamReply;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<StreamReply>> {
        self.receiver.poll_recv(task).map(|waiting| {
            let Waiting { answer, _hold: hold, .. } = waiting?;
            hold.moved();
            Some(answer)
        })
    }
}

impl Drop for StreamReplies {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What the requests of one stream share.
struct StreamCall {
    grpc: Arc<Grpc>,
    headers: HeaderMap,
    deadline: Option<Instant>,
    /// An error ends the stream with its status, as the caller asked (`triton_grpc_error`).
    errors_end: bool,
    answers: mpsc::Sender<Waiting>,
    places: Semaphore,
    /// Bytes of answers that may wait.
    waiting_bytes: Arc<Semaphore>,
    /// Counts them.
    transfer: Arc<Transfer>,
}

/// Requests are framed here, so that each is counted before it is built; answers by tonic.
pub(super) fn answer(
    grpc: &Arc<Grpc>,
    request: Request<Incoming>,
    call: &Arc<super::call::Call>,
) -> Response<frame::Body> {
    let (parts, body) = request.into_parts();
    let requests = match frame::encoding(&parts.headers) {
        Ok(encoding) => Messages::new(body, encoding, Arc::clone(&grpc.transfers)),
        Err(error) => return status::refusal(&error),
    };
    let call = Arc::clone(call) as Arc<dyn Abort>;
    let transfer = Transfer::answer(&grpc.transfers, call, parts.headers.get(http::REQUEST_ID).cloned());
    let answers = begin(Arc::clone(grpc), parts.headers, requests, transfer);
    let once = SingleMessageCompressionOverride::default();
    // What a model answers is not the caller's doing.
    let body = EncodeBody::new_server(ProstEncoder::default(), answers, None, once, Some(usize::MAX));
    let mut response = Response::new(frame::Body::Tonic(tonic::body::Body::new(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn begin(grpc: Arc<Grpc>, headers: HeaderMap, requests: Messages, transfer: Arc<Transfer>) -> StreamReplies {
    let (answers, receiver) = mpsc::channel(WAITING_MAX);
    // What cannot be read was refused before.
    let timeout = infer::timeout(&headers).unwrap_or_default();
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let errors_end = headers.get("triton_grpc_error").is_some_and(|value| value == "true");
    let stop = grpc.stop.clone();
    let call = Arc::new(StreamCall {
        grpc,
        headers,
        deadline,
        errors_end,
        answers,
        places: Semaphore::new(RUNNING_MAX),
        waiting_bytes: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
        transfer,
    });
    let driver = tokio::spawn(drive(call, requests, stop)).abort_handle();
    StreamReplies { receiver, driver }
}

/// Reads requests and lets them run, until the caller has no more, is out of time, or the host stops.
async fn drive(call: Arc<StreamCall>, requests: Messages, mut stop: watch::Receiver<bool>) {
    let mut running = JoinSet::new();
    let bytes_max = MESSAGES_HELD_MAX * call.grpc.router.limits().max_body_bytes;
    // Where the host holds much already, a stream is given one message at a time.
    let is_partial = requests.is_partial();
    let may_read = |running: usize, held: usize| {
        let has_room = || held == 0 || held < bytes_max && !call.grpc.transfers.is_tight();
        // A message that has begun is read on: its client must not wait for the host.
        is_partial.load(Ordering::Relaxed) || running < READ_MAX && has_room()
    };
    let work = async {
        let mut turn = SendOrder::first();
        let mut held_bytes = 0;
        // Never dropped in the middle of a message.
        let mut next = pin!(next(Arc::clone(&call), requests));
        let ended = loop {
            tokio::select! {
                (requests, message) = &mut next, if may_read(running.len(), held_bytes) => {
                    match message {
                        Ok(Some(message)) => {
                            next.set(self::next(Arc::clone(&call), requests));
                            let (own, after) = turn.split();
                            turn = after;
                            let (call, bytes) = (Arc::clone(&call), message.held_bytes());
                            held_bytes += bytes;
                            running.spawn(async move {
                                run(call, message, own).await;
                                bytes
                            });
                        }
                        Ok(None) => break None,
                        Err(error) => break Some(status::status_of(&error)),
                    }
                }
                // One that panicked has its bytes counted to the end of the stream.
                Some(ended) = running.join_next(), if !running.is_empty() => held_bytes -= ended.unwrap_or(0),
                () = stopped(&mut stop) => break Some(Status::unavailable("the host is stopping")),
            }
        };
        while running.join_next().await.is_some() {}
        ended
    };
    let ended = match call.deadline {
        None => work.await,
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| {
            Some(status::status_of(&Error::deadline("the deadline of the stream has passed")))
        }),
    };
    if let Some(status) = ended {
        call.queue(Err(status), HEAD_BYTES).await;
    }
}

/// The next request, and the way to those after it.
async fn next(call: Arc<StreamCall>, mut requests: Messages) -> (Messages, Result<Option<Message>>) {
    let message = match requests.next().await {
        Ok(Some(bytes)) => Message::read(bytes, call.grpc.router.budget()).await.map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    (requests, message)
}

/// One request, to its last response.
async fn run(call: Arc<StreamCall>, message: Message, mut turn: SendOrder) {
    let id = message.id().to_owned();
    let mut scope = {
        let request_id = infer::request_id(&call.headers, &id);
        call.grpc.router.begin(request_id, "grpc", &|name| http::header(&call.headers, name))
    };
    let version = infer::version(message.version());
    let resolved = scope
        .resolve(message.model(), version, &|name| http::header(&call.headers, name))
        .map_err(|error| oip::unknown_model(error, version));
    let _place = match &resolved {
        // They wait side by side in their instance, up to a limit of its own.
        Ok(route) if route.is_shared() => None,
        // Dropped with its answer. The semaphore is never closed.
        _ => call.places.acquire().await.ok(),
    };
    let left = || call.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let decoded = match resolved {
        Ok(route) => message.decode(left).await.map(|request| (route, request)),
        Err(error) => {
            // It is not kept while the answer waits for its turn.
            drop(message);
            Err(error)
        }
    };
    let error = match decoded {
        Ok((route, request)) if route.is_streaming() => {
            let marks = asks_for_marks(&request);
            tokio::join!(turn.pass(), call.responses(scope, &route, request, marks));
            return;
        }
        Ok((route, request)) => match oip::infer(&mut scope, &route, request).await {
            Ok(response) => {
                turn.come().await;
                call.send(response, true).await;
                return scope.end(status::counted(None), None);
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    turn.come().await;
    call.refuse(&error, id).await;
    scope.end(status::counted(Some(&error)), Some(&error));
}

fn asks_for_marks(request: &InferRequest) -> bool {
    let parameter = request.parameters.iter().find(|(name, _)| name == ENABLE_EMPTY_FINAL);
    matches!(parameter, Some((_, Parameter::Boolean(true))))
}

impl StreamCall {
    async fn responses(
        &self,
        scope: RequestScope,
        route: &Arc<crate::policy::Route>,
        request: InferRequest,
        marks: bool,
    ) {
        let id = request.id.clone();
        let mut stream = match oip::stream(scope, route, request) {
            Ok(stream) => stream,
            Err((scope, error)) => {
                self.refuse(&error, id.unwrap_or_default()).await;
                return scope.end(status::counted(Some(&error)), Some(&error));
            }
        };
        while let Some(response) = stream.next().await {
            match response {
                Ok(response) => self.send(response, false).await,
                Err(error) => self.fail(&error, id.clone().unwrap_or_default()).await,
            }
        }
        // The end of an error's responses as well: callers count the marks.
        if marks {
            let (parameters, outputs) = (Vec::new(), Vec::new());
            self.send(InferResponse { route: Arc::clone(route), id, parameters, outputs }, true).await;
        }
        stream.end(status::counted);
    }

    async fn send(&self, response: InferResponse, last: bool) {
        let (mut head, contents) = infer::encode(response);
        let bytes = contents.iter().map(Bytes::len).sum::<usize>() + HEAD_BYTES;
        head.raw_output_contents = contents;
        head.parameters.insert(FINAL.into(), infer::parameter(Parameter::Boolean(last)));
        let answer = ModelStreamInferResponse { error_message: String::new(), infer_response: Some(head) };
        self.queue(Ok(answer), bytes).await;
    }

    /// Waits until the answer may wait for the caller.
    async fn queue(&self, answer: StreamReply, bytes: usize) {
        let hold = self.transfer.hold(bytes);
        let permits = u32::try_from(bytes.min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.waiting_bytes).acquire_many_owned(permits).await.ok();
        let _ = self.answers.send(Waiting { answer, _bytes: permit, _hold: hold }).await;
    }

    /// A request that has not begun. The response beside the error says which one it is about.
    async fn refuse(&self, error: &Error, id: String) {
        self.say(error, ModelInferResponse { id, ..Default::default() }).await;
    }

    /// A request whose responses end so.
    async fn fail(&self, error: &Error, id: String) {
        let mut response = ModelInferResponse { id, ..Default::default() };
        response.parameters.insert(FINAL.into(), infer::parameter(Parameter::Boolean(false)));
        self.say(error, response).await;
    }

    async fn say(&self, error: &Error, response: ModelInferResponse) {
        let answer = if self.errors_end {
            Err(status::status_of(error))
        } else {
            Ok(ModelStreamInferResponse {
                error_message: error.message().into(),
                infer_response: Some(response),
            })
        };
        self.queue(answer, HEAD_BYTES + error.message().len()).await;
    }
}

/// A place in the order of a stream's answers: it comes when the one before has been let go.
struct SendOrder {
    before: Option<oneshot::Receiver<()>>,
    /// Dropped with this place, which is the word to the next.
    _own: Option<oneshot::Sender<()>>,
}

impl SendOrder {
    fn first() -> Self {
        SendOrder { before: None, _own: None }
    }

    /// This place, and the one after it.
    fn split(self) -> (Self, Self) {
        let (own, before) = oneshot::channel();
        (SendOrder { before: self.before, _own: Some(own) }, SendOrder { before: Some(before), _own: None })
    }

    async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = before.await;
        }
    }

    /// Lets the next one go as soon as this place comes.
    async fn pass(mut self) {
        self.come().await;
    }
}
