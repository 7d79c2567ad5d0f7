//! The sink of a running call: its preprocess and postprocess, its timings, and the channel for its
//! responses.

use super::runs::Runs;
use crate::error::{Error, FaultOwner, Result};
use crate::plugin::{Transformer, TransformerSession};
use crate::predict::{CallContext, Metadata, Payload, Response, Sender, Service, Tensor, explain_check};
use crate::traces::Attributes;
use smallvec::smallvec;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a callable sends all its responses except the last.
pub struct Sink {
    /// `None` for a run that several calls share, and once the stream has ended.
    pub(super) sender: Option<Sender>,
    pub(super) context: Arc<CallContext>,
    pub(super) session: Option<TransformerSession>,
    pub(super) queue_wait: Duration,
    pub(super) runs: Option<Arc<Runs>>,
    /// The time that each part took so far; `since` is when the current part started.
    pub(super) service: Service,
    pub(super) since: Instant,
    /// When the work began.
    began: Instant,
    /// Calls and rows of the run, if it was shared.
    pub(super) batch: Option<(usize, usize)>,
}

impl Sink {
    pub(super) fn new(
        sender: Sender,
        context: &Arc<CallContext>,
        transformer: Option<&Arc<Transformer>>,
        runs: Option<Arc<Runs>>,
        queue_wait: Duration,
        now: Instant,
    ) -> Self {
        context.begin();
        let session = transformer.map(Transformer::session);
        Sink { sender: Some(sender), session, queue_wait, runs, ..Sink::shared(context, now) }
    }

    /// Returns a sink without a sender, for a run that several calls share: a response could not be
    /// assigned to one of them.
    pub(super) fn shared(context: &Arc<CallContext>, now: Instant) -> Self {
        Sink {
            sender: None,
            context: Arc::clone(context),
            session: None,
            queue_wait: Duration::ZERO,
            runs: None,
            service: Service { rows: 1, ..Service::default() },
            since: now,
            began: now,
            batch: None,
        }
    }

    /// Ends the current part of the work and returns how long it took.
    pub(super) fn lap(&mut self, now: Instant) -> Duration {
        now.saturating_duration_since(std::mem::replace(&mut self.since, now))
    }

    /// Sends one response of several. Waits while the receiver is slow; fails once it is dropped.
    pub async fn send(&mut self, outputs: Vec<Tensor>) -> Result<()> {
        if self.sender.is_none() {
            return Err(Error::failed("a model that returns several responses cannot run in batches"));
        }
        let response = self.respond(outputs).await?;
        let sent = match &mut self.sender {
            Some(sender) => sender.send(response).await,
            None => Ok(()),
        };
        // Time spent waiting for the receiver does not count as the model's.
        self.lap(Instant::now());
        sent
    }

    /// Ends the stream with an error while the work still holds resources.
    pub(super) fn fail(&mut self, error: &Error) {
        if let Some(sender) = &mut self.sender {
            sender.fail(error.clone());
        }
    }

    /// Sends the last response while the work continues. The caller stops waiting and no longer
    /// cancels the work.
    pub(super) async fn answer(&mut self, outputs: Result<Vec<Tensor>>) {
        let response = match outputs {
            Ok(outputs) => self.respond(outputs).await,
            Err(error) => Err(error),
        };
        self.trace(response.as_ref().err());
        let last = release(self.session.take(), response.map(Some));
        if let Some(sender) = self.sender.take() {
            sender.finish(last);
        }
    }

    /// Records the spans of the call.
    fn trace(&self, error: Option<&Error>) {
        let Some(span) = self.context.trace.span() else { return };
        let Service { input, infer, output, .. } = self.service;
        let executor = || self.context.trace.executor().map(|name| ("hostler.executor", name.into()));
        let queued = self.began.checked_sub(self.queue_wait).unwrap_or(self.began);
        span.part("queue", queued, self.queue_wait, executor().into_iter().collect());
        let plugin = self.session.as_ref().map(|session| ("hostler.plugin", session.name().into()));
        if let Some(plugin) = &plugin {
            span.part("preprocess", self.began, input, smallvec![plugin.clone()]);
        }
        let mut attributes: Attributes = executor().into_iter().collect();
        if let Some((calls, rows)) = self.batch {
            attributes.extend([("hostler.batch.calls", calls.into()), ("hostler.batch.rows", rows.into())]);
        }
        span.part("run", self.began + input, infer, attributes);
        if let Some(plugin) = plugin {
            span.part("postprocess", self.began + input + infer, output, smallvec![plugin]);
        }
        end_call(&self.context, error);
    }

