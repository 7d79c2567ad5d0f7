//! Decides which requests are traced, and collects their spans.

use super::ids::trace_id;
use super::span::Span;
use super::span_queue::{SpanQueue, TraceMetrics};
use super::trace_parent::{TraceParent, TraceState};
use std::sync::Arc;
use std::time::Instant;

pub struct Tracer {
    /// The share of requests without a parent that are traced, of 2^32.
    sampled: u64,
    follows_parents: bool,
    queue: Arc<SpanQueue>,
}

impl Tracer {
    /// `share` is that of requests which do not come with a trace of their own, from 0 to 1.
    pub fn new(share: f64, follows_parents: bool, metrics: TraceMetrics) -> Arc<Self> {
        let sampled = (share.clamp(0.0, 1.0) * (u64::from(u32::MAX) + 1) as f64) as u64;
        Arc::new(Tracer { sampled, follows_parents, queue: Arc::new(SpanQueue::new(metrics)) })
    }

    /// Begins the trace of a request that has begun at `started`; `None` if it is not traced. The
    /// headers are those of W3C Trace Context.
    pub fn begin(
        self: &Arc<Self>,
        parent: Option<&str>,
        state: impl FnOnce() -> Option<TraceState>,
        started: Instant,
    ) -> Option<Span> {
        let parent = parent.and_then(TraceParent::parse);
        let is_sampled = match parent {
            Some(parent) if self.follows_parents => parent.is_sampled,
            _ => u64::from(fastrand::u32(..)) < self.sampled,
        };
        if !is_sampled {
            return None;
        }
        let trace = parent.map_or_else(trace_id, |parent| parent.trace);
        let state = parent.and_then(|_| state());
        Some(Span::root(&self.queue, trace, parent.map(|parent| parent.span), state, started))
    }

    /// Begins a trace of the host's own work, which is rare and always traced.
    pub fn always(self: &Arc<Self>, started: Instant) -> Span {
        Span::root(&self.queue, trace_id(), None, None, started)
    }

    /// Returns the queue of spans that have ended.
    pub fn queue(&self) -> &Arc<SpanQueue> {
        &self.queue
    }
}
