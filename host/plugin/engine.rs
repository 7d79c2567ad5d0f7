//! The wasmtime engine that runs plugins, its clock, and how components come into it.
//!
//! One engine for the life of the process, and a second one, made when it is first needed, for plugins whose calls
//! wait side by side. The pool of instance slots of each is shared by all its plugins, old and new; none free is
//! Overloaded, never a wait.

use super::artifact::CodeWriter;
use super::cache::{Cache, entry_name};
use super::compiler::{Compiled, Compiler, Source};
use super::component_info::Interface;
use super::drain_timeouts::DrainTimeouts;
use super::plugin_state::PluginState;
use super::store_data::StoreData;
use crate::config::EngineConfig;
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Elements of one wasm table; CPython's has about 10,000.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;

/// How often guests are asked whether their time is over. Deadlines are kept to within this.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Bytes of a slot that are cleared by hand when an instance ends. Giving pages back to the kernel instead
/// interrupts every other core; a Rust guest with a stack of 64 KiB stays below this.
const KEEP_RESIDENT_BYTES: usize = 512 << 10;

/// A plugin's native stack. Guests have half of it, host calls the rest.
const STACK_BYTES: usize = 2 << 20;

/// Instances that serve many requests each are few.
const CONCURRENT_INSTANCES_MAX: u32 = 128;

/// Native stacks for each of them. A call that waits gives its stack back, unless it waits in synchronous code.
const CONCURRENT_STACKS: u32 = 8;

pub struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) linker: Linker<StoreData>,
    pub(super) config: EngineConfig,
    cache: Option<Cache>,
    compiler: Compiler,
    ticker: Arc<Ticker>,
    concurrent: OnceLock<StreamingEngine>,
    /// Where instances wait for their next call.
    idle: Mutex<Vec<Weak<dyn Reclaim>>>,
    /// What plugins remember, by their names, as long as a generation of theirs is there.
    memories: Mutex<HashMap<Arc<str>, Weak<PluginState>>>,
    /// Calls that did not end when their plugin was replaced.
    pub(super) drain_timeouts: DrainTimeouts,
}

/// What plugins with calls that wait side by side run on: an engine with the machinery for tasks, which costs all
/// others too much.
pub(super) struct StreamingEngine {
    pub wasmtime: wasmtime::Engine,
    pub linker: Linker<StoreData>,
    ticker: Arc<Ticker>,
}

impl StreamingEngine {
    fn new(config: &EngineConfig) -> Result<Self> {
        let wasmtime = wasmtime::Engine::new(&concurrent_config(config)).map_err(failed)?;
        let linker = concurrent_linker(&wasmtime).map_err(failed)?;
        let ticker = Ticker::start(&wasmtime)?;
        Ok(StreamingEngine { wasmtime, linker, ticker })
    }

    pub fn tick(&self) -> TickGuard<'_> {
        self.ticker.tick()
    }
}

fn failed(error: wasmtime::Error) -> Error {
    Error::failed(format!("cannot start the plugin engine: {error:#}")).with_detail(format!("{error:?}"))
}

/// Something that keeps instances in case they are needed.
pub(super) trait Reclaim: Send + Sync {
    /// Drops one of them; false if there is none.
    fn give_up_one(&self) -> bool;
}

impl Engine {
    /// Reserves the pool. Fails where the machine does not give enough address space.
    pub fn new(config: EngineConfig) -> Result<Arc<Self>> {
        let wasmtime = wasmtime::Engine::new(&wasmtime_config(&config)).map_err(failed)?;
        let linker = linker(&wasmtime).map_err(failed)?;
        let compiler = Compiler::new(config.compiler.clone(), config.compile_threads);
        let cache = config.cache_dir.as_deref().map(|dir| Cache::new(dir, config.cache_bytes_max));
        let ticker = Ticker::start(&wasmtime)?;
        Ok(Arc::new(Engine {
            wasmtime,
            linker,
            config,
            cache,
            compiler,
            ticker,
            concurrent: OnceLock::new(),
            idle: Mutex::default(),
            memories: Mutex::default(),
            drain_timeouts: DrainTimeouts::default(),
        }))
    }

    /// The engine for plugins whose calls wait side by side.
    pub(super) fn concurrent(&self) -> Result<&StreamingEngine> {
        if let Some(concurrent) = self.concurrent.get() {
            return Ok(concurrent);
        }
        // Made twice at worst, by two loads at once; one of them stays.
        let made = StreamingEngine::new(&self.config)?;
        Ok(self.concurrent.get_or_init(|| made))
    }

