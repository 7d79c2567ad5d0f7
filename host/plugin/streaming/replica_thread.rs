//! The thread of a replica: makes an instance, runs its event loop, and makes another instance when
//! it is lost. Admission is decided elsewhere.

use super::context::{ReplicaContext, Shared};
use super::event_loop::EventLoop;
use super::instance::Instance;
use super::replica::{EndReason, QueuedCall, Replica};
use crate::error::{Error, Result};
use crate::predict::Metadata;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

/// Guests yield to I/O, as on all workers.
const GUEST_NICE: i32 = 5;

type Announced = Result<Arc<Metadata>>;

/// Starts the thread of a replica. The receiver gets the metadata of its first instance, or the
/// error that prevented it.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    replica: &Arc<Replica>,
    index: usize,
    queue: UnboundedReceiver<QueuedCall>,
) -> Result<oneshot::Receiver<Announced>> {
    let (announce, announced) = oneshot::channel();
    let (shared, replica) = (Arc::clone(shared), Arc::clone(replica));
    let cx = ReplicaContext { shared, replica, index, start_thread: |cx, queue| start(cx, queue, None) };
    start(cx, queue, Some(announce))?;
    Ok(announced)
}

/// Counts a thread of a replica for as long as it lives.
struct ThreadGuard(Arc<Replica>);

impl ThreadGuard {
    fn new(replica: &Arc<Replica>) -> Self {
        replica.threads.send_modify(|threads| *threads += 1);
        ThreadGuard(Arc::clone(replica))
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        self.0.threads.send_modify(|threads| *threads -= 1);
    }
}

fn start(
    cx: ReplicaContext,
    queue: UnboundedReceiver<QueuedCall>,
    announce: Option<oneshot::Sender<Announced>>,
) -> Result<()> {
    let name = format!("{}-{}", cx.shared.spec.name, cx.index);
    let failed = |error: std::io::Error| Error::io(&error).context(format!("cannot start the thread {name}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let thread = std::thread::Builder::new().name(name.clone());
    let alive = ThreadGuard::new(&cx.replica);
    let body = move || {
        let _alive = alive;
        crate::config::lower_priority(GUEST_NICE);
        runtime.block_on(run_instances(cx, queue, announce));
    };
    thread.spawn(body).map(drop).map_err(failed)
}

async fn run_instances(
    cx: ReplicaContext,
    queue: UnboundedReceiver<QueuedCall>,
    mut announce: Option<oneshot::Sender<Announced>>,
) {
    let mut queue = Some(queue);
    let health = &cx.replica.health;
    loop {
        let (fault, served) = match Instance::build(&cx.shared).await {
            Ok(instance) => {
                health.set_ready(instance.is_ready);
                cx.replica.waiting.freed();
                if let Some(announce) = announce.take() {
                    let _ = announce.send(Ok(Arc::clone(&instance.metadata)));
                }
                let event_loop = EventLoop::new(instance.serve(cx.clone(), queue.take()));
                cx.replica.set_event_loop(&event_loop);
                let end = event_loop.run().await;
                queue = end.queue;
                match end.reason {
                    EndReason::Drained => return,
                    EndReason::Lost(fault) => (fault, end.served > 0),
                }
            }
            Err(fault) => (fault, false),
        };
        if let Some(announce) = announce.take() {
            let _ = announce.send(Err(fault));
            return;
        }
        let Some(queue) = &mut queue else { return };
        let drained = |queue: &UnboundedReceiver<QueuedCall>| queue.is_closed() && queue.is_empty();
        let pause = health.record_loss(&fault, served);
        if pause.is_zero() && !drained(queue) {
            continue;
        }
        let (plugin, pause_ms) = (&*cx.shared.spec.name, pause.as_millis() as u64);
        if health.is_quarantined() {
            tracing::error!(plugin, pause_ms, detail = fault.detail(), "replica quarantined: {fault}");
            refuse_queued(&cx, queue);
        } else if !pause.is_zero() {
            tracing::warn!(plugin, pause_ms, detail = fault.detail(), "replica restarting: {fault}");
        }
        let finished = |queue: &UnboundedReceiver<QueuedCall>| drained(queue) || *cx.replica.stop.borrow();
        if !finished(queue) {
            health.pause(pause).await;
        }
        if finished(queue) {
            return;
        }
    }
}

/// Refuses calls that wait for an instance while the replica is quarantined.
fn refuse_queued(cx: &ReplicaContext, queue: &mut UnboundedReceiver<QueuedCall>) {
    let reason =
        cx.replica.health.refusal().unwrap_or_else(|| Error::unavailable("it no longer takes calls"));
    let reason = reason.context(format!("plugin \"{}\"", cx.shared.spec.name)).plugin(&*cx.shared.spec.name);
    while let Some(mut call) = cx.replica.pop_retry().or_else(|| queue.try_recv().ok()) {
        if let Some(sender) = call.sender.take() {
            drop(call);
            sender.finish(Err(reason.clone()));
        }
    }
}
