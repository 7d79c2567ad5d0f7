//! Frees models that nothing runs any more, and gives memory back to the system.
//!
//! The last holder of a model may be a request on an I/O thread, and freeing gigabytes takes long, so a thread of its
//! own does it. ONNX Runtime allocates with the C library, which keeps what is freed for later: without a word it
//! would keep several generations of a model that is reloaded again and again.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

/// The heap is given back once nothing was freed for this long, since a policy frees many models in a row.
const QUIET: Duration = Duration::from_millis(100);

/// But no later than this.
const DELAY_MAX: Duration = Duration::from_secs(1);

enum Work {
    /// Something to drop.
    Free(Box<dyn Send>),
    /// Memory was freed elsewhere.
    Trim,
    /// Dropped once all work before it is done.
    Finish(SyncSender<()>),
}

static UNLOADER: OnceLock<Option<Sender<Work>>> = OnceLock::new();

/// Drops a value on the unload thread, and gives the memory back that it had.
pub(super) fn free(value: impl Send + 'static) {
    send(Work::Free(Box::new(value)));
}

/// Gives memory back that was freed just now: loading a model needs a multiple of what it keeps.
pub(super) fn trim_soon() {
    send(Work::Trim);
}

/// Waits until all that was freed so far is gone, for a process that ends: ONNX Runtime must not be unloaded under
/// the unload thread.
pub fn finish(limit: Duration) {
    if UNLOADER.get().is_none() {
        return;
    }
    let (done, finished) = sync_channel(1);
    send(Work::Finish(done));
    let _ = finished.recv_timeout(limit);
}

fn send(work: Work) {
    let unloader = UNLOADER.get_or_init(|| {
        let (work, inbox) = channel();
        // At the priority of requests: while it gives memory back it holds locks that they need.
        let spawned = std::thread::Builder::new().name("unload".into()).spawn(move || run(&inbox));
        spawned.inspect_err(|error| tracing::warn!(%error, "unload thread not started")).ok().map(|_| work)
    });
    if let Some(unloader) = unloader {
        // Without the thread it is dropped here.
        let _ = unloader.send(work);
    }
}

fn run(inbox: &Receiver<Work>) {
    while let Ok(first) = inbox.recv() {
        let begun = Instant::now();
        let mut next = Ok(first);
        let finishing = loop {
            match next {
                Ok(Work::Free(value)) => drop(value),
                Ok(Work::Trim) => {}
                Ok(Work::Finish(done)) => break Some(done),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break None,
            }
            let left = DELAY_MAX.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break None;
            }
            next = inbox.recv_timeout(QUIET.min(left));
        };
        // A process that ends gives everything back.
        if finishing.is_none() {
            trim();
        }
    }
}

// Links the allocator of the host's program, also where a test has another one.
use mimalloc as _;

unsafe extern "C" {
    /// Of mimalloc, which the crate of that name links.
    fn mi_collect(force: bool);
}

/// Allocations of the C library from this size on are mappings of their own, which go back to the system whole. By
/// itself the library raises the size with each large one that is freed, up to 32 MiB: weights then lie between other
/// allocations of the heap, which keep what is freed around them. Runs take their memory from an arena, so that this
/// costs them nothing.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES_MIN: i32 = 1 << 20;

/// To be called before models are loaded.
pub(super) fn keep_weights_apart() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: has no requirements, and may be called on any thread.
    if unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) } == 0 {
        tracing::debug!("the C library keeps its own threshold for mappings");
    }
}

/// Asks the C library and the host's own allocator for what they keep. The latter had the file of the model, and gives
/// such memory back only while it is used.
fn trim() {
    // SAFETY: has no requirements, and may be called on any thread.
    unsafe { mi_collect(true) };
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let begun = Instant::now();
        // SAFETY: has no requirements, and may be called on any thread.
        unsafe { libc::malloc_trim(0) };
        tracing::debug!(ms = begun.elapsed().as_secs_f64() * 1e3, "heap of the C library trimmed");
    }
}