    /// Takes a component from the cache, or has it compiled. Blocks for as long as that takes.
    pub(super) fn compile(&self, source: &Source, metrics: &Metrics) -> Result<(Component, Interface)> {
        let wasmtime = match source.concurrent {
            true => &self.concurrent()?.wasmtime,
            false => &self.wasmtime,
        };
        let entry = self.cache.as_ref().map(|cache| (cache, entry_name(wasmtime, source.wasm)));
        let load = |compiled: &Compiled| {
            // SAFETY: a compiler process of this host has made the code: it came through a pipe of its own, or from
            // a folder that only this user can write to, with a digest that fits it and the name of its entry, which
            // stands for the component, the engine's settings and its version.
            unsafe { compiled.code.load(wasmtime) }.map_err(|error| {
                Error::invalid(format!("not a component that this host can run: {}", error.root_cause()))
                    .with_detail(format!("{error:?}"))
            })
        };
        let count = |outcome: &str| metrics.plugin_compiles.with_label_values(&[outcome]).inc();
        if let Some((cache, name)) = &entry
            && let Some(compiled) = cache.load(name)
            && let Ok(component) = load(&compiled)
        {
            count("cached");
            return Ok((component, compiled.interface));
        }
        let started = Instant::now();
        let writer = CodeWriter::new(self.cache.as_ref().map(Cache::folder));
        let compiled = self.compiler.compile(source, writer);
        metrics.plugin_compile_seconds.observe(started.elapsed().as_secs_f64());
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
        Ok((component, compiled.interface))
    }

    /// What the plugin of this name remembers: the same for all generations of it.
    pub(super) fn memory(
        &self,
        plugin: &Arc<str>,
        bytes_max: usize,
        gauge: prometheus::IntGauge,
    ) -> Arc<PluginState> {
        let mut all = self.memories.lock().expect("invariant: no panic under the lock");
        all.retain(|_, memory| memory.strong_count() > 0);
        let memory = all.get(plugin).and_then(Weak::upgrade).unwrap_or_else(|| {
            let memory = Arc::new(PluginState::new(gauge));
            all.insert(Arc::clone(plugin), Arc::downgrade(&memory));
            memory
        });
        memory.set_bound(bytes_max);
        memory
    }

    /// Calls that did not end when their plugin was replaced.
    pub fn drain_timeouts(&self) -> &DrainTimeouts {
        &self.drain_timeouts
    }

    pub(super) fn register_idle(&self, idle: Weak<dyn Reclaim>) {
        let mut all = self.idle.lock().expect("invariant: no panic under the lock");
        all.retain(|idle| idle.strong_count() > 0);
        all.push(idle);
    }

    /// Frees a slot that an idle instance holds, of whatever plugin; the oldest plugins first.
    pub(super) fn reclaim_idle(&self) -> bool {
        let all = self.idle.lock().expect("invariant: no panic under the lock").clone();
        all.iter().filter_map(Weak::upgrade).any(|idle| idle.give_up_one())
    }

    /// The most memory that one instance can have here.
    pub fn memory_bytes_max(&self) -> usize {
        self.config.memory_bytes_max
    }

    /// Keeps the clock ticking for as long as the guard lives.
    pub(super) fn tick(&self) -> TickGuard<'_> {
        self.ticker.tick()
    }
}

/// What decides which native code a component becomes: the same in the compiler process and in the host.
pub(super) fn code_settings(concurrent: bool) -> wasmtime::Config {
    let mut wasmtime = wasmtime::Config::new();
    wasmtime
        .epoch_interruption(true)
        .parallel_compilation(true)
        .async_stack_size(STACK_BYTES)
        .max_wasm_stack(STACK_BYTES / 2);
    match concurrent {
        true => wasmtime.wasm_component_model_async(true),
        // Plugins of this engine are synchronous: a call costs a quarter without the machinery for tasks.
        false => wasmtime.concurrency_support(false),
    };
    wasmtime
}

fn wasmtime_config(config: &EngineConfig) -> wasmtime::Config {
    let mut wasmtime = code_settings(false);
    wasmtime.allocation_strategy(pool(config, config.instances, config.instances));
    wasmtime
}

fn concurrent_config(config: &EngineConfig) -> wasmtime::Config {
    let instances = config.instances.clamp(1, CONCURRENT_INSTANCES_MAX);
    let mut wasmtime = code_settings(true);
    wasmtime.allocation_strategy(pool(config, instances, instances.saturating_mul(CONCURRENT_STACKS)));
    wasmtime
}

fn pool(config: &EngineConfig, instances: u32, stacks: u32) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_stacks(stacks)
        // A component is made of several core instances: the program, its adapters, shims.
        .total_core_instances(instances.saturating_mul(8))
        .total_memories(instances.saturating_mul(2))
        .total_tables(instances.saturating_mul(4))
        .max_core_instances_per_component(200)
        .max_memories_per_component(8)
        .max_tables_per_component(32)
        .max_memory_size(config.memory_bytes_max)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_unused_warm_slots(instances.min(64))
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 << 10)
        .async_stack_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    InstanceAllocationStrategy::Pooling(pool)
}

fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<StoreData>> {
    use super::bindings::{callables, models};
    let mut linker = common_linker(engine)?;
    callables::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    models::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    super::bindings::http::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    Ok(linker)
}

fn concurrent_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<StoreData>> {
    use super::bindings::{clock, concurrent_models, sinks};
    let mut linker = common_linker(engine)?;
    sinks::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    clock::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    concurrent_models::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    super::bindings::concurrent_http::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    Ok(linker)
}

fn common_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<StoreData>> {
    use super::bindings::{assets, logging, metrics, state, store, types};
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    types::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    assets::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    store::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    logging::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    state::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    metrics::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    super::bindings::http_types::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// Advances the engine's epoch on an OS thread of its own, so that a busy runtime cannot stop the clock.
/// Sleeps when no guest has run for a while.
struct Ticker {
    started: Instant,
    /// Calls into guests that are going on.
    active: AtomicUsize,
    /// Milliseconds since `started` at the begin of the last one.
    last_call_ms: AtomicU64,
    parked: AtomicBool,
    thread: std::thread::Thread,
}

/// A call into a guest; the clock ticks.
pub(super) struct TickGuard<'a>(&'a Ticker);

impl Drop for TickGuard<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ticking goes on for this long after the last call: waking a thread for each costs more than to let it tick.
const TICKER_IDLE_MS: u64 = 200;

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> Result<Arc<Self>> {
        let engine = engine.weak();
        let (sender, receiver) = std::sync::mpsc::channel::<Weak<Ticker>>();
        let handle = std::thread::Builder::new()
            .name("ticker".into())
            .spawn(move || {
                let Ok(ticker) = receiver.recv() else { return };
                while let (Some(ticker), Some(engine)) = (ticker.upgrade(), engine.upgrade()) {
                    engine.increment_epoch();
                    drop(engine);
                    if ticker.idle() {
                        ticker.parked.store(true, Ordering::SeqCst);
                        // Asked again after the flag is up: a call in between sees the flag or is seen here.
                        if ticker.idle() {
                            drop(ticker);
                            std::thread::park_timeout(Duration::from_secs(1));
                            continue;
                        }
                        ticker.parked.store(false, Ordering::SeqCst);
                    }
                    drop(ticker);
                    std::thread::sleep(TICK);
                }
            })
            .map_err(|error| Error::failed(format!("cannot start the ticker thread: {error}")))?;
        let ticker = Arc::new(Ticker {
            started: Instant::now(),
            active: AtomicUsize::new(0),
            last_call_ms: AtomicU64::new(0),
            parked: AtomicBool::new(false),
            thread: handle.thread().clone(),
        });
        sender.send(Arc::downgrade(&ticker)).expect("invariant: the thread waits for its ticker");
        Ok(ticker)
    }

    fn tick(&self) -> TickGuard<'_> {
        self.active.fetch_add(1, Ordering::SeqCst);
        self.wake();
        TickGuard(self)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn idle(&self) -> bool {
        self.active.load(Ordering::SeqCst) == 0
            && self.now_ms().saturating_sub(self.last_call_ms.load(Ordering::SeqCst)) > TICKER_IDLE_MS
    }

    fn wake(&self) {
        // Written by all workers at each call, so only where there is something to write.
        let now_ms = self.now_ms();
        if self.last_call_ms.load(Ordering::SeqCst) != now_ms {
            self.last_call_ms.store(now_ms, Ordering::SeqCst);
        }
        if self.parked.load(Ordering::SeqCst) && self.parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticker_ticks_parks_and_wakes() {
        let config = EngineConfig { instances: 1, cache_dir: None, ..EngineConfig::default() };
        let engine = Engine::new(config).unwrap();
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

    #[test]
    fn code_from_an_engine_without_a_pool_fits_the_engines_that_run_it() {
        let config = EngineConfig { instances: 1, cache_dir: None, ..EngineConfig::default() };
        let settings = |engine: &wasmtime::Engine| {
            use std::hash::{DefaultHasher, Hash, Hasher};
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        for (concurrent, config) in [(false, wasmtime_config(&config)), (true, concurrent_config(&config))] {
            let compiling = wasmtime::Engine::new(&code_settings(concurrent)).unwrap();
            let running = wasmtime::Engine::new(&config).unwrap();
            assert_eq!(settings(&compiling), settings(&running), "concurrent: {concurrent}");
        }
    }
}
