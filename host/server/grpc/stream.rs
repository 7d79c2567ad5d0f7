//! `ModelStreamInfer`: many requests on one call, each with any number of responses.
//!
//! Requests run concurrently. Responses of a streaming model are sent when they are made; those of
//! models that answer once are sent in the order of their requests, as clients without ids expect.
//! An error is a message, after which the stream continues.

use super::body::Body;
use super::encode::{encode, parameter};
use super::messages::Messages;
use super::received::Message;
use super::send_turn::SendTurn;
use super::state::Grpc;
use super::stream_replies::{QueuedReply, StreamReplies, StreamReply};
use super::text::non_empty;
use super::timeout::deadline_passed;
use super::{frame, status};
use crate::access::{Requester, Verb};
use crate::error::{Error, Kind, Result};
use crate::policy::Route;
use crate::predict::Parameter;
use crate::proto::inference::{ModelInferResponse, ModelStreamInferResponse};
use crate::router::{Authority, RequestScope};
use crate::server::http;
use crate::server::http2::call::Call;
use crate::server::http2::call_body::CallBody;
use crate::server::oip::infer;
use crate::server::oip::parameters::ENABLE_EMPTY_FINAL;
use crate::server::oip::phrases::unknown_model;
use crate::server::oip::request::{InferRequest, InferResponse};
use crate::server::stop::stopped;
use crate::server::transfers::{Abort, Transfer};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::codec::{EncodeBody, SingleMessageCompressionOverride};
use tonic_prost::ProstEncoder;

/// The most requests of one stream that are read and not answered. Clients use one stream for all
/// their requests.
const READ_MAX: usize = 1024;

/// The most of them that are admitted to an executor, besides the one whose reply is the next.
const RUNNING_MAX: usize = 64;

/// The most bytes that they may hold, in multiples of the largest message.
const MESSAGES_HELD_MAX: usize = 4;

/// The most replies, and the most bytes of them, that wait for a slow client before the work waits
/// as well. A reply over the limit of bytes waits alone.
const WAITING_MAX: usize = 16;
const WAITING_BYTES_MAX: usize = 4 << 20;

/// How long after the deadline of a stream its requests may take to end: those whose client reads
/// nothing would never do.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// A request may end this much before the deadline that it shares with its stream.
const DEADLINE_ROUNDING: Duration = Duration::from_millis(1);

/// Estimated bytes of a response besides its contents.
const HEAD_BYTES: usize = 512;

/// The parameter of a response that says whether it is the last to its request.
const FINAL: &str = "triton_final_response";

/// What the requests of one stream share.
struct StreamCall {
    grpc: Arc<Grpc>,
    headers: HeaderMap,
    requester: Requester,
    deadline: Option<Instant>,
    /// The deadline has ended a request.
    is_late: AtomicBool,
    /// An error ends the stream with its status, because the client sent `triton_grpc_error`.
    errors_end: bool,
    replies: mpsc::Sender<QueuedReply>,
    running: Semaphore,
    /// Limits the bytes of replies that wait.
    waiting_bytes: Arc<Semaphore>,
    /// Counts these bytes.
    transfer: Arc<Transfer>,
}

