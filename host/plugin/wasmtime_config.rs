//! The configuration of the two wasmtime engines: code settings, and the pools of instance slots.

use crate::config::EngineConfig;
use wasmtime::{Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Maximum elements of one wasm table; CPython's has about 10,000.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Bytes of a slot that are cleared manually when an instance ends. Returning pages to the kernel
/// instead interrupts every other core; a Rust guest with a stack of 256 KiB stays below this.
const KEEP_RESIDENT_BYTES: usize = 512 << 10;

/// The native stack of a plugin. Guests have half of it, host calls the rest.
const STACK_BYTES: usize = 2 << 20;

/// Few instances are needed, because each serves many requests.
const CONCURRENT_INSTANCES_MAX: u32 = 128;

/// Native stacks for each of these instances. A call that waits releases its stack, unless it waits
/// in synchronous code.
const CONCURRENT_STACKS: u32 = 8;

/// Linear memories and tables for each instance, on average. A component may have several of both,
/// one for each program that it is composed of.
const MEMORIES_PER_INSTANCE: u32 = 2;
const TABLES_PER_INSTANCE: u32 = 8;

/// A component consists of several core instances: the program, its adapters, shims. They are only
/// counted; no memory is reserved for them.
const CORE_INSTANCES_MAX: u32 = 200;

/// Address space for one linear memory. Code for memories of this size needs no bounds checks: no
/// 32-bit address reaches beyond it and the guard region.
const FULL_RESERVATION: u64 = 4 << 30;

/// Inaccessible address space after each memory.
const GUARD_BYTES: u64 = 32 << 20;

/// Address space that is reserved for each linear memory. If the operator has lowered the largest
/// memory, no more than that is reserved, and the code checks each access.
pub(super) fn memory_reservation(config: &EngineConfig) -> u64 {
    match config.memory_bytes_max {
        max if max < EngineConfig::default().memory_bytes_max => max as u64,
        _ => FULL_RESERVATION,
    }
}

/// The settings that decide which native code a component becomes. They are the same in the
/// compiler process and in the host.
pub(super) fn code_settings(concurrent: bool, memory_reservation: u64) -> wasmtime::Config {
    let mut wasmtime = wasmtime::Config::new();
    wasmtime
        .epoch_interruption(true)
        .parallel_compilation(true)
        .memory_reservation(memory_reservation)
        .memory_guard_size(GUARD_BYTES)
        .async_stack_size(STACK_BYTES)
        .max_wasm_stack(STACK_BYTES / 2)
        // Reading the debug information of a hostile component can end the process: nothing bounds
        // the depth of its entries.
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable);
    match concurrent {
        true => wasmtime.wasm_component_model_async(true),
        // Plugins of this engine are synchronous: a call costs a quarter as much without the
        // machinery for tasks.
        false => wasmtime.concurrency_support(false),
    };
    wasmtime
}

/// The size of the pool of an engine.
#[derive(Clone, Copy)]
pub(super) struct PoolSize {
    pub instances: u32,
    pub stacks: u32,
    memory_reservation: u64,
}

impl PoolSize {
    pub fn new(config: &EngineConfig, concurrent: bool) -> Self {
        let instances = match concurrent {
            true => config.instances.clamp(1, CONCURRENT_INSTANCES_MAX),
            false => config.instances,
        };
        let stacks = if concurrent { instances.saturating_mul(CONCURRENT_STACKS) } else { instances };
        PoolSize { instances, stacks, memory_reservation: memory_reservation(config) }
    }

    pub fn memories(self) -> u32 {
        self.instances.saturating_mul(MEMORIES_PER_INSTANCE)
    }

    fn tables(self) -> u32 {
        self.instances.saturating_mul(TABLES_PER_INSTANCE)
    }

    /// Returns about how much address space the pool reserves.
    pub fn reserved_bytes(self) -> u64 {
        let memories = u64::from(self.memories()) * (self.memory_reservation + GUARD_BYTES);
        let tables = u64::from(self.tables()) * (TABLE_ELEMENTS_MAX * size_of::<usize>()) as u64;
        memories + tables + u64::from(self.stacks) * STACK_BYTES as u64
    }
}

/// Returns the settings of an engine with a pool of instance slots.
pub(super) fn engine_config(config: &EngineConfig, concurrent: bool) -> wasmtime::Config {
    let mut wasmtime = code_settings(concurrent, memory_reservation(config));
    wasmtime.allocation_strategy(pool(config, PoolSize::new(config, concurrent)));
    wasmtime
}

fn pool(config: &EngineConfig, size: PoolSize) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(size.instances)
        .total_stacks(size.stacks)
        .total_core_instances(size.instances.saturating_mul(CORE_INSTANCES_MAX))
        .total_memories(size.memories())
        .total_tables(size.tables())
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(8)
        .max_tables_per_component(32)
        .max_memory_size(config.memory_bytes_max)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_unused_warm_slots(size.instances.min(64))
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 << 10)
        .async_stack_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    InstanceAllocationStrategy::Pooling(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_from_an_engine_without_a_pool_fits_the_engines_that_run_it() {
        let all = EngineConfig { instances: 1, cache_dir: None, ..EngineConfig::default() };
        let small = EngineConfig { memory_bytes_max: 65 << 20, ..all.clone() };
        let settings = |engine: &wasmtime::Engine| {
            use std::hash::{DefaultHasher, Hash, Hasher};
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        for (concurrent, config) in [(false, &all), (true, &all), (false, &small), (true, &small)] {
            let code = code_settings(concurrent, memory_reservation(config));
            let compiling = wasmtime::Engine::new(&code).unwrap();
            let running = wasmtime::Engine::new(&engine_config(config, concurrent)).unwrap();
            assert_eq!(settings(&compiling), settings(&running), "concurrent: {concurrent}");
        }
    }
}