    /// Turns the call's input into the model's inputs. Without a transformer, it must be tensors.
    pub(super) async fn preprocess(&mut self, input: Payload, metadata: &Metadata) -> Result<Vec<Tensor>> {
        let inputs = match (&mut self.session, input) {
            (Some(session), input) => {
                let sent = if let Payload::Tensors(tensors) = &input { tensors.len() } else { 0 };
                self.context.check()?;
                let inputs = session.preprocess(&self.context, input).await?;
                crate::predict::check_inputs(metadata, &inputs).map_err(|error| {
                    let error = match inputs.len() == sent && inputs.iter().all(Tensor::is_callers) {
                        true => error.owned_by(FaultOwner::Caller),
                        false => explain_check(error, &inputs),
                    };
                    if error.owner() == FaultOwner::Caller {
                        return error;
                    }
                    // The plugin made these tensors, so the fault is not the caller's.
                    Error::failed(error.message().to_owned())
                        .context(format!("plugin \"{}\": preprocess", session.name()))
                        .plugin(&**session.name())
                })?;
                let now = Instant::now();
                self.context.check_at(now)?;
                self.service.input = self.lap(now);
                inputs
            }
            (None, Payload::Tensors(inputs)) => {
                self.context.check_at(self.since)?;
                inputs
            }
            (None, _) => {
                return Err(Error::invalid("this model has no transformer, so it takes tensors only"));
            }
        };
        if let Some(runs) = &self.runs {
            self.service.rows = runs.rows(&inputs);
        }
        Ok(inputs)
    }

    /// Returns the transformer's instance to the pool while this call waits, unless it is fresh and
    /// `waiting` calls may each keep one. A few warm instances serve better than one per call.
    pub(super) fn yield_instance(&mut self, waiting: usize) {
        if let Some(session) = &mut self.session
            && session.reusable_max(waiting) == 0
        {
            session.release_instance();
        }
    }

    pub(super) async fn respond(&mut self, outputs: Vec<Tensor>) -> Result<Response> {
        self.respond_at(Instant::now(), outputs).await
    }

    /// Postprocesses the outputs. `now` is when the model returned them.
    pub(super) async fn respond_at(&mut self, now: Instant, outputs: Vec<Tensor>) -> Result<Response> {
        let infer = self.lap(now);
        self.service.infer += infer;
        let payload = match &mut self.session {
            Some(session) => {
                let payload = session.postprocess(&self.context, outputs).await?;
                let output = self.lap(Instant::now());
                self.service.output += output;
                payload
            }
            None => Payload::Tensors(outputs),
        };
        Ok(Response { payload, queue_wait: self.queue_wait, service: self.service })
    }

    /// Sends the answer. The worker's slot must be free already; the plugin's instance is freed
    /// here, before the answer is sent.
    pub(super) fn finish(mut self, last: Result<Option<Response>>) {
        // A stream that has ended early was traced then.
        if self.sender.is_some() {
            self.trace(last.as_ref().err());
        }
        let last = release(self.session.take(), last);
        if let Some(sender) = self.sender {
            sender.finish(last);
        }
    }
}

/// Ends the span of a call that a plugin has made.
pub(super) fn end_call(context: &CallContext, error: Option<&Error>) {
    if let Some(span) = context.trace.own_span() {
        let attributes = smallvec![
            ("hostler.model", (&context.model).into()),
            ("hostler.version", (&context.version).into()),
        ];
        span.end(attributes, error.map(Error::message));
    }
}

/// Frees the instance of a plugin, and notes in the answer how long that took.
fn release(
    session: Option<TransformerSession>,
    mut last: Result<Option<Response>>,
) -> Result<Option<Response>> {
    if let Some(session) = session {
        let began = Instant::now();
        drop(session);
        if let Ok(Some(response)) = &mut last {
            response.service.release = began.elapsed();
        }
    }
    last
}
