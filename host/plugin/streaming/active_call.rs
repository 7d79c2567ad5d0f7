//! One call in flight in an instance: who waits for it, what it has answered, and what it holds until it ends.

use super::model_calls::RunningCall;
use super::{Shared, Ticket};
use crate::error::{Error, Result};
use crate::plugin::bindings::types;
use crate::plugin::handles::Inputs;
use crate::plugin::host_errors::HostErrors;
use crate::plugin::retained::InstanceRetained;
use crate::predict::{
    Announced, Budget, CallContext, Metadata, Payload, Response, Sender, Service, Target, Tensor,
    check_outputs,
};
use bytes::Bytes;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What a call has brought into an instance.
pub(super) struct CallInputs {
    pub inputs: Inputs,
    pub held: Arc<InstanceRetained>,
}

/// One call in an instance.
pub struct ActiveCall {
    pub context: Arc<CallContext>,
    /// The earlier of the request's deadline and the plugin's own timeout.
    pub deadline: Instant,
    timeout: Duration,
    plugin: Arc<str>,
    started: Instant,
    queue_wait: Duration,
    metadata: Arc<Metadata>,
    sender: tokio::sync::Mutex<Option<Sender>>,
    /// The one response of a model that is not streaming, until its call ends.
    only: Mutex<Option<(Response, usize)>>,
    responded: AtomicBool,
    /// Waits that failed because the call is over.
    refusals: AtomicU32,
    /// Why it is to end before its time.
    stopped: OnceLock<Error>,
    stop: Notify,
    /// Calls to models that are under way on its behalf, and end with it.
    invocations: Mutex<Vec<Weak<RunningCall>>>,
    /// Errors that the guest was given on its behalf.
    host_errors: Mutex<HostErrors>,
    /// The models that it has asked for and has not dropped.
    targets: Mutex<Vec<Arc<dyn Target>>>,
    /// Where its inputs lie.
    pub inputs: Inputs,
    /// What the instance holds; the note that the guest has set is a part of it.
    held: Arc<InstanceRetained>,
    note_bytes: AtomicUsize,
    /// How often it has asked a server.
    pub fetches: AtomicU32,
    /// What is needed to make the call again; and the place that it holds.
    ticket: Mutex<Option<Ticket>>,
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        self.take_only();
        self.held.release(*self.note_bytes.get_mut());
    }
}

impl ActiveCall {
    pub(super) fn new(
        mut ticket: Ticket,
        shared: &Shared,
        metadata: &Arc<Metadata>,
        brought: CallInputs,
    ) -> Self {
        let now = Instant::now();
        let (plugin, timeout) = (&shared.spec.name, shared.spec.limits.timeout);
        let own = now + timeout;
        ActiveCall {
            context: Arc::clone(&ticket.context),
            deadline: ticket.context.deadline.map_or(own, |deadline| deadline.min(own)),
            timeout,
            plugin: Arc::clone(plugin),
            started: now,
            queue_wait: now.duration_since(ticket.admitted),
            metadata: Arc::clone(metadata),
            sender: tokio::sync::Mutex::new(ticket.sender.take()),
            only: Mutex::default(),
            responded: AtomicBool::new(false),
            refusals: AtomicU32::new(0),
            stopped: OnceLock::new(),
            stop: Notify::new(),
            invocations: Mutex::default(),
            host_errors: Mutex::default(),
            targets: Mutex::default(),
            inputs: brought.inputs,
            held: brought.held,
            note_bytes: AtomicUsize::new(0),
            fetches: AtomicU32::new(0),
            ticket: Mutex::new(Some(ticket)),
        }
    }

    /// Why this call should not go on, once it should not.
    pub async fn ended(&self) -> Error {
        let mut stop = pin!(self.stop.notified());
        stop.as_mut().enable();
        if let Some(why) = self.stopped.get() {
            return why.clone();
        }
        tokio::select! {
            () = stop => {}
            () = self.context.cancellation.cancelled() => {}
            () = tokio::time::sleep_until(self.deadline.into()) => {}
        }
        if let Some(why) = self.stopped.get() {
            return why.clone();
        }
        match self.context.check() {
            Err(error) => error,
            Ok(()) => Error::deadline(format!(
                "plugin \"{}\" was stopped after {} ms: its timeout_ms is {}",
                self.plugin,
                self.started.elapsed().as_millis(),
                self.timeout.as_millis()
            ))
            .plugin(&*self.plugin),
        }
    }

    /// Ends this call as if its time were over, with this error.
    pub(super) fn stop(&self, why: Error) {
        let _ = self.stopped.set(why);
        self.stop.notify_waiters();
    }

    /// Gives an error to the guest.
    pub fn record_error(&self, error: Error) -> types::Error {
        self.host_errors.lock().expect("invariant: no panic under the lock").record(error)
    }

