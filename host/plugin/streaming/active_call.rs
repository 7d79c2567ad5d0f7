//! One call in flight in an instance: its client, its responses, and what it holds until it ends.

use super::replica::QueuedCall;
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use crate::plugin::bindings::types;
use crate::plugin::handles::Inputs;
use crate::plugin::host_errors::HostErrors;
use crate::plugin::log::CallLog;
use crate::plugin::log_tail::LogTail;
use crate::plugin::retained::InstanceRetained;
use crate::plugin::spec::PluginSpec;
use crate::predict::{
    Announced, Budget, CallContext, Metadata, Payload, Response, Responses, Sender, Service, Target, Tensor,
    check_outputs,
};
use bytes::Bytes;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The inputs of a call in an instance, and the account of the instance's memory.
pub(super) struct CallInputs {
    pub inputs: Inputs,
    pub held: Arc<InstanceRetained>,
}

/// The responses of a call in flight; `None` once it has ended.
pub(super) type RunningCall = tokio::sync::Mutex<Option<Responses>>;

/// One call in an instance.
pub struct ActiveCall {
    pub context: Arc<CallContext>,
    /// The earlier of the request's deadline and the plugin's own timeout.
    pub deadline: Instant,
    timeout: Duration,
    plugin: Arc<str>,
    /// What the guest writes on its behalf. Created when it first writes.
    log: OnceLock<Arc<CallLog>>,
    log_tail: Arc<LogTail>,
    log_budget: usize,
    started: Instant,
    queue_wait: Duration,
    metadata: Arc<Metadata>,
    sender: tokio::sync::Mutex<Option<Sender>>,
    /// The one response of a model that is not streaming, kept until its call ends.
    only: Mutex<Option<(Response, usize)>>,
    responded: AtomicBool,
    /// Waits that failed because the call has ended.
    refusals: AtomicU32,
    /// The error that ends the call early.
    stopped: OnceLock<Error>,
    stop: Notify,
    /// Calls of models that are in flight on its behalf, and end with it.
    invocations: Mutex<Vec<Weak<RunningCall>>>,
    /// Errors that host calls returned to the guest on its behalf.
    host_errors: Mutex<HostErrors>,
    /// The models that the guest has obtained for this call and has not dropped.
    targets: Mutex<Vec<Arc<dyn Target>>>,
    /// The allocations of its inputs.
    pub inputs: Inputs,
    /// The memory that the instance holds, including the note that the guest has set.
    held: Arc<InstanceRetained>,
    note_bytes: AtomicUsize,
    /// How many calls to servers it has made.
    pub fetches: AtomicU32,
    /// What a retry of the call needs, and the slot that the call occupies.
    queued: Mutex<Option<QueuedCall>>,
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        self.take_only();
        self.held.release(*self.note_bytes.get_mut());
    }
}

impl ActiveCall {
    pub(super) fn new(
        mut queued: QueuedCall,
        spec: &PluginSpec,
        metadata: &Arc<Metadata>,
        call_inputs: CallInputs,
    ) -> Self {
        let now = Instant::now();
        let (plugin, timeout) = (&spec.name, spec.limits.timeout);
        let own = now + timeout;
        ActiveCall {
            context: Arc::clone(&queued.context),
            deadline: queued.context.deadline.map_or(own, |deadline| deadline.min(own)),
            timeout,
            plugin: Arc::clone(plugin),
            log: OnceLock::new(),
            log_tail: Arc::clone(&spec.log_tail),
            log_budget: spec.limits.log_bytes,
            started: now,
            queue_wait: now.duration_since(queued.admitted),
            metadata: Arc::clone(metadata),
            sender: tokio::sync::Mutex::new(queued.sender.take()),
            only: Mutex::default(),
            responded: AtomicBool::new(false),
            refusals: AtomicU32::new(0),
            stopped: OnceLock::new(),
            stop: Notify::new(),
            invocations: Mutex::default(),
            host_errors: Mutex::default(),
            targets: Mutex::default(),
            inputs: call_inputs.inputs,
            held: call_inputs.held,
            note_bytes: AtomicUsize::new(0),
            fetches: AtomicU32::new(0),
            queued: Mutex::new(Some(queued)),
        }
    }

