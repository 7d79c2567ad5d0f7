//! The running host: reads the manifest, starts everything in order, serves, and stops in order.

use crate::config::descriptors::{self, DescriptorPlan};
use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, Limit, Progress};
use crate::jobs::{Jobs, MemoryStore};
use crate::metrics::Metrics;
use crate::output::{self, Form};
use crate::plugin::Engine;
use crate::policy::files::Files;
use crate::policy::plan::Unplanned;
use crate::policy::reload::FirstPlan;
use crate::policy::settings::Settings;
use crate::policy::{LastGood, Loader, Policy, Reloader};
use crate::router::Router;
use crate::server::admin::Admin;
use crate::server::grpc::{Grpc, GrpcCalls};
use crate::server::plain::Public;
use crate::server::{Capacity, CrossSite, Listener, ListenerOptions, Pool, Transfers, http};
use crate::shutdown::{self, Event, Readiness, Signals};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The arguments of the command line.
pub struct Options {
    pub manifest: PathBuf,
    /// Overrides the manifest's address.
    pub http: Option<SocketAddr>,
    pub grpc: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    /// Start with the last good copy if the files are invalid.
    pub fallback: bool,
    /// Where the last good copy is kept.
    pub state_dir: Option<PathBuf>,
}

/// Serves until a signal ends the process, with exit code 0 if every request and every job was
/// finished, and 1 otherwise. Returns only if the host cannot start.
pub fn serve(options: &Options) -> Result<Infallible> {
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
    let runtime = runtime(&settings)?;

    // Bound before anything is loaded, so that an address in use is reported immediately.
    let http = runtime.block_on(Listener::bind("http", settings.http))?;
    let bind = |address| runtime.block_on(Listener::bind("grpc", address));
    let grpc = settings.grpc.map(bind).transpose()?;
    let admin = runtime.block_on(Listener::bind("admin", settings.admin))?;
    let metrics = Arc::new(Metrics::new());
    let loader = loader(&settings, &metrics, runtime.handle())?;
    let engine = Arc::clone(&loader.engine);
    let reloader = Arc::new(Reloader::start(path.clone(), files, first, loader, last_good)?);
    let router =
        Arc::new(Router::new(reloader.live(), Arc::clone(&metrics), settings.access_log, settings.limits));
    let jobs = Jobs::start(crate::jobs::JobsConfig {
        store: Arc::new(MemoryStore::default()),
        router: Arc::clone(&router),
        metrics: Arc::clone(&metrics),
        runtime: runtime.handle().clone(),
        status_of: |error| http::status_of(error).as_u16(),
    });
    let readiness = Arc::new(Readiness::default());

    let addresses = Addresses {
        http: http.address(),
        grpc: grpc.as_ref().map(Listener::address),
        admin: admin.address(),
    };
    // From the announcement on, a signal begins a shutdown.
    signals.serving(settings.drain_delay + settings.drain_timeout * 2);
    announce(&reloader.live().snapshot(), &path, &addresses, started.elapsed());
    let transfers = Transfers::new(settings.limits, Arc::clone(&metrics));
    let public = Arc::new(Public {
        router: Arc::clone(&router),
        jobs: Arc::clone(&jobs),
        metrics: Arc::clone(&metrics),
        readiness: Arc::clone(&readiness),
        reloader: Arc::clone(&reloader),
        cross_site: CrossSite::public(&settings.access, addresses.http),
        transfers,
    });
    let operator = Arc::new(Admin {
        router: Arc::clone(&router),
        metrics: Arc::clone(&metrics),
        reloader: Arc::clone(&reloader),
        engine,
        cross_site: CrossSite::admin(&settings.access, addresses.admin),
    });
    // Kept until the end: their destructors wait for threads, which may be stuck.
    let kept = (Arc::clone(&reloader), Arc::clone(&router));
    let serving = Serving { settings, metrics, router, jobs, readiness, reloader };
    let drained =
        runtime.block_on(serving.run(signals, Listeners { http, grpc, admin }, public, operator))?;
    drop_within(DROP_TIMEOUT, (kept, runtime));
    shutdown::exit(i32::from(!drained))
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

/// Creates the plugin engine and what else loading needs.
pub fn loader(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    runtime: &tokio::runtime::Handle,
) -> Result<Loader> {
    Ok(Loader {
        engine: Engine::new(settings.engine.clone()),
        metrics: Arc::clone(metrics),
        runtime: runtime.clone(),
        library: settings.onnxruntime.clone(),
        pipeline_limits: Default::default(),
    })
}

struct Listeners {
    http: Listener,
    grpc: Option<Listener>,
    admin: Listener,
}

struct Serving {
    settings: Settings,
    metrics: Arc<Metrics>,
    router: Arc<Router>,
    jobs: Arc<Jobs>,
    readiness: Arc<Readiness>,
    reloader: Arc<Reloader>,
}

impl Serving {
    async fn run(
        self,
        mut signals: Signals,
        listeners: Listeners,
        public: Arc<Public>,
        operator: Arc<Admin>,
    ) -> Result<bool> {
        let (stop_http, stopped_http) = watch::channel(false);
        let (stop_admin, stopped_admin) = watch::channel(false);
        let limits = self.settings.limits;
        let Listeners { http, grpc, admin } = listeners;
        let plan = self.divide_descriptors(1 + usize::from(grpc.is_some()));
        let options = |capacity, transfers| {
            let metrics = Arc::clone(&self.metrics);
            ListenerOptions { limits, capacity, transfers, metrics }
        };
        let transfers = Arc::clone(&public.transfers);
        let capacity = Capacity {
            connections: limits.max_connections,
            pool: Pool::new(plan.public),
            probes: plan.probes,
            for_operators: false,
        };
        let public_options = options(capacity, Some(transfers));
        let capacity =
            Capacity { connections: plan.admin, pool: Pool::new(plan.admin), probes: 0, for_operators: true };
        let admin_options = options(capacity, None);
        let grpc = grpc
            .map(|listener| self.grpc(listener, &public, public_options.clone(), stopped_http.clone()))
            .transpose()?;
        let http = tokio::spawn(http.serve(public, public_options, stopped_http));
        let operator = tokio::spawn(admin.serve(operator, admin_options, stopped_admin));
        let public = async {
            let _ = http.await;
            if let Some(grpc) = grpc {
                let _ = grpc.await;
            }
        };

        let signal = loop {
            match signals.next().await {
                Event::Stop(signal) => break signal,
                Event::Reload => drop(tokio::spawn(reload(Arc::clone(&self.reloader)))),
            }
        };
        self.readiness.drain();
        let (delay, grace) = (self.settings.drain_delay, self.settings.drain_timeout);
        tracing::info!(signal, delay_ms = delay.as_millis() as u64, "draining");
        let drain = async {
            tokio::time::sleep(delay).await;
            let _ = stop_http.send(true);
            let jobs = self.jobs.drain(grace);
            let (requests, ()) = tokio::join!(tokio::time::timeout(grace, public), jobs);
            // Work that no request waits for, such as detached steps of pipelines, may take as long
            // as requests.
            let executors: Vec<_> = self
                .router
                .contents()
                .iter()
                .flat_map(|content| content.executors.values().cloned())
                .collect();
            let detached = async {
                for executor in &executors {
                    executor.drained().await;
                }
            };
            if requests.is_ok() && tokio::time::timeout(grace, detached).await.is_err() {
                tracing::warn!(limit_ms = grace.as_millis() as u64, "detached steps have not ended in time");
            }
            // Plugins are finished after the last call into them.
            if requests.is_ok() && tokio::time::timeout(grace, self.reloader.finish()).await.is_err() {
                tracing::warn!(limit_ms = grace.as_millis() as u64, "plugins have not ended in time");
            }
            requests.is_ok()
        };
        let drained = tokio::select! {
            drained = drain => drained,
            signal = signals.stop() => {
                tracing::warn!(signal, "second signal received: stopping immediately");
                false
            }
        };
        let lost = self.jobs.close().await;
        let _ = stop_admin.send(true);
        if drained {
            if lost == 0 {
                tracing::info!("drained");
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), operator).await;
        } else {
            let policy = self.router.policy();
            let running: Vec<String> =
                policy.content.executors.values().flat_map(|executor| executor.running()).collect();
            tracing::warn!(running = running.join(", "), "stopped with requests still running");
        }
        Ok(drained && lost == 0)
    }

    /// Serves gRPC beside HTTP. The same signal stops both.
    fn grpc(
        &self,
        listener: Listener,
        public: &Public,
        options: ListenerOptions,
        stop: watch::Receiver<bool>,
    ) -> Result<JoinHandle<()>> {
        let calls = GrpcCalls::new(Grpc {
            router: Arc::clone(&self.router),
            readiness: Arc::clone(&self.readiness),
            reloader: Arc::clone(&public.reloader),
            transfers: Arc::clone(&public.transfers),
            stop: stop.clone(),
        })?;
        Ok(tokio::spawn(listener.serve(Arc::new(calls), options, stop)))
    }

    /// Determines how many connections fit below the limit of open files.
    fn divide_descriptors(&self, public_listeners: usize) -> DescriptorPlan {
        let wanted = self.settings.limits.max_connections;
        let plan = DescriptorPlan::new(public_listeners, wanted);
        self.metrics.connections.max.set(i64::try_from(plan.public).unwrap_or(i64::MAX));
        if plan.fits {
            tracing::debug!(open_files_max = plan.limit, connections = plan.public, "descriptors divided");
        } else {
            tracing::warn!(
                open_files_max = plan.limit,
                connections = plan.public,
                max_connections = wanted,
                listeners = public_listeners,
                "max_connections does not fit into the limit of open files; raise the hard limit (ulimit -Hn, \
                 LimitNOFILE) or lower max_connections"
            );
        }
        plan
    }
}

