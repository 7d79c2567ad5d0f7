//! Settings that more than one layer reads, with every default written once, beside its field.
//!
//! The manifest's own shape is `policy::manifest`; these are the values that come out of it.

pub mod descriptors;
pub mod outbound;

use std::path::PathBuf;
use std::time::Duration;

/// Cores that this process may use (cgroup limits counted in).
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How a plugin's instances live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instances {
    /// A new one for each call.
    Fresh,
    /// A pool; an instance serves many calls, one at a time.
    Reused,
    /// One for many calls at once, side by side. For plugins in the role `streaming-model`, and only for them.
    Shared,
}

/// What one plugin may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PluginLimits {
    /// None: what suits the plugin's role, `Fresh` or `Shared`.
    pub instances: Option<Instances>,
    /// Linear memory of one instance.
    pub memory_bytes: usize,
    /// Time of one call into the plugin.
    pub timeout: Duration,
    /// Bytes that one call may hand to the host: tensors, answers, notes, together.
    pub result_bytes: usize,
    /// Tensors and other handles alive in one instance.
    pub handles: usize,
    /// Bytes that one instance may hold in the host: tensors that it has made or kept, results of its calls.
    pub held_bytes: usize,
    /// The same of all instances of the plugin together.
    pub held_total_bytes: usize,
    /// Bytes of log that one call may write; the rest is dropped and counted.
    pub log_bytes: usize,
    /// Bytes that the plugin may keep across requests.
    pub state_bytes: usize,
    /// Calls that a reused instance serves before it is replaced.
    pub calls_max: u64,
    pub shared: SharedLimits,
    pub compile: CompileLimits,
}

/// What compiling one plugin may take. The kernel holds these limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompileLimits {
    /// Processor time, over all threads.
    pub cpu: Duration,
    /// Address space of the compiler process.
    pub memory_bytes: usize,
}

impl CompileLimits {
    /// Time by the clock. At low priority beside a busy host, a process gets a small share of the processors.
    pub fn wall(&self) -> Duration {
        const WALL_PER_CPU: u32 = 10;
        self.cpu.saturating_mul(WALL_PER_CPU)
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        // A Python plugin of 18 MB takes 7 to 12 s and 600 MB.
        CompileLimits { cpu: Duration::from_secs(60), memory_bytes: 1 << 30 }
    }
}

/// What instances may use whose calls wait side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SharedLimits {
    /// Instances beside each other.
    pub replicas: usize,
    /// Calls in flight in each of them.
    pub in_flight: usize,
    /// Time that a guest may compute in one go, and keep all others waiting.
    pub turn: Duration,
    /// Time that a guest has to return when nobody waits for its answer any more.
    pub grace: Duration,
    /// Time that calls have to end when their plugin is replaced; none: as long as a call may take.
    pub drain: Option<Duration>,
}

impl Default for SharedLimits {
    fn default() -> Self {
        SharedLimits {
            replicas: 1,
            in_flight: 1024,
            turn: Duration::from_millis(100),
            grace: Duration::from_millis(100),
            drain: None,
        }
    }
}

impl PluginLimits {
    /// Whether instances of a synchronous role serve one call after the other.
    pub fn reuses(&self) -> bool {
        self.instances == Some(Instances::Reused)
    }
}

impl Default for PluginLimits {
    fn default() -> Self {
        PluginLimits {
            instances: None,
            memory_bytes: 64 << 20,
            timeout: Duration::from_secs(10),
            result_bytes: 64 << 20,
            handles: 4096,
            // Four results of the largest size that a call may hand over.
            held_bytes: 256 << 20,
            held_total_bytes: 1 << 30,
            log_bytes: 16 << 10,
            state_bytes: 1 << 20,
            // A guest that leaks slowly starts anew before it matters.
            calls_max: 100_000,
            shared: SharedLimits::default(),
            compile: CompileLimits::default(),
        }
    }
}

/// The plugin engine. Fixed for the life of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Plugin instances that may be alive at once, over all plugins and generations.
    pub instances: u32,
    /// The most memory that a plugin's `memory_mb` may ask for.
    pub memory_bytes_max: usize,
    /// Compiled plugins are kept here; none: not at all.
    pub cache_dir: Option<PathBuf>,
    pub cache_bytes_max: u64,
    /// Threads of a process that compiles a plugin.
    pub compile_threads: usize,
    /// The program that compiles plugins; none: this one. Other programs that use this library have no command for
    /// that, and name a `hostler`.
    pub compiler: Option<PathBuf>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            instances: 512,
            memory_bytes_max: 1 << 30,
            cache_dir: default_cache_dir().map(|dir| dir.join("components")),
            cache_bytes_max: 1 << 30,
            // Half of the cores: a reload must leave room for the requests. More than eight would not be faster,
            // and each takes memory.
            compile_threads: (cores() / 2).clamp(1, 8),
            compiler: None,
        }
    }
}

/// `$HOSTLER_CACHE`, or `hostler` in the user's cache folder.
pub fn default_cache_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HOSTLER_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("hostler")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/hostler")))
}

/// Sets the priority of the calling thread: `nice` 0 to 19. I/O comes before computing, computing before
/// loading. Needs no privilege to go down; threads that it starts begin where it is and cannot go up.
pub fn lower_priority(nice: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}

/// The priority of what reads, compiles and loads.
pub const LOADER_NICE: i32 = 10;

/// Runs `work` on a thread that yields to everything else, and waits for it. The calling thread keeps its
/// own priority, and with it the threads that it starts. Fails where no thread can be started.
pub fn at_low_priority<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let loader = std::thread::Builder::new().name("load".into()).spawn_scoped(scope, || {
            lower_priority(LOADER_NICE);
            work()
        });
        match loader?.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Makes the calling thread one that does not interrupt another when it wakes (`SCHED_BATCH`). For threads
/// that wake for each packet: where all cores compute, they take their turn within milliseconds, handle all
/// that has come in meanwhile at once, and spare two context switches per request.
pub fn never_preempt() {
    #[cfg(target_os = "linux")]
    {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: changes the policy of the calling thread only; the parameters live through the call.
        if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters) } != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "cannot change the scheduling of a thread");
        }
    }
}
