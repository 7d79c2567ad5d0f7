//! `TritonExecutor`: admits calls and sends them to the remote.
//!
//! Each call is a task on the executor's own threads and occupies a slot until it ends. There is no
//! queue here and no batching: the remote has its own queue, and it sees the whole load. Pre- and
//! postprocessing run on these threads too, never on the threads that serve connections.

use super::config::{TlsFiles, TritonConfig};
use super::link::Link;
use super::model::RemoteModel;
use crate::error::{Error, Kind, Result};
use crate::executor::call::{Call, STREAM_BUFFER, Submit, with_channels};
use crate::executor::callable::{self, BoxFuture, Callable};
use crate::executor::scheduler::{BATCH_AT_ONCE, InFlight, InFlightGuard, PoolMetrics, Threads};
use crate::executor::sink::Sink;
use crate::executor::source::{Source, refuse_pipeline};
use crate::executor::status::Status;
use crate::executor::traits::Executor;
use crate::metrics::Metrics;
use crate::predict::{Response, Responses, Sender, channel};
use smallvec::smallvec;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

pub struct TritonExecutor {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    config: TritonConfig,
    link: Arc<Link>,
    in_flight: Arc<InFlight>,
    metrics: PoolMetrics,
    threads: Threads,
}

impl TritonExecutor {
    pub const KIND: &'static str = "triton";

    /// Starts the threads and the probes of the remote. Does not wait for a connection.
    pub fn start(name: &str, config: TritonConfig, tls: Option<TlsFiles>, metrics: &Metrics) -> Result<Self> {
        let threads = Threads::with_network(name, config.threads)?;
        let pool = PoolMetrics::new(metrics, name);
        let link = {
            let _entered = threads.enter();
            Arc::new(Link::open(name.into(), &config, tls.as_ref())?)
        };
        // The task ends with the threads.
        threads.spawn(Arc::clone(&link).watch());
        let shared = Shared {
            name: name.into(),
            in_flight: InFlight::bounded(name.into(), config.workers, &pool),
            config,
            link,
            metrics: pool,
            threads,
        };
        Ok(TritonExecutor { shared: Arc::new(shared) })
    }

    /// Starts an admitted call.
    fn begin(&self, call: Call, guard: InFlightGuard) -> Responses {
        let (sender, responses) = channel(Arc::clone(&call.context), STREAM_BUFFER);
        let (shared, admitted) = (Arc::clone(&self.shared), Instant::now());
        self.spawn(async move { shared.run(call, sender, admitted, Some(guard)).await });
        responses
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.threads.spawn(work);
    }
}

impl Submit for TritonExecutor {
    fn submit(&self, call: Call) -> Result<Responses> {
        self.shared.link.check()?;
        let guard = self.shared.in_flight.take(smallvec![Arc::clone(&call.context)])?;
        Ok(self.begin(call, guard))
    }

    fn submit_started(&self, call: Call, since: Instant) -> BoxFuture<'_, Result<Responses>> {
        Box::pin(async move {
            self.shared.link.check()?;
            let guard = self.shared.in_flight.take_started(Arc::clone(&call.context), since).await;
            Ok(self.begin(call, guard))
        })
    }

    fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        self.shared.link.check()?;
        let contexts = calls.iter().map(|call| Arc::clone(&call.context)).collect();
        let guard = self.shared.in_flight.take(contexts)?;
        let (calls, responses) = with_channels(calls);
        let (shared, admitted) = (Arc::clone(&self.shared), Instant::now());
        self.spawn(async move { shared.run_batch(calls, admitted, guard).await });
        Ok(responses)
    }
}

impl Executor for TritonExecutor {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>> {
        let refused = |what: String, hint: &str| {
            let name = &self.shared.name;
            let message = format!(
                "executor \"{name}\" is of kind triton and runs models of a remote, but {what}; {hint}"
            );
            Err(Error::invalid(message))
        };
        let refuse_plugin = |plugin: &str| {
            let hint = "name an executor of kind thread-pool, such as \"cpu\"";
            refused(format!("the model is the plugin \"{plugin}\""), hint)
        };
        match source {
            Source::Remote { name, version, reference } => {
                let link = Arc::clone(&self.shared.link);
                let load = RemoteModel::load(link, name, version.as_deref(), reference.as_ref());
                let model = self.shared.threads.block_on(load)?;
                let watched = Arc::downgrade(&model);
                self.shared.link.watch_model(watched);
                Ok(model)
            }
            Source::Onnx { .. } => refused(
                "the model is an ONNX file".into(),
                "add remote = { name = \"…\" } to the model, or name an executor of kind onnx or thread-pool",
            ),
            Source::Pipeline(_) => Err(refuse_pipeline(self.name(), Self::KIND)),
            Source::Plugin(plugin) => refuse_plugin(plugin.name()),
            Source::Streaming { plugin, .. } => refuse_plugin(plugin.name()),
        }
    }

    fn run_alone(&self, call: Call) -> BoxFuture<'static, Result<Response>> {
        let submitted = self.submit(call);
        Box::pin(async move { submitted?.one().await })
    }

    fn status(&self) -> Status {
        self.shared.in_flight.status()
    }

    fn is_connected(&self) -> Option<bool> {
        Some(self.shared.link.is_connected())
    }

    fn running(&self) -> Vec<String> {
        self.shared.in_flight.running()
    }
}

impl Shared {
    /// Runs one call and sends its response. Its slot, if it has its own, is freed first.
    async fn run(
        self: Arc<Self>,
        call: Call,
        sender: Sender,
        admitted: Instant,
        guard: Option<InFlightGuard>,
    ) {
        let mut sink = call.sink_now(sender, admitted);
        self.metrics.queue_wait.observe(sink.queue_wait.as_secs_f64());
        let outcome = self.answer(call, &mut sink).await;
        if outcome.as_ref().is_err_and(|error| error.kind() == Kind::Deadline) {
            self.metrics.timeouts.inc();
        }
        drop(guard);
        sink.finish(outcome);
    }

    async fn answer(&self, call: Call, sink: &mut Sink) -> Result<Option<Response>> {
        let inputs = sink.preprocess(call.input, call.callable.metadata()).await?;
        sink.yield_instance(self.config.workers);
        callable::run(sink, &*call.callable, inputs).await
    }

    /// Runs a batch in its own slot, and in extra slots that no other call needs at the moment.
    async fn run_batch(self: Arc<Self>, calls: Vec<(Call, Sender)>, admitted: Instant, guard: InFlightGuard) {
        let mut extra = JoinSet::new();
        let tenant = calls.first().map(|(call, _)| call.context.tenant.clone()).unwrap_or_default();
        for (call, sender) in calls {
            while extra.try_join_next().is_some() {}
            let slot =
                (extra.len() + 1 < BATCH_AT_ONCE).then(|| self.in_flight.take_extra(&tenant)).flatten();
            let run = Arc::clone(&self).run(call, sender, admitted, None);
            match slot {
                Some(slot) => {
                    extra.spawn(async move {
                        run.await;
                        drop(slot);
                    });
                }
                None => run.await,
            }
        }
        while extra.join_next().await.is_some() {}
        drop(guard);
    }
}
