//! The wasmtime engines that run plugins, their clocks, and how components are loaded into them.
//!
//! There are two wasmtime engines, one for streaming models and one for all other roles. Each is
//! made when the first plugin needs it, since it reserves address space, and lives as long as the
//! process. It has a pool of instance slots that all its plugins share, old and new. If no slot is
//! free, a call fails with `Overloaded` and never waits.

use super::artifact::CodeWriter;
use super::cache::{Cache, entry_name, pack_name};
use super::compiler::functions::{self, COMPONENT_BYTES_MIN};
use super::compiler::{Compiled, Compiler, Source};
use super::component_info::Interface;
use super::drain_timeouts::DrainTimeouts;
use super::epoch::{TickGuard, Ticker};
use super::linker::{linker, streaming_linker};
use super::log_tail::LogTail;
use super::plugin_state::PluginState;
use super::spec::PluginSpec;
use super::store_data::StoreData;
use super::wasmtime_config::{PoolSize, engine_config, memory_reservation};
use crate::cancel::Cancel;
use crate::config::{EngineConfig, PluginLimits};
use crate::error::{Error, Kind, Result};
use crate::lock::LockUnpoisoned;
use crate::metrics::{Metrics, SeriesOf};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError, Weak};
use std::time::{Duration, Instant};
use wasmtime::component::{Component, Linker};

/// How often a compilation that waits for another one looks whether it was abandoned.
const PACK_WAIT: Duration = Duration::from_millis(10);

pub struct Engine {
    pub(super) config: EngineConfig,
    cache: Option<Cache>,
    compiler: Compiler,
    synchronous: OnceLock<Arc<PooledEngine>>,
    concurrent: OnceLock<Arc<PooledEngine>>,
    /// Held while a wasmtime engine is made: two of one kind would reserve twice.
    making: Mutex<()>,
    /// Held while a component is compiled with a pack of functions.
    packing: Mutex<()>,
    /// The pools of idle instances, from which slots can be reclaimed.
    idle: Mutex<Vec<Weak<dyn Reclaim>>>,
    /// The state of plugins by name, for as long as a generation of the plugin exists.
    memories: Mutex<HashMap<Arc<str>, Weak<PluginState>>>,
    /// The last lines that plugins have written, by name, for as long.
    log_tails: Mutex<HashMap<Arc<str>, Weak<LogTail>>>,
    /// Calls that did not end in time when their plugin was replaced.
    pub(super) drain_timeouts: DrainTimeouts,
}

/// A wasmtime engine with its pool of instance slots. The one for streaming models has the
/// machinery for tasks, which would cost all other plugins too much.
pub(super) struct PooledEngine {
    pub wasmtime: wasmtime::Engine,
    pub linker: Linker<StoreData>,
    ticker: Arc<Ticker>,
}

impl PooledEngine {
    fn new(config: &EngineConfig, concurrent: bool) -> Result<Self> {
        let wasmtime = wasmtime::Engine::new(&engine_config(config, concurrent))
            .map_err(|error| unreserved(&error, PoolSize::new(config, concurrent)))?;
        let linker = if concurrent { streaming_linker(&wasmtime) } else { linker(&wasmtime) };
        let linker = linker.map_err(|error| {
            Error::failed(format!("cannot start the plugin engine: {error:#}"))
                .with_detail(format!("{error:?}"))
        })?;
        let ticker = Ticker::start(&wasmtime)?;
        Ok(PooledEngine { wasmtime, linker, ticker })
    }

    /// Keeps the clock ticking for as long as the guard lives.
    pub fn tick(&self) -> TickGuard<'_> {
        self.ticker.tick()
    }
}

/// Explains why an engine cannot be made: its pool reserves much address space.
fn unreserved(error: &wasmtime::Error, size: PoolSize) -> Error {
    Error::failed(format!(
        "cannot start the plugin engine: cannot reserve about {} MiB of address space for the slots of {} plugin \
         instances: {}; lower plugin_instances or plugin_memory_mb_max under [server], or raise the limit of \
         address space (ulimit -v)",
        size.reserved_bytes() >> 20,
        size.instances,
        error.root_cause()
    ))
    .with_detail(format!("{error:?}"))
}

/// A holder of idle instances that can give them up when slots are needed.
pub(super) trait Reclaim: Send + Sync {
    /// Drops one idle instance. Returns `false` if there is none.
    fn give_up_one(&self) -> bool;
}

