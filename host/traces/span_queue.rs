//! The bounded queue of spans that wait to be exported.

use super::record::SpanRecord;
use crate::lock::LockUnpoisoned;
use prometheus::IntCounter;
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::Notify;

/// Spans that wait to be exported.
const QUEUE_MAX: usize = 8192;

/// From this many spans on, they are exported without further delay.
pub const BATCH: usize = 512;

#[derive(Clone)]
pub struct TraceMetrics {
    pub exported: IntCounter,
    pub dropped: IntCounter,
    pub failed_exports: IntCounter,
}

pub struct SpanQueue {
    queue: Mutex<VecDeque<SpanRecord>>,
    ready: Notify,
    pub metrics: TraceMetrics,
}

impl SpanQueue {
    pub(super) fn new(metrics: TraceMetrics) -> Self {
        SpanQueue { queue: Mutex::default(), ready: Notify::new(), metrics }
    }

    /// Adds a span, or drops it if the queue is full.
    pub(super) fn record(&self, span: SpanRecord) {
        let mut queue = self.queue.lock_unpoisoned();
        if queue.len() >= QUEUE_MAX {
            drop(queue);
            self.metrics.dropped.inc();
            return;
        }
        queue.push_back(span);
        let is_enough = queue.len() == BATCH;
        drop(queue);
        if is_enough {
            self.ready.notify_one();
        }
    }

    /// Takes up to `BATCH` of the oldest spans.
    pub fn take(&self) -> Vec<SpanRecord> {
        let mut queue = self.queue.lock_unpoisoned();
        let count = queue.len().min(BATCH);
        queue.drain(..count).collect()
    }

    /// Returns once many spans wait.
    pub async fn many_wait(&self) {
        self.ready.notified().await;
    }
}
