//! The trace that a call belongs to.

use crate::traces::{Span, SpanKind};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// The trace of a call, for the servers that it calls, and its span if it is traced.
#[derive(Clone, Default)]
pub struct TraceLink {
    /// The caller's `traceparent`, which is passed on if the request is not traced here.
    parent: Option<Arc<str>>,
    /// The caller's `tracestate`.
    state: Option<Arc<str>>,
    span: Option<Span>,
    /// The executor of the call, if it is traced.
    executor: Option<Arc<str>>,
    /// Whether the span is that of the call alone, and ends with it.
    is_own: bool,
}

impl TraceLink {
    /// The trace of a request. `span` is that of the request.
    pub fn new(parent: Option<Arc<str>>, state: Option<Arc<str>>, span: Option<Span>) -> Self {
        TraceLink { parent, state, span, executor: None, is_own: false }
    }

    /// Returns the trace of a call of this model within this one. Its span ends with the call.
    pub fn call(&self, model: &str) -> Self {
        TraceLink { is_own: true, ..self.inner(SpanKind::Internal, || format!("call {model}")) }
    }

    /// Returns the trace of something within this call, whose span the caller ends.
    pub fn inner(&self, kind: SpanKind, name: impl FnOnce() -> String) -> Self {
        let span = self.span.as_ref().map(|span| span.child(Instant::now(), name(), kind));
        let (parent, state) = (self.parent.clone(), self.state.clone());
        TraceLink { parent, state, span, executor: None, is_own: false }
    }

    /// Names the span, if the request is traced.
    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        self.span = self.span.take().map(|span| span.named(name()));
    }

    /// Lets the span begin earlier.
    pub fn since(&mut self, started: Instant) {
        self.span = self.span.take().map(|span| span.since(started));
    }

    /// Notes on which executor the call runs.
    pub fn on_executor(&mut self, name: &str) {
        if self.span.is_some() {
            self.executor = Some(name.into());
        }
    }

    /// Returns the executor of the call, for its spans.
    pub fn executor(&self) -> Option<&Arc<str>> {
        self.executor.as_ref()
    }

    /// Returns the span, if the request is traced.
    pub fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// Returns the span if it ends with the call.
    pub fn own_span(&self) -> Option<&Span> {
        self.span.as_ref().filter(|_| self.is_own)
    }

    /// Returns the header `traceparent` for a server that is called within this call.
    pub fn traceparent(&self) -> Option<Cow<'_, str>> {
        match &self.span {
            Some(span) => Some(span.header().into()),
            None => self.parent.as_deref().map(Cow::Borrowed),
        }
    }

    /// Returns the header `tracestate` for such a server.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}