/// Reloads on SIGHUP. The reload is recorded like any other.
async fn reload(reloader: Arc<Reloader>) {
    if let Err(error) = reloader.reload(false, "SIGHUP".to_owned()).await {
        tracing::warn!("cannot reload on SIGHUP: {error}");
    }
}

struct Addresses {
    http: SocketAddr,
    grpc: Option<SocketAddr>,
    admin: SocketAddr,
}

/// Prints the announcement: the first line is for programs, the rest for people.
fn announce(policy: &Policy, manifest: &Path, addresses: &Addresses, took: Duration) {
    output::stdout().write(announcement(policy, manifest, addresses, took).as_bytes(), Form::Lines);
}

fn announcement(policy: &Policy, manifest: &Path, addresses: &Addresses, took: Duration) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        writeln!(text, "{}", output::one_line(&line.to_string())).expect("invariant: writing to memory");
    };
    let Addresses { http, grpc, admin } = addresses;
    let grpc = grpc.map(|address| format!(" grpc={address}")).unwrap_or_default();
    line(format_args!("listening http={http}{grpc} admin={admin}"));
    let (version, ms) = (env!("CARGO_PKG_VERSION"), took.as_millis());
    line(format_args!("hostler {version} serves {} ({ms} ms)", manifest.display()));
    for route in policy.content.models().flat_map(|(_, model)| model.versions.values()) {
        let transformer = match &route.transformer {
            Some(transformer) => format!(", transformer {}", transformer.name()),
            None => String::new(),
        };
        line(format_args!("  {} on {}{transformer}", route.name, route.executor.name()));
    }
    let folder = manifest.parent().unwrap_or(Path::new("."));
    let here = std::env::current_dir().unwrap_or_default();
    let shown = folder.strip_prefix(&here).unwrap_or(folder).join("request.json");
    let limit = Limit::bytes(FileKind::Request, 1 << 20);
    match input_file::read(&folder.join("request.json"), limit, &Progress::default()) {
        Ok(request) if asks_for_stream(policy, &request) => {
            line(format_args!("try: curl -sN http://{http}/predict/stream -d @{}", shown.display()));
        }
        Ok(_) => line(format_args!("try: curl -s http://{http}/predict -d @{}", shown.display())),
        Err(_) => line(format_args!("try: curl -s http://{http}/models")),
    }
    line(format_args!("policy: curl -s http://{admin}/admin/policy"));
    text
}

/// Returns true if the model of this request is a streaming model.
fn asks_for_stream(policy: &Policy, request: &[u8]) -> bool {
    let Ok(request) = serde_json::from_slice::<serde_json::Value>(request) else { return false };
    let request = policy.content.models().find(|(name, _)| request["model"] == ***name);
    let mut versions = request.into_iter().flat_map(|(_, model)| model.versions.values());
    versions.any(|route| route.callable.metadata().streaming)
}
