//! The task that exports spans.

use super::encode::{request, resource};
use super::target::Target;
use crate::config::TraceSettings;
use crate::error::{Error, Kind, Result};
use crate::traces::{BATCH, SpanQueue, SpanRecord, TraceMetrics, Tracer};
use opentelemetry_proto::tonic::resource::v1::Resource;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long spans wait for others, so that they are sent together.
const DELAY: Duration = Duration::from_secs(1);

/// The pauses after exports that failed for a reason which may pass.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A batch that is not accepted for so long is dropped: the fault may be in it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);

/// The least time between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The time for the last spans at the shutdown.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Exports the spans of a tracer.
pub struct Exporter {
    tracer: Arc<Tracer>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Starts the task. Must be called in the runtime on which it runs.
    ///
    /// # Errors
    /// `invalid_input` if a file of the settings cannot be used.
    pub fn start(settings: &TraceSettings, metrics: &TraceMetrics) -> Result<Self> {
        let target = Target::new(settings)?;
        let tracer = Tracer::new(settings.sample, settings.follow_parent, metrics.clone());
        let (stop, stopped) = watch::channel(false);
        let export = Export {
            target,
            resource: resource(&settings.service_name),
            endpoint: settings.endpoint.clone(),
            queue: Arc::clone(tracer.queue()),
            stopped,
            warned: None,
        };
        let task = tokio::spawn(export.run());
        Ok(Exporter { tracer, stop, task })
    }

    pub fn tracer(&self) -> &Arc<Tracer> {
        &self.tracer
    }

    /// Sends the spans that wait, for a short time.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(STOP_TIME, self.task).await;
    }
}

struct Export {
    target: Target,
    resource: Resource,
    endpoint: String,
    queue: Arc<SpanQueue>,
    stopped: watch::Receiver<bool>,
    warned: Option<Instant>,
}

impl Export {
    async fn run(mut self) {
        loop {
            let is_last = self.wait(DELAY, true).await;
            loop {
                let spans = self.queue.take();
                if spans.is_empty() {
                    break;
                }
                self.export(&spans).await;
                // The few that have ended meanwhile wait for others.
                if spans.len() < BATCH && !is_last {
                    break;
                }
            }
            if is_last {
                return;
            }
        }
    }

    /// Waits for this long, until many spans wait, or until the stop, which is returned.
    async fn wait(&mut self, time: Duration, for_spans: bool) -> bool {
        let stopped = self.stopped.wait_for(|stopped| *stopped);
        let many = async {
            if for_spans {
                self.queue.many_wait().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            // A sender that is gone means a stop, too.
            _ = stopped => true,
            () = many => false,
            () = tokio::time::sleep(time) => false,
        }
    }

    /// Sends spans until the collector has them, or has refused them.
    async fn export(&mut self, spans: &[SpanRecord]) {
        let (mut pause, began) = (PAUSE_MIN, Instant::now());
        loop {
            let sent = self.target.send(request(&self.resource, spans)).await;
            let metrics = &self.queue.metrics;
            let error = match sent {
                Ok(refusal) => {
                    let refused = refusal.as_ref().map_or(0, |(spans, _)| *spans).min(spans.len() as u64);
                    metrics.exported.inc_by(spans.len() as u64 - refused);
                    metrics.dropped.inc_by(refused);
                    if let Some((spans, why)) = refusal {
                        self.warn(&Error::failed(format!("the collector has refused {spans} spans: {why}")));
                    }
                    return;
                }
                Err(error) => error,
            };
            metrics.failed_exports.inc();
            let may_pass = matches!(error.kind(), Kind::Unavailable | Kind::Deadline | Kind::Overloaded);
            let is_given_up = !may_pass || began.elapsed() >= GIVE_UP_AFTER;
            if is_given_up {
                metrics.dropped.inc_by(spans.len() as u64);
            }
            self.warn(&error);
            if is_given_up {
                return;
            }
            // While the host stops, there is no time for another attempt.
            if self.wait(pause.mul_f64(0.5 + fastrand::f64() / 2.0), false).await {
                self.queue.metrics.dropped.inc_by(spans.len() as u64);
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn warn(&mut self, error: &Error) {
        if self.warned.is_some_and(|warned| warned.elapsed() < WARN_EVERY) {
            return;
        }
        self.warned = Some(Instant::now());
        let (endpoint, dropped) = (&*self.endpoint, self.queue.metrics.dropped.get());
        tracing::warn!(endpoint, dropped, "traces not exported: {error}");
    }
}
