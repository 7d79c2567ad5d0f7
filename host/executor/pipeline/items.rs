//! Items: the responses of a streaming model that is the model of a step.

use super::limits::Permit;
use super::model::StepTarget;
use super::step::{CallPosition, StepRun};
use crate::error::{Error, Result};
use crate::executor::call::Precedence;
use crate::predict::{CallContext, Response, Responses, Service, Tensor};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl<'a> StepRun<'a> {
    /// Calls a streaming model, and returns the stream of its responses.
    pub async fn stream(self, inputs: Vec<Tensor>) -> Result<Items<'a>> {
        let started = Instant::now();
        let deadline = self.deadline(started);
        let callers_only = self.inputs_are_callers;
        let start = async {
            self.account.count_run()?;
            let permit = match &self.model.limits[self.at] {
                Some(limit) => Some(limit.enter(self.account.since).await),
                None => None,
            };
            let StepTarget { target, .. } = self.target();
            let context = self.step_context(target, deadline, Instant::now())?;
            target.check_step(&inputs)?;
            let responses =
                target.start_step(&context, inputs, Precedence::Started(self.account.since)).await?;
            self.account.track(responses.release());
            Ok((responses, permit, context))
        };
        let started_stream = match deadline.filter(|_| self.step().timeout.is_some()) {
            None => start.await,
            Some(at) => tokio::time::timeout_at(at.into(), start).await.unwrap_or_else(|_| {
                Err(self.own_timeout(Error::deadline("the deadline of the request has passed"), deadline))
            }),
        };
        match started_stream {
            Ok((responses, permit, context)) => Ok(Items {
                responses,
                started,
                callers_only,
                _permit: permit,
                context,
                error: None,
                run: self.clone(),
            }),
            Err(error) => {
                let error: Error = error;
                let error = error.settled();
                let is_hosts = error.kind().is_about_request() && !callers_only;
                Err(self.named(if is_hosts { error.as_failure() } else { error }, CallPosition::default()))
            }
        }
    }
}

/// The items of a streaming step, as they arrive.
pub(super) struct Items<'a> {
    run: StepRun<'a>,
    responses: Responses,
    started: Instant,
    callers_only: bool,
    _permit: Option<Permit<'a>>,
    context: Arc<CallContext>,
    /// What has ended the stream, if it is not its end.
    error: Option<Error>,
}

impl Drop for Items<'_> {
    fn drop(&mut self) {
        StepRun::end_span(&self.context, CallPosition::default(), self.error.as_ref());
    }
}

impl Items<'_> {
    /// Returns the next item. `None` once the stream has ended without an error.
    pub async fn next(&mut self) -> Option<Result<Vec<Tensor>>> {
        let item = self.responses.next().await.map(|item| item.and_then(Response::tensors));
        let StepTarget { route, .. } = self.run.target();
        match item {
            Some(Ok(outputs)) => {
                if let Err(error) = self.run.account.count_run() {
                    return Some(Err(self.run.named(error, CallPosition::default())));
                }
                Some(Ok(outputs))
            }
            Some(Err(error)) => {
                if self.run.account.counts {
                    route.ended(Some(&error), Duration::ZERO, Service::default());
                }
                let error = error.settled();
                let is_hosts = error.kind().is_about_request() && !self.callers_only;
                let error = if is_hosts { error.as_failure() } else { error };
                let error = self.run.named(error, CallPosition::default());
                self.error = Some(error.clone());
                Some(Err(error))
            }
            None => {
                if self.run.account.counts {
                    let service = Service { infer: self.started.elapsed(), rows: 1, ..Service::default() };
                    route.ended(None, Duration::ZERO, service);
                }
                None
            }
        }
    }

    pub fn started(&self) -> Instant {
        self.started
    }
}
