//! An executor's own threads for calls that wait. Their guests take turns there.

use crate::error::{Error, Result};
use crate::plugin::share_this_thread;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// The nice value of workers, by which they yield to I/O: if all cores are busy computing,
/// accepting requests and sending answers go first.
pub(in crate::executor) const WORKER_NICE: i32 = 5;

pub(in crate::executor) struct Threads(Option<Runtime>);

impl Threads {
    /// Starts threads for work that waits for other threads and for timers.
    pub fn start(executor: &str, thread_name: &str, count: usize) -> Result<Self> {
        Self::build(executor, thread_name, count, Builder::enable_time)
    }

    /// Starts threads for work that also waits for the network.
    pub fn with_network(executor: &str, count: usize) -> Result<Self> {
        Self::build(executor, executor, count, Builder::enable_all)
    }

    fn build(
        executor: &str,
        thread_name: &str,
        count: usize,
        enable: fn(&mut Builder) -> &mut Builder,
    ) -> Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(count).thread_name(thread_name).on_thread_start(|| {
            crate::config::lower_priority(WORKER_NICE);
            share_this_thread();
        });
        enable(&mut builder);
        let failed = |error: Error| error.context(format!("executor \"{executor}\": cannot start threads"));
        // tokio panics if the system refuses a thread, which may be temporary.
        let built = catch_unwind(AssertUnwindSafe(|| builder.build()));
        let no_thread = || Error::unavailable("the system refuses another thread").transient();
        let built = built.map_err(|_| failed(no_thread()))?;
        built.map(|runtime| Threads(Some(runtime))).map_err(|error| failed(Error::io(&error)))
    }
}

impl Deref for Threads {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("invariant: taken on drop only")
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // The last call of a retired executor drops this on one of its own threads, when no work is
        // left to wait for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// How many items of a batch run concurrently, where each is answered separately.
pub(in crate::executor) const BATCH_AT_ONCE: usize = 16;

/// Runs all futures as tasks, at most [`BATCH_AT_ONCE`] at a time.
pub(in crate::executor) async fn some_at_once(
    runs: impl Iterator<Item = impl Future<Output = ()> + Send + 'static>,
) {
    let mut running = JoinSet::new();
    for run in runs {
        if running.len() >= BATCH_AT_ONCE {
            running.join_next().await;
        }
        running.spawn(run);
    }
    while running.join_next().await.is_some() {}
}
