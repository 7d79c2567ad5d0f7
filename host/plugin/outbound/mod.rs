//! HTTP for plugins, to the servers that the manifest allows: one client per plugin, with its
//! limits.
//!
//! Calls run on the runtime for connections, not on the thread of the guest that waits. When a
//! guest stops waiting, its connection is closed. Redirects are returned like any other response,
//! and bodies are returned as the server sent them.

mod connect;
mod request;

pub(super) use request::HttpRequest;

use crate::config::outbound::OutboundLimits;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::predict::CallContext;
use connect::Connections;
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::{HeaderName, HeaderValue};
use request::CheckedRequest;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A plugin's client for calls to servers. Shared by all its instances.
pub(super) struct Outbound {
    plugin: Arc<str>,
    limits: Arc<OutboundLimits>,
    connections: Arc<Connections>,
    places: Arc<Semaphore>,
    runtime: Handle,
    calls: prometheus::IntCounterVec,
    seconds: prometheus::Histogram,
    in_flight: prometheus::IntGauge,
}

/// The response of a server.
pub(super) struct HttpReply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Outbound {
    /// `ca` contains certificates in PEM, trusted in addition to those that this machine trusts.
    pub fn new(
        plugin: Arc<str>,
        limits: OutboundLimits,
        ca: Option<&[u8]>,
        runtime: Handle,
        metrics: &Metrics,
    ) -> Result<Self> {
        let label = [&*plugin];
        Ok(Outbound {
            connections: Arc::new(Connections::new(&limits, ca)?),
            places: Arc::new(Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS))),
            runtime,
            calls: metrics.plugins.http_calls.clone(),
            seconds: metrics.plugins.http_seconds.with_label_values(&label),
            in_flight: metrics.plugins.http_in_flight.with_label_values(&label),
            limits: Arc::new(limits),
            plugin,
        })
    }

    /// Calls a server and waits for the whole response. `context` and `spent` belong to the call
    /// into the plugin that makes this request; both are `None` outside of one. Dropping the future
    /// closes the connection.
    pub async fn fetch(
        &self,
        request: HttpRequest,
        context: Option<&CallContext>,
        spent: Option<&AtomicU32>,
    ) -> Result<HttpReply> {
        let mut metrics = CallMetrics { outbound: self, started: Instant::now(), outcome: None };
        let outcome = self.send_request(request, context, spent).await;
        metrics.outcome = Some(outcome.as_ref().map_or_else(|error| error.kind().as_str(), |_| "answered"));
        outcome.map_err(|error| error.context(format!("plugin \"{}\"", self.plugin)))
    }

    async fn send_request(
        &self,
        request: HttpRequest,
        context: Option<&CallContext>,
        spent: Option<&AtomicU32>,
    ) -> Result<HttpReply> {
        let limits = &self.limits;
        if spent.is_some_and(|spent| spent.fetch_add(1, Ordering::Relaxed) >= limits.calls) {
            let calls = limits.calls;
            return Err(Error::failed(format!("made more than max_calls = {calls} HTTP calls in one call")));
        }
        let own = request.timeout.filter(|own| *own < limits.timeout);
        let mut checked = request.check(limits)?;
        if let Some(trace) = context.and_then(|context| context.trace.as_deref())
            && let Ok(trace) = HeaderValue::from_str(trace)
        {
            let name = HeaderName::from_static("traceparent");
            checked.request.headers_mut().entry(name).or_insert(trace);
        }
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let all = limits.in_flight;
            Error::overloaded(format!(
                "at capacity: {all} HTTP calls in flight; raise max_in_flight of its http table"
            ))
        })?;
        let origin = checked.origin.to_string();
        let (method, path) = (checked.request.method().clone(), checked.request.uri().path().to_owned());
        let (connections, limits) = (Arc::clone(&self.connections), Arc::clone(limits));
        let under_way = InFlightGuard::new(&self.in_flight);
        let (time, started) = (own.unwrap_or(limits.timeout), Instant::now());
        let mut task = AbortOnDrop(self.runtime.spawn(async move {
            let _guards = (permit, under_way);
            let exchanged = tokio::time::timeout(time, exchange(&connections, &limits, checked)).await;
            exchanged.unwrap_or_else(|_| {
                let whose = if own.is_some() {
                    "the timeout of the HTTP request"
                } else {
                    "timeout_ms of its http table"
                };
                Err(Error::deadline(format!("no complete answer within {} ms, {whose}", time.as_millis())))
            })
        }));
        let answer = (&mut task.0).await.unwrap_or_else(|error| match error.is_panic() {
            true => Err(Error::failed("the host panicked during the call")),
            false => Err(Error::unavailable("the host is stopping")),
        });
        let (plugin, request) = (&*self.plugin, context.map(|context| &*context.id));
        let ms = started.elapsed().as_secs_f64() * 1e3;
        match &answer {
            Ok(HttpReply { status, .. }) => {
                tracing::debug!(plugin, request, %method, origin, path, status, ms, "HTTP call finished");
            }
            Err(error) => {
                tracing::debug!(plugin, request, %method, origin, path, ms, "HTTP call failed: {error}");
            }
        }
        answer.map_err(|error| error.context(origin))
    }
}

