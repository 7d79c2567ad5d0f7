//! Threads of an executor's own, for calls that wait: their guests take turns there.

use crate::error::{Error, Result};
use crate::plugin::share_this_thread;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Workers yield to I/O: on a machine whose cores are all busy computing, accepting and answering go first.
pub(in crate::executor) const WORKER_NICE: i32 = 5;

pub(in crate::executor) struct Threads(Option<Runtime>);

impl Threads {
    /// For work that waits for other threads, and for times.
    pub fn start(executor: &str, thread_name: &str, count: usize) -> Result<Self> {
        Self::build(executor, thread_name, count, Builder::enable_time)
    }

    /// For work that also waits for the network.
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
        // tokio panics where the system gives it no thread, and that may pass.
        let built = catch_unwind(AssertUnwindSafe(|| builder.build()));
        let no_thread = || Error::unavailable("the system gives no more").transient();
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
        // The last call of a retired executor drops it, on one of its own threads: nothing is left to wait for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Items of a batch that are answered at the same time, where each is answered for itself.
pub(in crate::executor) const BATCH_AT_ONCE: usize = 16;

/// Runs all, as tasks, so many at the same time.
pub(in crate::executor) async fn some_at_once(runs: impl Iterator<Item = impl Future<Output = ()> + Send + 'static>) {
    let mut running = JoinSet::new();
    for run in runs {
        if running.len() >= BATCH_AT_ONCE {
            running.join_next().await;
        }
        running.spawn(run);
    }
    while running.join_next().await.is_some() {}
}
