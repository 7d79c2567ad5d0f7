//! The running host: reads the manifest, starts everything in order, serves, and stops in order.

mod announcement;
mod listening;

use crate::access::Access;
use crate::audit::{Act, AuditLog};
use crate::config::{ListenAddress, descriptors};
use crate::error::{Error, Result};
use crate::jobs::{DurableStore, FolderDisk, JobStore, Jobs, MemoryStore};
use crate::metrics::Metrics;
use crate::output;
use crate::plugin::Engine;
use crate::policy::files::Files;
use crate::policy::plan::{StorePlan, Unplanned};
use crate::policy::reload::FirstPlan;
use crate::policy::settings::Settings;
use crate::policy::{LastGood, Loader, Reloader};
use crate::router::Router;
use crate::server::admin::{Admin, LOG_WAITS_MAX};
use crate::server::callers::Callers;
use crate::server::plain::Public;
use crate::server::ui::Sessions;
use crate::server::{Auditor, CrossSite, InferenceEncoder, http};
use crate::shutdown::{self, Event, Signals};
use crate::trace_export::Exporter;
use announcement::{Schemes, announce};
use listening::{Bound, Listening, Services};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// The arguments of the command line.
pub struct Options {
    pub manifest: PathBuf,
    /// Overrides the manifest's address.
    pub http: Option<ListenAddress>,
    pub grpc: Option<ListenAddress>,
    pub admin: Option<ListenAddress>,
    /// Start with the last good copy if the files are invalid.
    pub fallback: bool,
    /// Where the last good copy is kept.
    pub state_dir: Option<PathBuf>,
    /// Accept connections only when everything is loaded.
    pub bind_when_ready: bool,
}

/// Serves until a signal ends the process, with exit code 0 if every request and every job was
/// finished, and 1 otherwise. Returns only if the host cannot start.
pub fn serve(options: Options) -> Result<Infallible> {
    let started = Instant::now();
    output::serve().map_err(|error| {
        Error::failed(format!("cannot start the threads that write stdout and stderr: {error}"))
    })?;
    std::panic::set_hook(Box::new(log_panic));
    // Before anything that may take long: a signal may arrive at any moment.
    let signals = signals()?;
    descriptors::raise_limit();
    let path = absolute(&options.manifest)?;
    let last_good = match options.fallback {
        false => None,
        true => LastGood::new(options.state_dir.as_deref(), &path)
            .inspect_err(|error| tracing::warn!("{error}"))
            .ok(),
    };
    let files = Files::default();
    let first = FirstPlan::read(&path, &files, last_good.as_ref()).map_err(unplanned)?;
    let mut settings = first.plan.settings.clone();
    settings.http = options.http.unwrap_or(settings.http);
    settings.grpc = options.grpc.or(settings.grpc);
    settings.admin = options.admin.unwrap_or(settings.admin);
    let store_plan = first.plan.job_store.clone();
    let runtime = runtime(&settings)?;

    // Bound before anything is loaded, so that an address in use is reported immediately.
    let bound = Bound::bind(&settings)?;
    let addresses = bound.addresses();
    let metrics = Arc::new(Metrics::new());
    let services = runtime.block_on(async { Services::new(&settings, &metrics) })?;
    let listen = |bound| runtime.block_on(async { services.listen(bound, &settings) });
    let (waiting, early) = if options.bind_when_ready { (Some(bound), None) } else { (None, Some(bound)) };
    let early = early.map(listen).transpose()?;
    if early.is_some() {
        tracing::info!(addresses = addresses.to_string().trim_start(), "listeners opened");
    }
    let exporter = match &settings.traces {
        Some(traces) => Some(runtime.block_on(async { Exporter::start(traces, &metrics.traces) })?),
        None => None,
    };
    let access = services.access.clone();
    let tracer = exporter.as_ref().map(|exporter| Arc::clone(exporter.tracer()));
    let loader = loader(&settings, &metrics, runtime.handle(), access.clone())?;
    let loader = Loader { tracer: tracer.clone(), ..loader };
    let engine = Arc::clone(&loader.engine);
    let reloader = Arc::new(Reloader::start(path.clone(), files, first, loader, last_good)?);
    let (live, access_log) = (reloader.live(), settings.access_log);
    let router = Arc::new(Router::new(live, Arc::clone(&metrics), access_log, settings.limits, tracer));
    let jobs = Jobs::start(crate::jobs::JobsConfig {
        store: runtime.block_on(job_store(&store_plan))?,
        router: Arc::clone(&router),
        metrics: Arc::clone(&metrics),
        runtime: runtime.handle().clone(),
        status_of: |error| http::status_of(error).as_u16(),
        encoder: Arc::new(InferenceEncoder),
    });
    let audit = services.audit.clone();
    services.grpc.begin(Arc::clone(&router), Arc::clone(&reloader));
    let public = Arc::new(Public {
        router: Arc::clone(&router),
        jobs: Arc::clone(&jobs),
        metrics,
        readiness: Arc::clone(&services.readiness),
        reloader: Arc::clone(&reloader),
        cross_site: CrossSite::public(&settings.access, &addresses.http),
        transfers: Arc::clone(&services.transfers),
        callers: Callers::new(access.clone(), settings.tenant_header.as_ref(), &settings.proxies),
        auditor: Auditor::new(audit, &settings.proxies),
    });
    services.public.begin(Arc::clone(&public));
    services.operator.begin(Arc::new(Admin {
        public,
        engine,
        cross_site: CrossSite::admin(&settings.access, &addresses.admin),
        callers: Callers::new(access, None, &settings.proxies),
        sessions: Sessions::new(settings.tls.admin.is_some())?,
        started: SystemTime::now(),
        log_waits: Semaphore::new(LOG_WAITS_MAX),
    }));
    services.readiness.serve();
    let listening = waiting.map(listen).transpose()?.or(early).expect("invariant: one of them");
    // From the announcement on, a signal begins a shutdown.
    signals.serving(shutdown_limit(&settings));
    let schemes = Schemes::of(&settings.tls);
    announce(&reloader.live().snapshot(), &path, &addresses, &schemes, started.elapsed());
    // Kept until the end: their destructors wait for threads, which may be stuck.
    let kept = (Arc::clone(&reloader), Arc::clone(&router));
    let drained = runtime
        .block_on(Serving { settings, services, router, jobs, reloader, exporter }.run(signals, listening));
    drop_within(DROP_TIMEOUT, (kept, runtime));
    shutdown::exit(i32::from(!drained))
}

