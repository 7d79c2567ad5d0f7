//! The way to one remote: connections that calls share, and a watch that knows whether it is there.
//!
//! While it is away, calls are refused at once and only the watch tries to reach it, so that nothing piles up;
//! calls in flight learn of it at the same moment. Connections break and are made again by themselves.

use super::model::RemoteModel;
use super::status::{Fault, fault};
use super::{TlsFiles, TritonConfig};
use crate::error::{Error, Result};
use crate::proto::inference::ServerLiveRequest;
use crate::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(super) type Client = GrpcInferenceServiceClient<Channel>;

/// How often a remote that is there is asked whether it still is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often one that is away is tried: at first soon, since most come back soon, and never so seldom that anybody
/// waits for it.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// A remote that is busy may be slow to say that it lives.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks without an answer after which it counts as away. A refused connection counts at once.
const SILENT_MAX: u32 = 3;

/// Bytes that may be under way before the receiver has read them: large tensors on long ways.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

pub(super) struct Link {
    executor: Arc<str>,
    url: String,
    channels: Vec<Channel>,
    next: AtomicUsize,
    /// For the watch alone: no large message stands in its way.
    watching: Channel,
    message_bytes_max: usize,
    /// Why the remote is away, if it is.
    away: watch::Sender<Option<Arc<str>>>,
    suspected: Notify,
    models: Mutex<Vec<Weak<RemoteModel>>>,
}

impl Link {
    /// Needs the runtime that shall drive the connections around it.
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
            watching: endpoint.connect_lazy(),
            message_bytes_max: config.message_bytes_max,
            away: watch::Sender::new(Some("it was not reached yet".into())),
            suspected: Notify::new(),
            models: Mutex::default(),
        })
    }

    /// A client on the next of the connections.
    pub fn client(&self) -> Client {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        self.client_on(&self.channels[next])
    }

    /// For questions about the remote itself.
    pub fn asking(&self) -> Client {
        self.client_on(&self.watching)
    }

    fn client_on(&self, channel: &Channel) -> Client {
        GrpcInferenceServiceClient::new(channel.clone())
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max)
    }

    /// `executor "remote": Triton at http://…`, for errors.
    pub fn named(&self) -> String {
        format!("executor \"{}\": Triton at {}", self.executor, self.url)
    }

    pub fn is_connected(&self) -> bool {
        self.away.borrow().is_none()
    }

    /// Refuses while the remote is away.
    pub fn check(&self) -> Result<()> {
        match &*self.away.borrow() {
            None => Ok(()),
            Some(why) => Err(self.unavailable(why)),
        }
    }

    /// Returns once the remote is away, with what to tell those who wait for it.
    pub async fn lost(&self) -> Error {
        let mut away = self.away.subscribe();
        let why = match away.wait_for(Option::is_some).await {
            Ok(why) => why.clone(),
            Err(_) => None,
        };
        self.unavailable(why.as_deref().unwrap_or("the executor has ended"))
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::unavailable(format!("{} is away: {why}", self.named()))
    }

    /// What a failed RPC means. One whose connection broke makes the watch look at once.
    pub fn failed(&self, status: &Status) -> Error {
        match fault(status) {
            Fault::Broken(why) => {
                self.suspected.notify_one();
                Error::unavailable(format!("{}: the connection broke: {why}", self.named()))
            }
            Fault::Refused(error) => error.context(self.named()),
        }
    }

    /// Keeps an eye on a model for as long as somebody has it. It was just loaded, so the remote is there.
    pub fn keep(&self, model: &Arc<RemoteModel>) {
        let mut models = self.models.lock().expect("invariant: no panic under the lock");
        models.retain(|model| model.strong_count() > 0);
        models.push(Arc::downgrade(model));
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
            None => tracing::info!(executor, url, "Triton is there"),
            Some(why) => tracing::warn!(executor, url, "Triton is away: {why}"),
        }
    }

    /// Looks after the remote for as long as the runtime lives.
    pub async fn watch(self: Arc<Self>) {
        let (mut retry, mut silent) = (RETRY_MIN, 0);
        loop {
            let was_away = !self.is_connected();
            let all_well = match self.look().await {
                Look::Live => {
                    silent = 0;
                    let all_ready = self.look_at_models(was_away).await;
                    self.set(None);
                    all_ready
                }
                Look::Silent if silent < SILENT_MAX && !was_away => {
                    silent += 1;
                    true
                }
                Look::Silent => {
                    self.set(Some("it does not answer".into()));
                    false
                }
                Look::Gone(why) => {
                    self.set(Some(why.into()));
                    false
                }
            };
            retry = if all_well { RETRY_MIN } else { (retry * 2).min(RETRY_MAX) };
            let pause = if all_well { LOOK_EVERY } else { retry };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.suspected.notified() => {}
            }
        }
    }

    async fn look(&self) -> Look {
        match self.ask_whether_it_lives().await {
            // An idle connection may have been closed on the way: that says nothing until a new one fails as well.
            Look::Gone(_) => self.ask_whether_it_lives().await,
            look => look,
        }
    }

    async fn ask_whether_it_lives(&self) -> Look {
        let mut client = self.asking();
        match tokio::time::timeout(LOOK_TIMEOUT, client.server_live(ServerLiveRequest {})).await {
            Err(_) => Look::Silent,
            Ok(Ok(answer)) if answer.get_ref().live => Look::Live,
            Ok(Ok(_)) => Look::Gone("it says that it does not live".into()),
            Ok(Err(status)) => match fault(&status) {
                Fault::Broken(why) => Look::Gone(why),
                // Whoever refuses the question is there.
                Fault::Refused(_) => Look::Live,
            },
        }
    }

    /// Whether all models that are in use here are ready there.
    async fn look_at_models(&self, was_away: bool) -> bool {
        let models: Vec<Arc<RemoteModel>> = {
            let models = self.models.lock().expect("invariant: no panic under the lock");
            models.iter().filter_map(Weak::upgrade).collect()
        };
        let mut all_ready = true;
        for model in models {
            all_ready &= model.look(was_away, LOOK_TIMEOUT).await;
        }
        all_ready
    }
}

/// What the watch has seen.
enum Look {
    Live,
    Silent,
    Gone(String),
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
