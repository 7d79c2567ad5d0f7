//! A span of a request that is traced.

use super::ids::{SpanId, TraceId, append_hex, span_id};
use super::record::{Attributes, SpanKind, SpanRecord};
use super::span_queue::SpanQueue;
use super::trace_parent::{TraceParent, TraceState};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The error of a span that nobody has ended.
const ABANDONED: &str = "abandoned: it was cancelled, was refused, or its time was over";

/// A span of a trace, from which further spans descend. Cheap to clone. It is recorded once: by
/// `end`, or when the last clone is dropped.
#[derive(Clone)]
pub struct Span(Arc<OpenSpan>);

struct OpenSpan {
    trace: Arc<Trace>,
    id: SpanId,
    parent: Option<SpanId>,
    started: Instant,
    /// What it is called if nobody ends it.
    name: Cow<'static, str>,
    kind: SpanKind,
    has_ended: AtomicBool,
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
        Span::open(Arc::new(trace), parent, started, "request".into(), SpanKind::Server)
    }

    fn open(
        trace: Arc<Trace>,
        parent: Option<SpanId>,
        started: Instant,
        name: Cow<'static, str>,
        kind: SpanKind,
    ) -> Self {
        let has_ended = AtomicBool::new(false);
        Span(Arc::new(OpenSpan { trace, id: span_id(), parent, started, name, kind, has_ended }))
    }

    /// Lets a span begin earlier that has no other clones.
    pub fn since(mut self, started: Instant) -> Self {
        if let Some(open) = Arc::get_mut(&mut self.0) {
            open.started = started;
        }
        self
    }

    /// Changes the name of a span that has no other clones.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        if let Some(open) = Arc::get_mut(&mut self.0) {
            open.name = name.into();
        }
        self
    }

    /// Begins a span within this one.
    pub fn child(&self, started: Instant, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        Span::open(Arc::clone(&self.0.trace), Some(self.0.id), started, name.into(), kind)
    }

    /// Returns the header for a server that is called within this span.
    pub fn header(&self) -> String {
        TraceParent { trace: self.0.trace.id, span: self.0.id, is_sampled: true }.to_string()
    }

    /// Returns the id of the trace, for logs.
    pub fn trace_id(&self) -> String {
        let mut text = String::with_capacity(32);
        append_hex(&mut text, &self.0.trace.id);
        text
    }

    /// Records the span, which ends now, under the name that it began with.
    pub fn end(&self, attributes: Attributes, error: Option<&str>) {
        self.0.end(Instant::now(), attributes, error);
    }

    /// Records the span under another name.
    pub fn end_as(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        attributes: Attributes,
        error: Option<&str>,
    ) {
        self.0.end_as(Instant::now(), name.into(), kind, attributes, error);
    }

    /// Records a part of this span.
    pub fn part(&self, name: &'static str, from: Instant, took: Duration, attributes: Attributes) {
        self.child(from, name, SpanKind::Internal).0.end(from + took, attributes, None);
    }
}

impl OpenSpan {
    fn end(&self, end: Instant, attributes: Attributes, error: Option<&str>) {
        self.end_as(end, self.name.clone(), self.kind, attributes, error);
    }

    fn end_as(
        &self,
        end: Instant,
        name: Cow<'static, str>,
        kind: SpanKind,
        attributes: Attributes,
        error: Option<&str>,
    ) {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let (start, end) = (self.trace.unix(self.started), self.trace.unix(end));
        self.trace.queue.record(SpanRecord {
            trace: self.trace.id,
            span: self.id,
            parent: self.parent,
            state: self.trace.state.as_ref().map(|state| Arc::clone(&state.0)),
            name,
            kind,
            start,
            end: end.max(start),
            attributes,
            error: error.map(shortened),
        });
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        self.end(Instant::now(), Attributes::new(), Some(ABANDONED));
    }
}

impl Trace {
    fn unix(&self, moment: Instant) -> u64 {
        match moment.checked_duration_since(self.at) {
            Some(later) => self.at_ns.saturating_add(nanoseconds(later)),
            None => self.at_ns.saturating_sub(nanoseconds(self.at.saturating_duration_since(moment))),
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