/// Returns how long the steps of a shutdown may take: the delay, and one `drain_timeout` each for
/// requests and jobs, for work that no request waits for, and for plugins.
pub fn shutdown_limit(settings: &Settings) -> Duration {
    settings.drain_delay + settings.drain_timeout * 3
}

/// Opens the store of jobs. If that fails, the host serves everything else: submissions are refused
/// until the store is available.
async fn job_store(plan: &StorePlan) -> Result<Arc<dyn JobStore>> {
    let StorePlan::Redb { dir } = plan else { return Ok(Arc::new(MemoryStore::default())) };
    let store =
        DurableStore::start(Arc::new(FolderDisk::new(dir.clone())), tokio::runtime::Handle::current())?;
    // The store logs why it cannot be opened.
    let _ = store.opened().await;
    Ok(Arc::new(store))
}

/// How long the exit waits for destructors, such as those of plugins and sessions.
const DROP_TIMEOUT: Duration = Duration::from_millis(500);

/// Drops a value on a separate thread, and abandons it there if that takes longer than `limit`.
fn drop_within(limit: Duration, value: impl Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    let dropping = std::thread::Builder::new().name("drop".into()).spawn(move || {
        drop(value);
        let _ = done.send(());
    });
    if dropping.is_ok() {
        let _ = ended.recv_timeout(limit);
    }
}

/// Installs the signal handlers.
pub fn signals() -> Result<Signals> {
    Signals::install().map_err(|error| Error::failed(format!("cannot handle signals: {error}")))
}

/// Logs a panic like any other event, without waiting.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let current = std::thread::current();
    let (thread, place) = (current.name(), panic.location().map(ToString::to_string));
    let message = panic.payload_as_str().unwrap_or("a payload that is not text");
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then_some(backtrace);
    let backtrace = backtrace.map(|backtrace| backtrace.to_string());
    tracing::error!(thread, place, backtrace, "thread panicked: {message}");
}

/// Converts the faults of a manifest, with their lines, to an error.
pub fn unplanned(unplanned: Unplanned) -> Error {
    match unplanned {
        Unplanned::Faulty(diagnostics) => Error::invalid(diagnostics.to_string()).laid_out(),
        Unplanned::Pending(files) => {
            Error::unavailable(format!("pinned files do not match their sha256 yet: {}", files.join("; ")))
        }
    }
}

pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Error::invalid(format!("cannot make {} absolute: {error}", path.display())))
}

/// Starts the runtime for connections. Nothing else runs there.
pub fn runtime(settings: &Settings) -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.io_threads)
        .thread_name("io")
        .on_thread_start(crate::config::never_preempt)
        .enable_all()
        .build()
        .map_err(|error| Error::failed(format!("cannot start the I/O threads: {error}")))
}

/// Creates the plugin engine and what else loading needs. `access` says what plugins may call.
pub fn loader(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    runtime: &tokio::runtime::Handle,
    access: Option<Arc<Access>>,
) -> Result<Loader> {
    Ok(Loader {
        engine: Engine::new(settings.engine.clone()),
        metrics: Arc::clone(metrics),
        runtime: runtime.clone(),
        library: settings.onnxruntime.clone(),
        pipeline_limits: Default::default(),
        access,
        tracer: None,
    })
}

struct Serving {
    settings: Settings,
    services: Services,
    router: Arc<Router>,
    jobs: Arc<Jobs>,
    reloader: Arc<Reloader>,
    exporter: Option<Exporter>,
}

impl Serving {
    /// Serves until a signal, and shuts down. Returns whether every request and every job was
    /// finished.
    async fn run(self, mut signals: Signals, mut listening: Listening) -> bool {
        let signal = loop {
            match signals.next().await {
                Event::Stop(signal) => break signal,
                Event::Reload => {
                    drop(tokio::spawn(reload(Arc::clone(&self.reloader), self.services.audit.clone())));
                }
            }
        };
        self.services.readiness.drain();
        let delay_ms = self.settings.drain_delay.as_millis() as u64;
        tracing::info!(signal, delay_ms, "draining");
        let (drained, is_hurried) = tokio::select! {
            drained = self.drain(&mut listening) => (drained, false),
            signal = signals.stop() => {
                tracing::warn!(signal, "second signal received: stopping immediately");
                (false, true)
            }
        };
        let lost = self.jobs.close().await;
        self.services.stop_admin();
        if drained {
            if lost == 0 {
                tracing::info!("drained");
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), listening.admin).await;
        } else {
            let policy = self.router.policy();
            let running: Vec<String> =
                policy.content.executors.values().flat_map(|executor| executor.running()).collect();
            tracing::warn!(running = running.join(", "), "stopped with requests still running");
        }
        if let Some(exporter) = self.exporter.filter(|_| !is_hurried) {
            exporter.stop().await;
        }
        drained && lost == 0
    }

    /// Ends all work in order. `shutdown_limit` is the sum of the limits. Returns whether all
    /// requests were answered.
    async fn drain(&self, listening: &mut Listening) -> bool {
        let (delay, grace) = (self.settings.drain_delay, self.settings.drain_timeout);
        tokio::time::sleep(delay).await;
        self.services.stop_public();
        let requests = tokio::time::timeout(grace, listening.public_ended());
        let (requests, ()) = tokio::join!(requests, self.jobs.drain(grace));
        if requests.is_err() {
            return false;
        }
        // Work that no request waits for, such as detached steps of pipelines, may take as long as
        // requests.
        let contents = self.router.contents();
        let executors: Vec<_> = contents.iter().flat_map(|content| content.executors.values()).collect();
        let detached = async {
            for executor in &executors {
                executor.drained().await;
            }
        };
        let limit_ms = grace.as_millis() as u64;
        if tokio::time::timeout(grace, detached).await.is_err() {
            tracing::warn!(limit_ms, "detached steps have not ended in time");
        }
        // Plugins are finished after the last call into them.
        if tokio::time::timeout(grace, self.reloader.finish()).await.is_err() {
            tracing::warn!(limit_ms, "plugins have not ended in time");
        }
        true
    }
}

/// Reloads on SIGHUP. The reload is recorded like any other.
async fn reload(reloader: Arc<Reloader>, audit: Option<Arc<AuditLog>>) {
    let reload = async {
        if let Some(audit) = audit {
            let by = "SIGHUP".to_owned();
            let act = Act { act: "reload", target: String::new(), by, address: None, request_id: None };
            let recorded = tokio::task::spawn_blocking(move || audit.record(&act)).await;
            recorded.map_err(|error| Error::failed(format!("the audit log was not written: {error}")))??;
        }
        reloader.reload(false, "SIGHUP".to_owned()).await
    };
    if let Err(error) = reload.await {
        tracing::warn!("cannot reload on SIGHUP: {error}");
    }
}