/// A call that runs on another runtime. Dropping it aborts the call.
struct AbortOnDrop(JoinHandle<Result<HttpReply>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a call while it is in flight.
struct InFlightGuard(prometheus::IntGauge);

impl InFlightGuard {
    fn new(gauge: &prometheus::IntGauge) -> Self {
        gauge.inc();
        InFlightGuard(gauge.clone())
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts a call and its duration, however it ends.
struct CallMetrics<'a> {
    outbound: &'a Outbound,
    started: Instant,
    outcome: Option<&'static str>,
}

impl Drop for CallMetrics<'_> {
    fn drop(&mut self) {
        let Outbound { plugin, calls, seconds, .. } = self.outbound;
        let outcome = self.outcome.unwrap_or("cancelled");
        calls.with_label_values(&[&**plugin, outcome]).inc();
        seconds.observe(self.started.elapsed().as_secs_f64());
    }
}

async fn exchange(
    connections: &Arc<Connections>,
    limits: &OutboundLimits,
    CheckedRequest { origin, request }: CheckedRequest,
) -> Result<HttpReply> {
    let mut connection = connections.get(&origin, limits).await?;
    let response = loop {
        let mut failed = match connection.sender.try_send_request(request.clone()).await {
            Ok(response) => break response,
            Err(failed) => failed,
        };
        // A server may close a kept connection at the very moment it is used.
        let again = failed.take_message().is_some() || request.method().is_idempotent();
        if !connection.reused || !again {
            return Err(broken(&failed.into_error()));
        }
        connection = connections.open(&origin, limits).await?;
    };
    let (head, mut incoming) = response.into_parts();
    let too_large = || {
        let kb = limits.body_bytes >> 10;
        Error::too_large(format!("the answer exceeds max_body_kb = {kb}"))
    };
    let length = incoming.size_hint().lower();
    if length > limits.body_bytes as u64 {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(length as usize);
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if body.len() + data.len() > limits.body_bytes {
            return Err(too_large());
        }
        body.extend_from_slice(data);
    }
    connections.keep(origin, connection);
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())));
    Ok(HttpReply { status: head.status.as_u16(), headers: headers.collect(), body })
}

/// Decodes a header value as UTF-8, or else as Latin-1, which HTTP specified in the past.
fn text(value: &[u8]) -> String {
    let latin = || value.iter().map(|byte| char::from(*byte)).collect();
    std::str::from_utf8(value).map_or_else(|_| latin(), str::to_owned)
}

fn broken(error: &hyper::Error) -> Error {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Error::unavailable(format!("the connection failed: {text}"))
}
