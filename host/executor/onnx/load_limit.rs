//! A time limit for loading a model in a library, and a way to abandon the load.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// The time limit of one load, and what cancels it.
#[derive(Clone)]
pub struct LoadLimit {
    pub time: Duration,
    pub cancel: Cancel,
}

impl LoadLimit {
    /// Runs `load` on this thread. When the time limit has passed, or when the load is cancelled,
    /// calls `stop` on another thread, which must make `load` return; its result is then discarded.
    pub fn run<T>(
        &self,
        stop: impl Fn() + Send + Sync + 'static,
        load: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.cancel.check()?;
        let stop = Arc::new(stop);
        let abandon = Arc::clone(&stop);
        let _registered = self.cancel.on_cancel(move || abandon());
        let expired = AtomicBool::new(false);
        let loaded = std::thread::scope(|scope| {
            let (ended, end) = channel::<()>();
            let (time, expired, stop) = (self.time, &expired, &stop);
            let watch = move || {
                if end.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                    expired.store(true, Ordering::SeqCst);
                    stop();
                }
            };
            let watch = std::thread::Builder::new().name("load-limit".into()).spawn_scoped(scope, watch);
            watch.map_err(|error| {
                Error::io(&error).context("cannot start a thread that limits the time of a load")
            })?;
            let loaded = load();
            drop(ended);
            loaded
        });
        self.cancel.check()?;
        if expired.load(Ordering::SeqCst) {
            return Err(Error::deadline(format!(
                "loading it took longer than model_load_timeout_ms = {} of [reload]",
                self.time.as_millis()
            )));
        }
        loaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until it is stopped, like a load that never ends.
    fn run(limit: &LoadLimit) -> Result<()> {
        let (stop, stopped) = channel::<()>();
        let stop = move || {
            let _ = stop.send(());
        };
        limit.run(stop, move || stopped.recv().map_err(|_| Error::failed("not stopped")))
    }

    #[test]
    fn a_load_is_stopped_at_its_limit_or_when_it_is_abandoned() {
        let limit = |time| LoadLimit { time, cancel: Cancel::default() };
        assert_eq!(limit(Duration::MAX).run(|| {}, || Ok(7)).unwrap(), 7);
        let late = run(&limit(Duration::from_millis(20))).unwrap_err();
        assert!(late.message().contains("longer than model_load_timeout_ms = 20 of"), "{late}");
        let abandoned = limit(Duration::from_secs(60));
        let cancel = abandoned.cancel.clone();
        let canceller = std::thread::spawn(move || cancel.cancel());
        assert_eq!(run(&abandoned).unwrap_err().kind(), crate::error::Kind::Cancelled);
        canceller.join().unwrap();
    }
}
