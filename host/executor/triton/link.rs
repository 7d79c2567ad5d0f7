//! The link to one remote: connections that calls share, and a task that probes the remote.
//!
//! While the remote is away, calls are refused immediately and only the probes try to reach it, so
//! that nothing piles up. Calls in flight fail at the same moment. Connections that break are made
//! again automatically.

use super::config::{TlsFiles, TritonConfig};
use super::status::{Fault, fault};
use crate::error::{Error, Result};
use crate::executor::callable::BoxFuture;
use crate::lock::LockUnpoisoned;
use crate::proto::inference::ServerLiveRequest;
use crate::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(super) type Client = GrpcInferenceServiceClient<Channel>;

/// The interval between probes of a remote that is there.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between probes of a remote that is away. It starts short, since most remotes are
/// soon back, and stays short enough that nobody has to wait for the next probe.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// The time limit of one probe. A busy remote may be slow to say that it is live.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of unanswered probes after which the remote counts as away. A refused connection
/// counts immediately.
const SILENT_MAX: u32 = 3;

/// Bytes that may be in transit before the receiver has read them. Large enough for large tensors
/// on connections with a long round trip.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A model of the remote whose readiness the link checks with each probe.
pub(super) trait WatchedModel: Send + Sync {
    /// Updates the readiness of the model and returns true if it is ready. With `has_reconnected`,
    /// also checks that it is still the same model. Waits at most for `timeout`.
    fn refresh(&self, has_reconnected: bool, timeout: Duration) -> BoxFuture<'_, bool>;
}

pub(super) struct Link {
    executor: Arc<str>,
    url: String,
    channels: Vec<Channel>,
    next: AtomicUsize,
    /// Only for probes and metadata, so that no large message delays them.
    control: Channel,
    message_bytes_max: usize,
    /// The reason why the remote is away. `None` while it is there.
    away: watch::Sender<Option<Arc<str>>>,
    /// Notified when a connection broke: the next probe runs at once.
    suspected: Notify,
    models: Mutex<Vec<Weak<dyn WatchedModel>>>,
}

impl Link {
    /// Creates the link. Must be called within the runtime that will drive the connections.
    pub fn open(executor: Arc<str>, config: &TritonConfig, tls: Option<&TlsFiles>) -> Result<Self> {
        let endpoint = endpoint(config, tls).map_err(|error| {
            let why = innermost(&error);
            Error::invalid(format!("executor \"{executor}\": cannot connect to {}: {why}", config.url))
        })?;
        Ok(Link {
            executor,
            url: config.url.clone(),
            channels: (0..config.channels).map(|_| endpoint.connect_lazy()).collect(),
            next: AtomicUsize::new(0),
            control: endpoint.connect_lazy(),
            message_bytes_max: config.message_bytes_max,
            away: watch::Sender::new(Some("it has not been reached yet".into())),
            suspected: Notify::new(),
            models: Mutex::default(),
        })
    }

    /// Returns a client on the next of the connections.
    pub fn client(&self) -> Client {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        self.client_on(&self.channels[next])
    }

    /// Returns a client for probes and metadata.
    pub fn control_client(&self) -> Client {
        self.client_on(&self.control)
    }

