//! Traces: spans of requests, as OpenTelemetry defines them.
//!
//! A [`Tracer`] decides which requests are traced. Their spans go to its bounded queue, from which
//! `trace_export` takes them. Nobody waits for a collector: when the queue is full, spans are
//! dropped and counted.

mod ids;
mod record;
mod span;
mod span_queue;
mod trace_parent;
mod tracer;

pub use ids::{SpanId, TraceId};
pub use record::{Attributes, SpanKind, SpanRecord, Value};
pub use span::Span;
pub use span_queue::{BATCH, SpanQueue, TraceMetrics};
pub use trace_parent::{TraceParent, TraceState};
pub use tracer::Tracer;
