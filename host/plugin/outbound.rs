//! HTTP for plugins, to the servers that the manifest allows: one client per plugin, with its
//! limits. `crate::outbound` is the client; this adds what concerns plugins.
//!
//! Calls run on the runtime for connections, not on the thread of the guest that waits. When a
//! guest stops waiting, its connection is closed. Redirects are returned like any other response,
//! and bodies are returned as the server sent them.

use crate::config::outbound::OutboundLimits;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::outbound::{Client, HttpReply, HttpRequest};
use crate::predict::CallContext;
use crate::traces::{Attributes, SpanKind};
use hyper::header::{HeaderName, HeaderValue};
use smallvec::smallvec;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A plugin's client for calls to servers. Shared by all its instances.
pub(super) struct Outbound {
    plugin: Arc<str>,
    client: Arc<Client>,
    places: Arc<Semaphore>,
    runtime: Handle,
    calls: prometheus::IntCounterVec,
    seconds: prometheus::Histogram,
    in_flight: prometheus::IntGauge,
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
            places: Arc::new(Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS))),
            runtime,
            calls: metrics.plugins.http_calls.clone(),
            seconds: metrics.plugins.http_seconds.with_label_values(&label),
            in_flight: metrics.plugins.http_in_flight.with_label_values(&label),
            client: Arc::new(Client::new(limits, ca)?),
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
        let limits = self.client.limits();
        if spent.is_some_and(|spent| spent.fetch_add(1, Ordering::Relaxed) >= limits.calls) {
            let calls = limits.calls;
            return Err(Error::failed(format!("made more than max_calls = {calls} HTTP calls in one call")));
        }
        let own = request.timeout.filter(|own| *own < limits.timeout);
        let mut checked = request.check(limits)?;
        let name = || format!("HTTP {}", checked.method());
        let trace = context.map(|context| context.trace.inner(SpanKind::Client, name)).unwrap_or_default();
        // A plugin that sends a trace of its own sends its own state.
        let is_own = checked.headers_mut().contains_key("traceparent");
        let headers =
            [("traceparent", trace.traceparent()), ("tracestate", trace.tracestate().map(Into::into))];
        for (name, value) in headers.into_iter().filter(|_| !is_own) {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                checked.headers_mut().entry(HeaderName::from_static(name)).or_insert(value);
            }
        }
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let all = limits.in_flight;
            Error::overloaded(format!(
                "at capacity: {all} HTTP calls in flight; raise max_in_flight of its http table"
            ))
        })?;
        let origin = checked.origin.to_string();
        let (method, path) = (checked.method().clone(), checked.path().to_owned());
        let client = Arc::clone(&self.client);
        let under_way = InFlightGuard::new(&self.in_flight);
        let (time, started) = (own.unwrap_or(limits.timeout), Instant::now());
        let mut task = AbortOnDrop(self.runtime.spawn(async move {
            let _guards = (permit, under_way);
            let exchanged = tokio::time::timeout(time, client.fetch(checked)).await;
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
        if let Some(span) = trace.span() {
            let mut attributes: Attributes = smallvec![("server.address", origin.as_str().into())];
            attributes.extend(
                answer
                    .as_ref()
                    .ok()
                    .map(|reply| ("http.response.status_code", usize::from(reply.status).into())),
            );
            let error = answer.as_ref().err().map(Error::message);
            span.end(attributes, error);
        }
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
