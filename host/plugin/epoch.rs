//! The clock of an engine: a thread that advances the epoch while guests run, so that they can be
//! interrupted.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often a running guest's deadline is checked, and thus the precision of deadlines.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Advances the engine's epoch on its own OS thread, so that a busy runtime cannot stop the clock.
/// Sleeps when no guest has run for a while.
pub(super) struct Ticker {
    started: Instant,
    /// Calls into guests that are in progress.
    active: AtomicUsize,
    /// Start of the last call, in milliseconds since `started`.
    last_call_ms: AtomicU64,
    pub parked: AtomicBool,
    thread: std::thread::Thread,
}

/// A call into a guest. The clock ticks while it exists.
pub(super) struct TickGuard<'a>(&'a Ticker);

impl Drop for TickGuard<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ticking continues for this long after the last call: waking a thread for each call costs more
/// than letting it tick.
pub(super) const TICKER_IDLE_MS: u64 = 200;

impl Ticker {
    pub fn start(engine: &wasmtime::Engine) -> Result<Arc<Self>> {
        let engine = engine.weak();
        let (sender, receiver) = std::sync::mpsc::channel::<Weak<Ticker>>();
        let handle = std::thread::Builder::new()
            .name("ticker".into())
            .spawn(move || {
                let Ok(ticker) = receiver.recv() else { return };
                while let (Some(ticker), Some(engine)) = (ticker.upgrade(), engine.upgrade()) {
                    engine.increment_epoch();
                    drop(engine);
                    if ticker.idle() {
                        ticker.parked.store(true, Ordering::SeqCst);
                        // Checked again after the flag is set: a concurrent call either sees the
                        // flag or is seen here.
                        if ticker.idle() {
                            drop(ticker);
                            std::thread::park_timeout(Duration::from_secs(1));
                            continue;
                        }
                        ticker.parked.store(false, Ordering::SeqCst);
                    }
                    drop(ticker);
                    std::thread::sleep(TICK);
                }
            })
            .map_err(|error| Error::failed(format!("cannot start the ticker thread: {error}")))?;
        let ticker = Arc::new(Ticker {
            started: Instant::now(),
            active: AtomicUsize::new(0),
            last_call_ms: AtomicU64::new(0),
            parked: AtomicBool::new(false),
            thread: handle.thread().clone(),
        });
        sender.send(Arc::downgrade(&ticker)).expect("invariant: the thread waits for its ticker");
        Ok(ticker)
    }

    pub fn tick(&self) -> TickGuard<'_> {
        self.active.fetch_add(1, Ordering::SeqCst);
        self.wake();
        TickGuard(self)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn idle(&self) -> bool {
        self.active.load(Ordering::SeqCst) == 0
            && self.now_ms().saturating_sub(self.last_call_ms.load(Ordering::SeqCst)) > TICKER_IDLE_MS
    }

    fn wake(&self) {
        // All workers write this at each call, so it is written only when it changes.
        let now_ms = self.now_ms();
        if self.last_call_ms.load(Ordering::SeqCst) != now_ms {
            self.last_call_ms.store(now_ms, Ordering::SeqCst);
        }
        if self.parked.load(Ordering::SeqCst) && self.parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}