/// Answers one call. Requests are framed here, so that each is counted before it is built; replies
/// are framed by tonic.
pub(super) fn answer(
    grpc: &Arc<Grpc>,
    request: Request<CallBody>,
    timeout: Option<Duration>,
    call: &Arc<Call>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let requests = match frame::encoding(&parts.headers) {
        Ok(encoding) => Messages::new(body, encoding, Arc::clone(&grpc.transfers)),
        Err(error) => return status::refusal(&error),
    };
    let call = Arc::clone(call) as Arc<dyn Abort>;
    let transfer = Transfer::answer(&grpc.transfers, call, parts.headers.get(http::REQUEST_ID).cloned());
    let requester = grpc.requester(&parts.extensions);
    let replies = begin(Arc::clone(grpc), parts.headers, requester, timeout, requests, transfer);
    let once = SingleMessageCompressionOverride::default();
    // The size of a response is not the client's fault.
    let body = EncodeBody::new_server(ProstEncoder::default(), replies, None, once, Some(usize::MAX));
    let mut response = Response::new(Body::Tonic(tonic::body::Body::new(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn begin(
    grpc: Arc<Grpc>,
    headers: HeaderMap,
    requester: Requester,
    timeout: Option<Duration>,
    requests: Messages,
    transfer: Arc<Transfer>,
) -> StreamReplies {
    let (replies, receiver) = mpsc::channel(WAITING_MAX);
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let errors_end = headers.get("triton_grpc_error").is_some_and(|value| value == "true");
    let stop = grpc.stop.clone();
    let call = Arc::new(StreamCall {
        grpc,
        headers,
        requester,
        deadline,
        is_late: AtomicBool::new(false),
        errors_end,
        replies,
        running: Semaphore::new(RUNNING_MAX),
        waiting_bytes: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
        transfer,
    });
    let driver = tokio::spawn(drive(call, requests, stop)).abort_handle();
    StreamReplies { receiver, driver }
}

/// Reads requests and runs them, until the client sends no more, its deadline passes, or the host
/// stops. Then the requests that were read are finished; they keep the deadline as well.
async fn drive(call: Arc<StreamCall>, requests: Messages, stop: watch::Receiver<bool>) {
    let mut running = JoinSet::new();
    let ended = read(&call, requests, stop, &mut running).await;
    let finish = async { while running.join_next().await.is_some() {} };
    let is_late = match call.deadline {
        None => {
            finish.await;
            false
        }
        Some(deadline) => {
            tokio::time::timeout_at(deadline + FINISH_MAX, finish).await.is_err()
                || call.is_late.load(Ordering::Relaxed)
        }
    };
    let ended = if is_late { Some(deadline_passed()) } else { ended };
    // What has not ended by now must not send any more.
    drop(running);
    if let Some(error) = ended {
        call.queue(Err(status::status_of(&error)), HEAD_BYTES).await;
    }
}

/// Reads requests and starts them. Returns the error that ends the stream, if there is one.
async fn read(
    call: &Arc<StreamCall>,
    requests: Messages,
    mut stop: watch::Receiver<bool>,
    running: &mut JoinSet<usize>,
) -> Option<Error> {
    let bytes_max = MESSAGES_HELD_MAX * call.grpc.router().limits().max_body_bytes;
    // If the host holds many bytes already, a stream reads one message at a time.
    let is_partial = requests.is_partial();
    let may_read = |running: usize, held: usize| {
        let may_begin = || held == 0 || held < bytes_max && !call.grpc.transfers.is_tight();
        // A message that has begun is read to its end: its client must not wait for the host.
        is_partial.load(Ordering::Relaxed) || running < READ_MAX && may_begin()
    };
    let mut late = pin!(async {
        match call.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    });
    let mut turn = SendTurn::first();
    let mut held_bytes = 0;
    // Never dropped while a message is partly received, unless the stream ends.
    let mut next = pin!(next(Arc::clone(call), requests));
    loop {
        tokio::select! {
            (requests, message) = &mut next, if may_read(running.len(), held_bytes) => {
                match message {
                    Ok(Some(message)) => {
                        next.set(self::next(Arc::clone(call), requests));
                        let (own, after) = turn.split();
                        turn = after;
                        let (call, bytes) = (Arc::clone(call), message.held_bytes());
                        held_bytes += bytes;
                        running.spawn(async move {
                            run(call, message, own).await;
                            bytes
                        });
                    }
                    Ok(None) => return None,
                    Err(error) => return Some(error),
                }
            }
            // The bytes of a request whose task panicked stay counted until the stream ends.
            Some(ended) = running.join_next(), if !running.is_empty() => held_bytes -= ended.unwrap_or(0),
            () = stopped(&mut stop) => return Some(Error::unavailable("the host is stopping")),
            () = &mut late => return Some(deadline_passed()),
        }
    }
}

/// Reads the next request. Returns it with the messages, from which the next one is read.
async fn next(call: Arc<StreamCall>, mut requests: Messages) -> (Messages, Result<Option<Message>>) {
    let message = match requests.next().await {
        Ok(Some(bytes)) => Message::read(bytes, call.grpc.router().budget()).await.map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    (requests, message)
}

/// Runs one request to its last response.
async fn run(call: Arc<StreamCall>, message: Message, mut turn: SendTurn) {
    let id = message.id().to_owned();
    // The request begins here, although it may wait for its turn to run.
    let started = Instant::now();
    let limit = call.deadline.map(|deadline| deadline.saturating_duration_since(started));
    let mut scope = {
        let request_id = http::request_id_or(&call.headers, &id);
        let authority = Authority::new(call.requester.clone(), Verb::Predict);
        let lookup = http::header_lookup(&call.headers);
        let scope = call.grpc.router().begin(request_id, "grpc", authority, &lookup);
        scope.since(started.into())
    };
    let version = non_empty(message.version());
    // The message is here, so its bytes count at once.
    let admitted = scope.admit().and_then(|()| match scope.guard() {
        Some(guard) => guard.count_bytes(message.bytes()),
        None => Ok(()),
    });
    let resolved = admitted
        .and_then(|()| scope.resolve(message.model(), version, &http::header_lookup(&call.headers)))
        .map_err(|error| unknown_model(error, message.model(), version));
    let is_limited = !matches!(&resolved, Ok(route) if route.is_shared());
    let permit = match is_limited {
        // Calls of a streaming model run concurrently in its instance, up to a limit of its own.
        false => None,
        // Held until the request is answered. Tasks come here in any order, and all permits may be
        // held by requests whose replies must follow that of this one: if its turn has come, it
        // runs without a permit. The semaphore is never closed.
        true => tokio::select! {
            biased;
            permit = call.running.acquire() => permit.ok(),
            () = turn.wait() => None,
        },
    };
    let decoded = match resolved {
        Ok(route) => message.decode(limit).await.map(|request| (route, request)),
        Err(error) => {
            // The message must not be kept while the reply waits for its turn.
            drop(message);
            Err(error)
        }
    };
    let error = match decoded {
        Ok((route, request)) if route.is_streaming() => {
            let marks = wants_final_mark(&request);
            let responses = call.responses(scope, &route, request, marks);
            if is_limited && permit.is_none() {
                // It keeps its turn, or the next one would run without a permit as well.
                responses.await;
            } else {
                tokio::join!(turn.pass(), responses);
            }
            return;
        }
        Ok((route, request)) => match infer::infer(&mut scope, &route, request).await {
            Ok(response) => {
                turn.wait().await;
                call.send(response, true).await;
                return scope.end(status::counted(None), None);
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    turn.wait().await;
    call.refuse(&error, id).await;
    scope.end(status::counted(Some(&error)), Some(&error));
}

/// Whether the client wants a final response that only marks the end.
fn wants_final_mark(request: &InferRequest) -> bool {
    let parameter = request.parameters.iter().find(|(name, _)| name == ENABLE_EMPTY_FINAL);
    matches!(parameter, Some((_, Parameter::Boolean(true))))
}

impl StreamCall {
    /// Whether the deadline passes now or has passed.
    fn is_ending(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() + DEADLINE_ROUNDING >= deadline)
    }

    async fn responses(&self, scope: RequestScope, route: &Arc<Route>, request: InferRequest, marks: bool) {
        let id = request.id.clone();
        let mut stream = match infer::stream(scope, route, request) {
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
        // Sent after an error as well, because clients count the marks.
        if marks && !self.is_late.load(Ordering::Relaxed) {
            let (parameters, outputs) = (Vec::new(), Vec::new());
            self.send(InferResponse { route: Arc::clone(route), id, parameters, outputs }, true).await;
        }
        stream.end(status::counted);
    }

    async fn send(&self, response: InferResponse, last: bool) {
        let (mut head, contents) = encode(response);
        let bytes = contents.iter().map(Bytes::len).sum::<usize>() + HEAD_BYTES;
        head.raw_output_contents = contents;
        head.parameters.insert(FINAL.into(), parameter(Parameter::Boolean(last)));
        let reply = ModelStreamInferResponse { error_message: String::new(), infer_response: Some(head) };
        self.queue(Ok(reply), bytes).await;
    }

    /// Queues a reply for the client. Waits until the limits allow it.
    async fn queue(&self, reply: StreamReply, bytes: usize) {
        let hold = self.transfer.hold(bytes);
        let permits = u32::try_from(bytes.min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.waiting_bytes).acquire_many_owned(permits).await.ok();
        let _ = self.replies.send(QueuedReply { reply, _bytes: permit, hold }).await;
    }

    /// Sends the error of a request that has no responses. The response beside the error names the
    /// request.
    async fn refuse(&self, error: &Error, id: String) {
        self.send_error(error, ModelInferResponse { id, ..Default::default() }).await;
    }

    /// Sends the error that ends the responses to a request.
    async fn fail(&self, error: &Error, id: String) {
        let mut response = ModelInferResponse { id, ..Default::default() };
        response.parameters.insert(FINAL.into(), parameter(Parameter::Boolean(false)));
        self.send_error(error, response).await;
    }

    async fn send_error(&self, error: &Error, response: ModelInferResponse) {
        // The deadline of the stream ends it with one status, and not with a message for each
        // request as well.
        if error.kind() == Kind::Deadline && self.is_ending() {
            self.is_late.store(true, Ordering::Relaxed);
            return;
        }
        let reply = if self.errors_end {
            Err(status::status_of(error))
        } else {
            let error_message = status::message_of(error).into();
            Ok(ModelStreamInferResponse { error_message, infer_response: Some(response) })
        };
        self.queue(reply, HEAD_BYTES + error.message().len()).await;
    }
}
