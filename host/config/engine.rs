//! Settings of the plugin engine.

use super::threads::cores;
use std::path::PathBuf;

/// The plugin engine. Fixed for the life of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// The most plugin instances that may be alive at once, over all plugins and generations.
    pub instances: u32,
    /// The largest `memory_mb` that a plugin may have.
    pub memory_bytes_max: usize,
    /// Where compiled plugins are cached; `None` disables the cache.
    pub cache_dir: Option<PathBuf>,
    pub cache_bytes_max: u64,
    /// Threads of a process that compiles a plugin.
    pub compile_threads: usize,
    /// The program that compiles plugins; `None` for this one. Other programs that use this library
    /// have no command for that, and must name a `hostler` binary.
    pub compiler: Option<PathBuf>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            instances: 512,
            memory_bytes_max: 1 << 30,
            cache_dir: default_cache_dir().map(|dir| dir.join("components")),
            cache_bytes_max: 1 << 30,
            // Half of the cores, since a reload must leave cores for requests. More than eight
            // threads would not be faster, and each takes memory.
            compile_threads: (cores() / 2).clamp(1, 8),
            compiler: None,
        }
    }
}

/// Returns `$HOSTLER_CACHE`, or `hostler` in the user's cache folder.
pub fn default_cache_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HOSTLER_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("hostler")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/hostler")))
}