impl Engine {
    /// Reserves nothing yet: a host without plugins needs no wasmtime engine.
    pub fn new(config: EngineConfig) -> Arc<Self> {
        let compiler =
            Compiler::new(config.compiler.clone(), config.compile_threads, memory_reservation(&config));
        let cache = config.cache_dir.as_deref().map(|dir| Cache::new(dir, config.cache_bytes_max));
        Arc::new(Engine {
            config,
            cache,
            compiler,
            synchronous: OnceLock::new(),
            concurrent: OnceLock::new(),
            making: Mutex::default(),
            packing: Mutex::default(),
            idle: Mutex::default(),
            memories: Mutex::default(),
            log_tails: Mutex::default(),
            drain_timeouts: DrainTimeouts::default(),
        })
    }

    /// Returns the engine for streaming models, or the one for all other roles. Reserves its pool
    /// of instance slots on first use. Fails if the process cannot have that much address space.
    pub(super) fn pooled(&self, concurrent: bool) -> Result<&Arc<PooledEngine>> {
        let engine = if concurrent { &self.concurrent } else { &self.synchronous };
        if let Some(made) = engine.get() {
            return Ok(made);
        }
        let _making = self.making.lock_unpoisoned();
        if let Some(made) = engine.get() {
            return Ok(made);
        }
        let made = Arc::new(PooledEngine::new(&self.config, concurrent)?);
        Ok(engine.get_or_init(|| made))
    }

