//! The `triton` executor: models that run in a Triton, or in another server of the Open Inference Protocol,
//! asked over gRPC.
//!
//! Calls are tasks on a few threads of the executor's own, each with a place for as long as it lasts; there is
//! no queue here, since the remote has its own. Pre- and postprocessing run on these threads too, never on those
//! that serve connections. Batching is left to the remote: it sees all of the load.

mod link;
mod metadata;
mod model;
mod onnx_file;
mod status;
mod wire;

use super::in_flight::{InFlight, InFlightGuard};
use super::threads::{BATCH_AT_ONCE, Threads};
use super::worker_pool::{PoolMetrics, STREAM_BUFFER};
use super::{BoxFuture, Call, Callable, Executor, Sink, Source, Status, with_channels};
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use crate::predict::{Response, Responses, Sender, channel};
use bytes::Bytes;
use link::Link;
use model::RemoteModel;
use smallvec::smallvec;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TritonConfig {
    /// With its scheme: `http://127.0.0.1:8001`.
    pub url: String,
    /// Calls in flight at once.
    pub workers: usize,
    /// OS threads that all of them share.
    pub threads: usize,
    /// Connections that calls are spread over.
    pub channels: usize,
    pub connect_timeout: Duration,
    /// Silence after which a connection with calls in flight is asked whether it lives; none: never.
    pub keepalive: Option<Duration>,
    /// The most that one request or one answer may have.
    pub message_bytes_max: usize,
}

/// What an encrypted connection is checked by. PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Who may sign the remote's certificate; none: those that this machine trusts.
    pub ca: Option<Bytes>,
    /// This side's certificate and its key.
    pub identity: Option<(Bytes, Bytes)>,
    /// The name that the remote's certificate must have; none: that of the url.
    pub domain: Option<String>,
}

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

    /// Connects to nothing yet: the first model that is loaded does.
    pub fn start(name: &str, config: TritonConfig, tls: Option<TlsFiles>, metrics: &Metrics) -> Result<Self> {
        let threads = Threads::with_network(name, config.threads)?;
        let pool = PoolMetrics::new(metrics, name);
        let link = {
            let _entered = threads.enter();
            Arc::new(Link::open(name.into(), &config, tls.as_ref())?)
        };
        // It ends with the threads.
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

    /// Begins an admitted call.
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

impl Executor for TritonExecutor {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>> {
        let refused = |what: String, mend: &str| {
            let name = &self.shared.name;
            let message = format!(
                "executor \"{name}\" is of kind triton and runs models of a remote, but {what}; {mend}"
            );
            Err(Error::invalid(message))
        };
        let refuse_plugin = |plugin: &str| {
            let mend = "name an executor of kind thread-pool, such as \"cpu\"";
            refused(format!("the model is the plugin \"{plugin}\""), mend)
        };
        match source {
            Source::Remote { name, version, reference } => {
                let link = Arc::clone(&self.shared.link);
                let load = RemoteModel::load(link, name, version.as_deref(), reference.as_ref());
                let model = self.shared.threads.block_on(load)?;
                self.shared.link.keep(&model);
                Ok(model)
            }
            Source::Onnx { .. } => refused(
                "the model is an ONNX file".into(),
                "add remote = { name = \"…\" } to the model, or name an executor of kind onnx or thread-pool",
            ),
            Source::Pipeline(_) => Err(crate::executor::refuse_pipeline(self.name(), Self::KIND)),
            Source::Plugin(plugin) => refuse_plugin(plugin.name()),
            Source::Streaming { plugin, .. } => refuse_plugin(plugin.name()),
        }
    }

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
    /// Answers one call. Its place, if it has one of its own, is free before the caller knows.
    async fn run(
        self: Arc<Self>,
        call: Call,
        sender: Sender,
        admitted: Instant,
        guard: Option<InFlightGuard>,
    ) {
        let mut sink = Sink::started(sender, &call, admitted);
        self.metrics.queue_wait.observe(sink.queue_wait.as_secs_f64());
        let outcome = self.answer(call, &mut sink).await;
        if outcome.as_ref().is_err_and(|error| error.kind() == Kind::Deadline) {
            self.metrics.timeouts.inc();
        }
        drop(guard);
        sink.finish(outcome);
    }

    async fn answer(&self, call: Call, sink: &mut Sink) -> Result<Option<Response>> {
        let inputs = sink.preprocess(call.input, &*call.callable).await?;
        sink.yield_instance(self.config.workers);
        sink.run(&*call.callable, inputs).await
    }

    /// Answers a batch in its own place, and in others for as long as nobody else wants them.
    async fn run_batch(self: Arc<Self>, calls: Vec<(Call, Sender)>, admitted: Instant, guard: InFlightGuard) {
        let mut beside = JoinSet::new();
        for (call, sender) in calls {
            while beside.try_join_next().is_some() {}
            let other = (beside.len() + 1 < BATCH_AT_ONCE).then(|| self.in_flight.lend()).flatten();
            let run = Arc::clone(&self).run(call, sender, admitted, None);
            match other {
                Some(other) => {
                    beside.spawn(async move {
                        run.await;
                        drop(other);
                    });
                }
                None => run.await,
            }
        }
        while beside.join_next().await.is_some() {}
        drop(guard);
    }
}
