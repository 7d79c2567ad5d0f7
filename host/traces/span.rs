//! A span of a request that is traced.

use super::ids::{SpanId, TraceId, append_hex, span_id};
use super::record::{Attributes, SpanKind, SpanRecord};
use super::span_queue::SpanQueue;
use super::trace_parent::{TraceParent, TraceState};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A span of a trace, from which further spans descend. Cheap to clone; it is recorded by `end`.
#[derive(Clone)]
pub struct Span {
    trace: Arc<Trace>,
    id: SpanId,
    parent: Option<SpanId>,
    started: Instant,
}

/// What all spans of a request here have in common.
struct Trace {
    queue: Arc<SpanQueue>,
    id: TraceId,
    state: Option<TraceState>,
    /// A moment by both clocks.
    at: Instant,
    at_ns: u64,
}

impl Span {
    /// Begins the first span of a request here.
    pub(super) fn root(
        queue: &Arc<SpanQueue>,
        trace: TraceId,
        parent: Option<SpanId>,
        state: Option<TraceState>,
        started: Instant,
    ) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let at_ns = nanoseconds(since);
        let trace = Trace { queue: Arc::clone(queue), id: trace, state, at: Instant::now(), at_ns };
        Span { trace: Arc::new(trace), id: span_id(), parent, started }
    }

    /// Returns the span with another beginning.
    pub fn since(self, started: Instant) -> Self {
        Span { started, ..self }
    }

    /// Begins a span within this one.
    pub fn child(&self, started: Instant) -> Self {
        Span { trace: Arc::clone(&self.trace), id: span_id(), parent: Some(self.id), started }
    }

    /// Returns the header for a server that is called within this span.
    pub fn header(&self) -> String {
        TraceParent { trace: self.trace.id, span: self.id, is_sampled: true }.to_string()
    }

    pub fn state(&self) -> Option<&TraceState> {
        self.trace.state.as_ref()
    }

    /// Returns the id of the trace, for logs.
    pub fn trace_id(&self) -> String {
        let mut text = String::with_capacity(32);
        append_hex(&mut text, &self.trace.id);
        text
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// Records the span, which ends now.
    pub fn end(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        attributes: Attributes,
        error: Option<&str>,
    ) {
        self.end_at(Instant::now(), name, kind, attributes, error);
    }

    /// Records the span, which has ended at `end`.
    pub fn end_at(
        &self,
        end: Instant,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        attributes: Attributes,
        error: Option<&str>,
    ) {
        let (start, end) = (self.unix(self.started), self.unix(end));
        self.trace.queue.record(SpanRecord {
            trace: self.trace.id,
            span: self.id,
            parent: self.parent,
            state: self.trace.state.as_ref().map(|state| Arc::clone(&state.0)),
            name: name.into(),
            kind,
            start,
            end: end.max(start),
            attributes,
            error: error.map(shortened),
        });
    }

    /// Records a part of this span.
    pub fn part(&self, name: &'static str, from: Instant, took: Duration, attributes: Attributes) {
        self.child(from).end_at(from + took, name, SpanKind::Internal, attributes, None);
    }

    fn unix(&self, moment: Instant) -> u64 {
        let Trace { at, at_ns, .. } = &*self.trace;
        match moment.checked_duration_since(*at) {
            Some(later) => at_ns.saturating_add(nanoseconds(later)),
            None => at_ns.saturating_sub(nanoseconds(at.saturating_duration_since(moment))),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The longest error of a span, in bytes.
const ERROR_BYTES_MAX: usize = 500;

fn shortened(text: &str) -> Arc<str> {
    text[..text.floor_char_boundary(ERROR_BYTES_MAX)].into()
}
