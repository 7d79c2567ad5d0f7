//! The end of a request: its count, its line in the access log, and its line in the host's log if
//! it failed.

use super::RequestScope;
use crate::access_log::Entry;
use crate::error::{Error, Kind};
use crate::metrics::UNKNOWN;
use crate::policy::guard_counters::CallOutcome;
use crate::traces::{Attributes, Span, SpanKind};
use smallvec::smallvec;
use std::time::{Duration, SystemTime};

/// The status of an answer to work that is still to be done.
const ACCEPTED: u16 = 202;

impl RequestScope {
    /// Ends the request and accounts for it. `status` is the status that the protocol answers with.
    pub fn end(mut self, status: u16, error: Option<&Error>) {
        self.account(status, error);
    }

    /// Ends the request without counting it: it was not admitted, and will be made again.
    pub fn withdraw(mut self) {
        self.ended = true;
        self.end_span(0, Some(&Error::overloaded("not admitted; it is made again")));
    }

    /// Counts the failure of a part of the request, such as one item of a batch.
    pub fn count_error(&self, error: &Error) {
        if let Some(route) = &self.route {
            route.counters.record(CallOutcome::of(Some(error), Duration::ZERO));
            route.statistics.failed(self.started.elapsed(), SystemTime::now());
        }
        self.log_error(error);
    }

    fn log_error(&self, error: &Error) {
        self.router.metrics.requests.errors.with_label_values(&[error.kind().as_str()]).inc();
        self.log_failure(error);
    }

    fn account(&mut self, status: u16, error: Option<&Error>) {
        self.ended = true;
        if let Some((copy, answer)) = self.copy.take().filter(|_| error.is_none()) {
            copy.run(&self.id, answer);
        }
        let (elapsed, now) = (self.started.elapsed(), SystemTime::now());
        let metrics = &self.router.metrics;
        match (&self.route, status) {
            (Some(route), 200) => route.metrics.ok.inc(),
            (route, status) => {
                let (model, version) = route
                    .as_ref()
                    .map_or((UNKNOWN, UNKNOWN), |route| (&*route.name.name, &*route.name.version));
                metrics.requests.answered.with_label_values(&[model, version, &status.to_string()]).inc();
            }
        }
        // The duration of accepted work is counted with the attempts of its job.
        if let Some(route) = self.route.as_ref().filter(|_| status != ACCEPTED) {
            route.metrics.duration.observe(elapsed.as_secs_f64());
            if error.is_some() || !self.batch {
                let took = self.queue_wait + self.service.total();
                route.counters.record(CallOutcome::of(error, took));
                match error {
                    None => route.statistics.answered(elapsed, self.queue_wait, self.service, now),
                    Some(_) => route.statistics.failed(elapsed, now),
                }
            }
        }
        if let Some(error) = error {
            self.log_error(error);
        }
        self.end_span(status, error);
        if self.router.access_log {
            let trace_id = self.trace.span().map(Span::trace_id);
            let route = self.route.as_deref();
            let entry = Entry {
                id: &self.id,
                protocol: self.protocol,
                trace_id: trace_id.as_deref(),
                tenant: self.account.as_ref().map(|account| &**account.tenant.name()),
                model: route.map(|route| &*route.name.name),
                version: route.map(|route| &*route.name.version),
                executor: route.map(|route| route.executor.name()),
                generation: self.policy.generation,
                status,
                error,
                elapsed,
                queue_wait: self.queue_wait,
                service: self.service.total(),
                now,
            };
            entry.write();
        }
    }

    /// Records the span of the request.
    fn end_span(&self, status: u16, error: Option<&Error>) {
        let Some(span) = self.trace.span() else { return };
        let mut attributes: Attributes = smallvec![
            ("hostler.request_id", (&self.id).into()),
            ("hostler.protocol", self.protocol.into()),
            ("hostler.status", usize::from(status).into()),
            ("hostler.generation", (self.policy.generation as usize).into()),
        ];
        if let Some(route) = &self.route {
            attributes.push(("hostler.model", (&route.name.name).into()));
            attributes.push(("hostler.version", (&route.name.version).into()));
        }
        attributes
            .extend(self.account.as_ref().map(|account| ("hostler.tenant", account.tenant.name().into())));
        attributes.extend(error.map(|error| ("error.type", error.kind().as_str().into())));
        let (name, kind) = match self.protocol {
            "job" => ("job", SpanKind::Internal),
            _ if status == ACCEPTED => ("submit", SpanKind::Server),
            _ => ("predict", SpanKind::Server),
        };
        let name = match &self.route {
            Some(route) => format!("{name} {}", route.name.name),
            None => name.to_owned(),
        };
        // What is the caller's mistake is no failure of the host.
        let failure = error.filter(|error| !error.kind().is_about_request()).map(Error::message);
        span.end_as(name, kind, attributes, failure);
    }

    /// Logs an error with its detail; the caller gets only the message.
    fn log_failure(&self, error: &Error) {
        if error.kind() != Kind::Failed && error.detail().is_none() {
            return;
        }
        let (request, kind, detail) = (&*self.id, error.kind().as_str(), error.detail());
        let model = self.route.as_ref().map(|route| route.name.to_string());
        let trace_id = self.trace.span().map(Span::trace_id);
        match error.kind() {
            Kind::Failed => {
                let (plugin, function) = (error.plugin_name(), error.function_name());
                tracing::error!(request, trace_id, kind, model, plugin, function, detail, "{error}");
            }
            _ => tracing::info!(
                request,
                trace_id,
                kind,
                model,
                plugin = error.plugin_name(),
                detail,
                "{error}"
            ),
        }
    }
}

impl Drop for RequestScope {
    /// Accounts for a request whose client disconnected before the answer.
    fn drop(&mut self) {
        if !self.ended {
            let error = Error::cancelled("the client disconnected before the answer was ready");
            self.account(499, Some(&error));
        }
    }
}