    /// Loads a component from the cache, or compiles it. Blocks meanwhile.
    pub(super) fn compile(&self, source: &Source, metrics: &Metrics) -> Result<(Component, Interface)> {
        let wasmtime = &self.pooled(source.concurrent)?.wasmtime;
        let entry = self.cache.as_ref().map(|cache| (cache, entry_name(wasmtime, source.wasm)));
        let load = |compiled: &Compiled| {
            // SAFETY: a compiler process of this host has made the code. It came through a private
            // pipe, or from a folder that only this user can write to, with a digest that matches
            // it and the name of its entry; the name represents the component, the engine's
            // settings and its version.
            unsafe { compiled.code.load(wasmtime) }.map_err(|error| {
                Error::invalid(format!("not a component that this host can run: {}", error.root_cause()))
                    .with_detail(format!("{error:?}"))
            })
        };
        let count = |outcome: &str| metrics.plugins.compiles.with_label_values(&[outcome]).inc();
        if let Some((cache, name)) = &entry
            && let Some(compiled) = cache.load(name)
            && let Ok(component) = load(&compiled)
        {
            count("cached");
            return Ok((component, compiled.interface));
        }
        let started = Instant::now();
        let writer = CodeWriter::new(self.cache.as_ref().map(Cache::folder));
        let is_large = source.wasm.len() >= COMPONENT_BYTES_MIN;
        let cache = self.cache.as_ref().filter(|cache| is_large && cache.has_room_for_packs());
        // Two compilations with the same pack would lose the functions of one of them.
        let _turn = cache.map(|_| self.pack_turn(source.cancel)).transpose()?;
        let pack = cache.map(|cache| {
            let name = pack_name(wasmtime);
            let pack = cache.load_pack(&name);
            (cache, name, pack)
        });
        let with_pack = Source { pack: pack.as_ref().map(|(_, _, pack)| &**pack), ..*source };
        let compiled = self.compiler.compile(&with_pack, writer);
        metrics.plugins.compile_seconds.observe(started.elapsed().as_secs_f64());
        let compiled = compiled.inspect_err(|error| {
            count(match error.kind() {
                Kind::InvalidInput => "rejected",
                Kind::Cancelled => "abandoned",
                _ => "failed",
            });
        })?;
        let component = load(&compiled).inspect_err(|_| count("rejected"))?;
        count("compiled");
        if let Some((cache, name)) = &entry {
            cache.store(name, &compiled);
        }
        if let Some((cache, name, pack)) = pack {
            match functions::merged(&pack, &compiled.functions) {
                Ok(Some(pack)) => cache.store_pack(&name, &pack),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "compiled functions cannot be kept"),
            }
        }
        Ok((component, compiled.interface))
    }

    /// Waits until no other compilation uses a pack of functions.
    fn pack_turn(&self, cancel: &Cancel) -> Result<MutexGuard<'_, ()>> {
        loop {
            match self.packing.try_lock() {
                Ok(turn) => return Ok(turn),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {
                    cancel.check()?;
                    std::thread::sleep(PACK_WAIT);
                }
            }
        }
    }

    /// Creates the spec of a plugin. It keeps the state of earlier plugins of the same name.
    pub fn plugin_spec(&self, name: Arc<str>, limits: PluginLimits, metrics: &Metrics) -> PluginSpec {
        let series = metrics.hold(SeriesOf::Plugin(Arc::clone(&name)));
        let gauge = metrics.plugins.state_bytes.with_label_values(&[&*name]);
        let state = self.plugin_state(&name, limits.state_bytes, gauge);
        PluginSpec::new(limits, state, self.new_log_tail(&name), metrics, series)
    }

    /// Returns the last lines of the plugin of this name. All its generations share them.
    fn new_log_tail(&self, plugin: &Arc<str>) -> Arc<LogTail> {
        let mut all = self.log_tails.lock_unpoisoned();
        all.retain(|_, tail| tail.strong_count() > 0);
        all.get(plugin).and_then(Weak::upgrade).unwrap_or_else(|| {
            let tail = Arc::new(LogTail::new(Arc::clone(plugin)));
            all.insert(Arc::clone(plugin), Arc::downgrade(&tail));
            tail
        })
    }

    /// Returns the last lines of a plugin, if it is loaded.
    pub fn log_tail(&self, plugin: &str) -> Option<Arc<LogTail>> {
        self.log_tails.lock_unpoisoned().get(plugin).and_then(Weak::upgrade)
    }

    /// Returns the state of the plugin of this name. All its generations share it.
    fn plugin_state(
        &self,
        plugin: &Arc<str>,
        bytes_max: usize,
        gauge: prometheus::IntGauge,
    ) -> Arc<PluginState> {
        let mut all = self.memories.lock_unpoisoned();
        all.retain(|_, memory| memory.strong_count() > 0);
        let memory = all.get(plugin).and_then(Weak::upgrade).unwrap_or_else(|| {
            let memory = Arc::new(PluginState::new(gauge));
            all.insert(Arc::clone(plugin), Arc::downgrade(&memory));
            memory
        });
        memory.set_bound(bytes_max);
        memory
    }

    /// Returns the calls that did not end in time when their plugin was replaced.
    pub fn drain_timeouts(&self) -> &DrainTimeouts {
        &self.drain_timeouts
    }

    pub(super) fn register_idle(&self, idle: Weak<dyn Reclaim>) {
        let mut all = self.idle.lock_unpoisoned();
        all.retain(|idle| idle.strong_count() > 0);
        all.push(idle);
    }

    /// Frees the slot of an idle instance of any plugin; the oldest plugins first. Returns `false`
    /// if no instance is idle.
    pub(super) fn reclaim_idle(&self) -> bool {
        let all = self.idle.lock_unpoisoned().clone();
        all.iter().filter_map(Weak::upgrade).any(|idle| idle.give_up_one())
    }

    /// Returns the maximum memory that one instance can have.
    pub fn memory_bytes_max(&self) -> usize {
        self.config.memory_bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::epoch::TICKER_IDLE_MS;
    use std::sync::atomic::Ordering;

    #[test]
    fn the_ticker_ticks_parks_and_wakes() {
        let config = EngineConfig { instances: 1, cache_dir: None, ..EngineConfig::default() };
        let engine = Engine::new(config);
        let engine = engine.pooled(false).unwrap();
        let mut store = wasmtime::Store::new(&engine.wasmtime, ());
        let wasm = wat::parse_str("(module (func (export \"f\") (loop (br 0))))").unwrap();
        let module = wasmtime::Module::new(&engine.wasmtime, wasm).unwrap();
        let mut run = || {
            store.set_epoch_deadline(2 * TICKER_IDLE_MS);
            let _ticking = engine.tick();
            let future = async {
                let instance = wasmtime::Instance::new_async(&mut store, &module, &[]).await?;
                let f = instance.get_typed_func::<(), ()>(&mut store, "f")?;
                f.call_async(&mut store, ()).await
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(future).unwrap_err()
        };
        assert_eq!(*run().downcast_ref::<wasmtime::Trap>().unwrap(), wasmtime::Trap::Interrupt);
        while !engine.ticker.parked.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        assert_eq!(*run().downcast_ref::<wasmtime::Trap>().unwrap(), wasmtime::Trap::Interrupt);
    }
}
