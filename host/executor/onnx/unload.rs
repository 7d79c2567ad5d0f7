//! Frees models that are no longer in use, and returns their memory to the system.
//!
//! The last holder of a model may be a request on an I/O thread, and freeing gigabytes takes long,
//! so a separate thread does it. ONNX Runtime allocates with the C library, which keeps freed
//! memory for reuse: unless it is asked to return it, it would keep several generations of a model
//! that is reloaded repeatedly.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

/// The heap is trimmed once nothing was freed for this long, since a policy frees many models in a
/// row.
const QUIET: Duration = Duration::from_millis(100);

/// The maximum delay from the first freed model to the trim.
const DELAY_MAX: Duration = Duration::from_secs(1);

enum Work {
    /// Drops the value.
    Free(Box<dyn Send>),
    /// Trims the heap, since memory was freed elsewhere.
    Trim,
    /// Drops the sender once all work before it is done.
    Finish(SyncSender<()>),
}

static UNLOADER: OnceLock<Option<Sender<Work>>> = OnceLock::new();

/// Drops a value on the unload thread, and returns its memory to the system.
pub(super) fn free(value: impl Send + 'static) {
    send(Work::Free(Box::new(value)));
}

/// Returns memory to the system that was just freed. Loading a model needs a multiple of the memory
/// that the model keeps.
pub(super) fn trim_soon() {
    send(Work::Trim);
}

/// Waits until all values passed to `free` are dropped, at most for `limit`. Called before the
/// process ends, since ONNX Runtime must not be unloaded while the unload thread uses it.
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
        // At the priority of requests: while the thread trims, it holds locks that requests need.
        let spawned = std::thread::Builder::new().name("unload".into()).spawn(move || run(&inbox));
        spawned.inspect_err(|error| tracing::warn!(%error, "unload thread not started")).ok().map(|_| work)
    });
    if let Some(unloader) = unloader {
        // If the thread has ended, the value is dropped here.
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
            let remaining = DELAY_MAX.saturating_sub(begun.elapsed());
            if remaining.is_zero() {
                break None;
            }
            next = inbox.recv_timeout(QUIET.min(remaining));
        };
        // The memory of a process that ends is returned anyway.
        if finishing.is_none() {
            trim();
        }
    }
}

unsafe extern "C" {
    /// A function of mimalloc, which `allocator` links.
    fn mi_collect(force: bool);
}

/// Allocations of the C library of at least this size are separate mappings, which are returned to
/// the system as a whole. By default, the library raises the threshold with each large allocation
/// that is freed, up to 32 MiB. Weights then lie between other allocations of the heap, which keep
/// the memory freed around them from being returned. Runs take their memory from an arena, so this
/// costs them nothing.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES_MIN: i32 = 1 << 20;

/// Fixes the threshold for separate mappings. Must be called before models are loaded.
pub(super) fn keep_weights_apart() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function has no preconditions, and may be called on any thread.
    if unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) } == 0 {
        tracing::debug!("mmap threshold of the C library not set");
    }
}

/// Makes the C library and the host's own allocator return freed memory. The latter held the file
/// of the model, and otherwise returns such memory only while it is used.
fn trim() {
    // SAFETY: the function has no preconditions, and may be called on any thread.
    unsafe { mi_collect(true) };
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let begun = Instant::now();
        // SAFETY: the function has no preconditions, and may be called on any thread.
        unsafe { libc::malloc_trim(0) };
        tracing::debug!(ms = begun.elapsed().as_secs_f64() * 1e3, "heap of the C library trimmed");
    }
}
