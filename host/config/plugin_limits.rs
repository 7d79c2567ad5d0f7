//! The limits of one plugin, and how its instances are used.

use std::time::Duration;

/// How a plugin's instances are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instances {
    /// A new instance for each call.
    Fresh,
    /// A pool. An instance serves many calls, one at a time.
    Reused,
    /// One instance for many concurrent calls. Only for plugins with the role `streaming-model`.
    Shared,
}

/// What one plugin may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PluginLimits {
    /// `None` for the default of the plugin's role, `Fresh` or `Shared`.
    pub instances: Option<Instances>,
    /// Linear memory of one instance.
    pub memory_bytes: usize,
    /// The time of one call into the plugin.
    pub timeout: Duration,
    /// Bytes that one call may return to the host: tensors, answers and notes, together.
    pub result_bytes: usize,
    /// Tensors and other handles alive in one instance.
    pub handles: usize,
    /// Bytes that one instance may hold in the host: tensors that it created or kept, and results
    /// of its calls.
    pub held_bytes: usize,
    /// The same for all instances of the plugin together.
    pub held_total_bytes: usize,
    /// Bytes of log that one call may write. The rest is dropped and counted.
    pub log_bytes: usize,
    /// Bytes that the plugin may keep across requests.
    pub state_bytes: usize,
    /// Calls that a reused instance serves before it is replaced.
    pub calls_max: u64,
    pub shared: SharedLimits,
    pub compile: CompileLimits,
}

/// What compiling one plugin may use. The kernel enforces these limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompileLimits {
    /// Processor time, over all threads.
    pub cpu: Duration,
    /// Address space of the compiler process.
    pub memory_bytes: usize,
}

impl CompileLimits {
    /// Returns the wall-clock limit. At low priority beside a busy host, a process gets a small
    /// share of the processors.
    pub fn wall(&self) -> Duration {
        const WALL_PER_CPU: u32 = 10;
        self.cpu.saturating_mul(WALL_PER_CPU)
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        // A Python plugin of 18 MB takes 7 to 12 s and, with eight threads, up to 896 MB.
        CompileLimits { cpu: Duration::from_secs(60), memory_bytes: 1 << 30 }
    }
}

/// The limits of the instances of a streaming model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SharedLimits {
    /// Instances that run concurrently.
    pub replicas: usize,
    /// Calls in flight in each instance.
    pub in_flight: usize,
    /// How long a guest may compute without yielding, while all other calls of its instance wait.
    pub turn: Duration,
    /// How long a guest may take to return after its call was cancelled.
    pub grace: Duration,
    /// How long calls may take to end when their plugin is replaced. `None` for as long as a call
    /// may take.
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
    /// Returns true if instances of a synchronous role serve several calls, one after the other.
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
            // Four results of the largest size that a call may return.
            held_bytes: 256 << 20,
            held_total_bytes: 1 << 30,
            log_bytes: 16 << 10,
            state_bytes: 1 << 20,
            // Replaces a guest that leaks slowly before the leak matters.
            calls_max: 100_000,
            shared: SharedLimits::default(),
            compile: CompileLimits::default(),
        }
    }
}