    /// Waits until this call must end, and returns the reason.
    pub async fn ended(&self) -> Error {
        let mut stop = pin!(self.stop.notified());
        stop.as_mut().enable();
        if let Some(reason) = self.stopped.get() {
            return reason.clone();
        }
        tokio::select! {
            () = stop => {}
            () = self.context.cancellation.cancelled() => {}
            () = tokio::time::sleep_until(self.deadline.into()) => {}
        }
        if let Some(reason) = self.stopped.get() {
            return reason.clone();
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

    /// Ends this call with `reason`, as if its time were over.
    pub(super) fn stop(&self, reason: Error) {
        let _ = self.stopped.set(reason);
        self.stop.notify_waiters();
    }

    /// Converts an error for the guest, and remembers it.
    pub fn record_error(&self, error: Error) -> types::Error {
        self.host_errors.lock_unpoisoned().record(error)
    }

    /// Returns the error that the guest returns, if a host call returned it to the guest on behalf
    /// of this call.
    pub fn recorded_error(&self, returned: &types::Error) -> Option<Error> {
        self.host_errors.lock_unpoisoned().find_returned(returned, &self.plugin)
    }

    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Returns the log of what the guest writes on behalf of this call.
    pub fn log(&self) -> Arc<CallLog> {
        let log = self.log.get_or_init(|| {
            let request = Arc::clone(&self.context.id);
            Arc::new(CallLog::new(Arc::clone(&self.log_tail), request, self.log_budget))
        });
        Arc::clone(log)
    }

    /// Logs what is left of the guest's output, and returns what it last wrote to stderr.
    pub(super) fn end_log(&self) -> String {
        self.log.get().map(|log| log.end()).unwrap_or_default()
    }

    /// Waits for `work` on behalf of this call. Fails if the call must end first.
    pub async fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            error = self.ended() => {
                // A guest that ignores this error slows down itself, not the host.
                let refusals = self.refusals.fetch_add(1, Ordering::Relaxed);
                if refusals > 0 {
                    tokio::time::sleep(Duration::from_millis(refusals.min(50).into())).await;
                }
                Err(error)
            }
        }
    }

    /// Keeps a model for as long as this call may call it.
    pub fn keep_target(&self, target: Arc<dyn Target>) {
        self.targets.lock_unpoisoned().push(target);
    }

    /// Releases a model whose handle the guest has dropped.
    pub fn forget(&self, target: &Weak<dyn Target>) {
        let mut targets = self.targets.lock_unpoisoned();
        let same = |kept: &Arc<dyn Target>| std::ptr::addr_eq(Arc::as_ptr(kept), target.as_ptr());
        if let Some(index) = targets.iter().position(same) {
            targets.swap_remove(index);
        }
    }

    /// Sets the note of the request, which the instance holds until the call ends.
    pub fn set_note(&self, note: Bytes) {
        self.held.add(note.len());
        self.held.release(self.note_bytes.swap(note.len(), Ordering::Relaxed));
        self.context.set_note(note);
    }

    /// Takes the only response. The instance does not hold it any more.
    fn take_only(&self) -> Option<Response> {
        let (response, bytes) = self.only.lock_unpoisoned().take()?;
        self.held.release(bytes);
        Some(response)
    }

    /// Remembers a call of a model that must end with this call.
    pub fn calls(&self, running: &Arc<RunningCall>) {
        let mut invocations = self.invocations.lock_unpoisoned();
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
                return Err(Error::unsupported(
                    "this model returns exactly one response, which was already sent",
                ));
            }
            self.held.charge(bytes)?;
            *self.only.lock_unpoisoned() = Some((response, bytes));
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

    /// Tells the client immediately that this call is over. The slot stays occupied until the call
    /// has really ended.
    pub fn fail(&self, error: Error) {
        // If the lock is taken, a response is being sent, which fails for the same reason.
        if let Ok(mut sender) = self.sender.try_lock()
            && let Some(sender) = &mut *sender
        {
            sender.fail(error);
        }
    }

    /// Ends the call, successfully or not. The slot is free before the client sees the end.
    pub async fn end(&self, outcome: Result<()>) {
        let sender = self.sender.lock().await.take();
        self.finish(sender, outcome);
    }

    /// Like [`end`](Self::end), for a lost instance: nothing sends responses any more.
    pub fn fail_lost(&self, error: Error) {
        let sender = self.sender.try_lock().ok().and_then(|mut sender| sender.take());
        self.finish(sender, Err(error));
    }

    fn finish(&self, sender: Option<Sender>, outcome: Result<()>) {
        let only = self.take_only();
        self.end_log();
        self.targets.lock_unpoisoned().clear();
        drop(self.queued.lock_unpoisoned().take());
        let invocations = std::mem::take(&mut *self.invocations.lock_unpoisoned());
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

    /// Returns the call as it was admitted if it can be retried: it is idempotent and has a retry
    /// left, nothing was sent, and the client still waits.
    pub(super) fn take_retry(&self) -> Option<QueuedCall> {
        let mut queued = self.queued.lock_unpoisoned();
        let again = |call: &mut QueuedCall| {
            call.idempotent
                && !self.responded.load(Ordering::Acquire)
                && call.retries_left > 0
                && self.context.check().is_ok()
        };
        let mut call = queued.take_if(again)?;
        drop(queued);
        call.retries_left -= 1;
        call.sender = self.sender.try_lock().ok().and_then(|mut sender| sender.take());
        call.sender.is_some().then_some(call)
    }
}