    fn client_on(&self, channel: &Channel) -> Client {
        GrpcInferenceServiceClient::new(channel.clone())
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max)
    }

    /// Returns `executor "remote": Triton at http://…`, for errors.
    pub fn named(&self) -> String {
        format!("executor \"{}\": Triton at {}", self.executor, self.url)
    }

    pub fn is_connected(&self) -> bool {
        self.away.borrow().is_none()
    }

    /// Fails while the remote is away.
    pub fn check(&self) -> Result<()> {
        match &*self.away.borrow() {
            None => Ok(()),
            Some(why) => Err(self.unavailable(why)),
        }
    }

    /// Waits until the remote is away, and returns the error for calls in flight.
    pub async fn lost(&self) -> Error {
        let mut away = self.away.subscribe();
        let why = match away.wait_for(Option::is_some).await {
            Ok(why) => why.clone(),
            Err(_) => None,
        };
        self.unavailable(why.as_deref().unwrap_or("the executor has ended"))
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::unavailable(format!("{} is unavailable: {why}", self.named()))
    }

    /// Returns the error of a failed RPC. If its connection broke, the next probe runs at once.
    pub fn failed(&self, status: &Status) -> Error {
        match fault(status) {
            Fault::Broken(why) => {
                self.suspected.notify_one();
                Error::unavailable(format!("{}: connection lost: {why}", self.named()))
            }
            Fault::Refused(error) => error.context(self.named()),
        }
    }

    /// Adds a model to those that probes refresh, until it is dropped. The model was just loaded,
    /// so the remote is there.
    pub fn watch_model(&self, model: Weak<dyn WatchedModel>) {
        let mut models = self.models.lock_unpoisoned();
        models.retain(|model| model.strong_count() > 0);
        models.push(model);
        drop(models);
        self.set(None);
    }

    fn set(&self, away: Option<Arc<str>>) {
        let changed = self.away.send_if_modified(|state| {
            let changed = state.is_some() != away.is_some();
            state.clone_from(&away);
            changed
        });
        let (executor, url) = (&*self.executor, &*self.url);
        match away {
            _ if !changed => {}
            None => tracing::info!(executor, url, "Triton available"),
            Some(why) => tracing::warn!(executor, url, "Triton unavailable: {why}"),
        }
    }

    /// Probes the remote for as long as the runtime lives.
    pub async fn watch(self: Arc<Self>) {
        let (mut retry, mut silent) = (RETRY_MIN, 0);
        loop {
            let was_away = !self.is_connected();
            let all_well = match self.probe().await {
                Probe::Live => {
                    silent = 0;
                    let all_ready = self.refresh_models(was_away).await;
                    self.set(None);
                    all_ready
                }
                Probe::Silent if silent < SILENT_MAX && !was_away => {
                    silent += 1;
                    true
                }
                Probe::Silent => {
                    self.set(Some("it does not answer".into()));
                    false
                }
                Probe::Down(why) => {
                    self.set(Some(why.into()));
                    false
                }
            };
            retry = if all_well { RETRY_MIN } else { (retry * 2).min(RETRY_MAX) };
            let pause = if all_well { PROBE_INTERVAL } else { retry };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.suspected.notified() => {}
            }
        }
    }

    async fn probe(&self) -> Probe {
        match self.probe_once().await {
            // An idle connection may have been closed in between. Only the failure of a new one
            // says that the remote is down.
            Probe::Down(_) => self.probe_once().await,
            probe => probe,
        }
    }

    async fn probe_once(&self) -> Probe {
        let mut client = self.control_client();
        match tokio::time::timeout(PROBE_TIMEOUT, client.server_live(ServerLiveRequest {})).await {
            Err(_) => Probe::Silent,
            Ok(Ok(answer)) if answer.get_ref().live => Probe::Live,
            Ok(Ok(_)) => Probe::Down("it reports that it is not live".into()),
            Ok(Err(status)) => match fault(&status) {
                Fault::Broken(why) => Probe::Down(why),
                // A remote that refuses the request is there.
                Fault::Refused(_) => Probe::Live,
            },
        }
    }

    /// Refreshes the models that are in use, and returns true if all of them are ready.
    async fn refresh_models(&self, was_away: bool) -> bool {
        let models: Vec<Arc<dyn WatchedModel>> = {
            let models = self.models.lock_unpoisoned();
            models.iter().filter_map(Weak::upgrade).collect()
        };
        let mut all_ready = true;
        for model in models {
            all_ready &= model.refresh(was_away, PROBE_TIMEOUT).await;
        }
        all_ready
    }
}

/// The result of a probe.
enum Probe {
    Live,
    Silent,
    Down(String),
}

fn endpoint(config: &TritonConfig, tls: Option<&TlsFiles>) -> Result<Endpoint, tonic::transport::Error> {
    let mut endpoint = Endpoint::from_shared(config.url.clone())?
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    if let Some(silence) = config.keepalive {
        endpoint = endpoint.http2_keep_alive_interval(silence).keep_alive_timeout(silence);
    }
    let Some(tls) = tls else { return Ok(endpoint) };
    let mut settings = match &tls.ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &tls.identity {
        settings = settings.identity(Identity::from_pem(certificate, key));
    }
    if let Some(domain) = &tls.domain {
        settings = settings.domain_name(domain);
    }
    endpoint.tls_config(settings)
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