    /// The error that the guest returns, if it was given to it on behalf of this call.
    pub fn recorded_error(&self, returned: &types::Error) -> Option<Error> {
        self.host_errors
            .lock()
            .expect("invariant: no panic under the lock")
            .find_returned(returned, &self.plugin)
    }

    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Waits for `work` on behalf of this call, as long as that makes sense.
    pub async fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            error = self.ended() => {
                // A guest that takes no notice gets slower, not the host.
                let refusals = self.refusals.fetch_add(1, Ordering::Relaxed);
                if refusals > 0 {
                    tokio::time::sleep(Duration::from_millis(refusals.min(50).into())).await;
                }
                Err(error)
            }
        }
    }

    /// Keeps a model for as long as this call may call it.
    pub fn remember_task(&self, target: Arc<dyn Target>) {
        self.targets.lock().expect("invariant: no panic under the lock").push(target);
    }

    /// The guest has dropped its handle of a model.
    pub fn forget(&self, target: &Weak<dyn Target>) {
        let mut targets = self.targets.lock().expect("invariant: no panic under the lock");
        let same = |kept: &Arc<dyn Target>| std::ptr::addr_eq(Arc::as_ptr(kept), target.as_ptr());
        if let Some(place) = targets.iter().position(same) {
            targets.swap_remove(place);
        }
    }

    /// Sets the note of the request, which the instance holds until the call ends.
    pub fn set_note(&self, note: Bytes) {
        self.held.add(note.len());
        self.held.release(self.note_bytes.swap(note.len(), Ordering::Relaxed));
        self.context.set_note(note);
    }

    /// The only response, which the instance holds no more.
    fn take_only(&self) -> Option<Response> {
        let (response, bytes) = self.only.lock().expect("invariant: no panic under the lock").take()?;
        self.held.release(bytes);
        Some(response)
    }

    /// Remembers a call to a model that shall end with this one.
    pub fn calls(&self, running: &Arc<RunningCall>) {
        let mut invocations = self.invocations.lock().expect("invariant: no panic under the lock");
        invocations.retain(|running| running.strong_count() > 0);
        invocations.push(Arc::downgrade(running));
    }

    /// Sends a response, or keeps it until the end of the call if it is the only one.
    pub async fn respond(&self, outputs: Vec<Tensor>) -> Result<()> {
        check_outputs(&self.plugin, Announced::ByPlugin, &self.metadata, &outputs)?;
        let bytes = Tensor::bytes_kept(&outputs);
        let payload = Payload::Tensors(outputs);
        let service = Service { infer: self.started.elapsed(), rows: 1, ..Service::default() };
        let response = Response { payload, queue_wait: self.queue_wait, service };
        let second = self.responded.swap(true, Ordering::AcqRel);
        if !self.metadata.streaming {
            if second {
                return Err(Error::unsupported("this model gives exactly one response, and has sent it"));
            }
            self.held.charge(bytes)?;
            *self.only.lock().expect("invariant: no panic under the lock") = Some((response, bytes));
            return Ok(());
        }
        self.wait(async {
            match &mut *self.sender.lock().await {
                Some(sender) => sender.send(response).await,
                None => Err(Error::cancelled("the responses have ended")),
            }
        })
        .await?
    }

    /// Tells the caller at once that this call is over; the place is held until it really is.
    pub fn fail(&self, error: Error) {
        // Whoever sends now sees the same end.
        if let Ok(mut sender) = self.sender.try_lock()
            && let Some(sender) = &mut *sender
        {
            sender.fail(error);
        }
    }

    /// The end of a call, in order or not. The place is free before the caller knows.
    pub async fn end(&self, outcome: Result<()>) {
        let sender = self.sender.lock().await.take();
        self.finish(sender, outcome);
    }

    /// The same where the instance is lost, so that nobody sends.
    pub fn fail_lost(&self, error: Error) {
        let sender = self.sender.try_lock().ok().and_then(|mut sender| sender.take());
        self.finish(sender, Err(error));
    }

    fn finish(&self, sender: Option<Sender>, outcome: Result<()>) {
        let only = self.take_only();
        self.targets.lock().expect("invariant: no panic under the lock").clear();
        drop(self.ticket.lock().expect("invariant: no panic under the lock").take());
        let invocations =
            std::mem::take(&mut *self.invocations.lock().expect("invariant: no panic under the lock"));
        for running in invocations.iter().filter_map(Weak::upgrade) {
            drop(running.try_lock().ok().and_then(|mut responses| responses.take()));
        }
        let last = match outcome {
            Ok(()) if !self.metadata.streaming && only.is_none() => {
                let message = format!("plugin \"{}\" returned without a response", self.plugin);
                Err(Error::failed(message).plugin(&*self.plugin))
            }
            Ok(()) => Ok(only),
            Err(error) => Err(error),
        };
        if let Some(sender) = sender {
            sender.finish(last);
        }
    }

    /// The call as it was admitted, if it can be made again: it may be, nothing was sent, somebody waits.
    pub fn retry_ticket(&self) -> Option<Ticket> {
        let mut held = self.ticket.lock().expect("invariant: no panic under the lock");
        let again = |ticket: &mut Ticket| {
            ticket.idempotent
                && !self.responded.load(Ordering::Acquire)
                && ticket.retries_left > 0
                && self.context.check().is_ok()
        };
        let mut ticket = held.take_if(again)?;
        drop(held);
        ticket.retries_left -= 1;
        ticket.sender = self.sender.try_lock().ok().and_then(|mut sender| sender.take());
        ticket.sender.is_some().then_some(ticket)
    }
}
