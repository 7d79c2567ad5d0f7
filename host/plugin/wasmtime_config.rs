//! The configuration of the two wasmtime engines: code settings, and the pools of instance slots.

use crate::config::EngineConfig;
use wasmtime::{Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Maximum elements of one wasm table; CPython's has about 10,000.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Bytes of a slot that are cleared manually when an instance ends. Returning pages to the kernel
/// instead interrupts every other core; a Rust guest with a stack of 64 KiB stays below this.
const KEEP_RESIDENT_BYTES: usize = 512 << 10;

/// The native stack of a plugin. Guests have half of it, host calls the rest.
const STACK_BYTES: usize = 2 << 20;

/// Few instances are needed, because each serves many requests.
const CONCURRENT_INSTANCES_MAX: u32 = 128;

/// Native stacks for each of these instances. A call that waits releases its stack, unless it waits
/// in synchronous code.
const CONCURRENT_STACKS: u32 = 8;

/// The settings that decide which native code a component becomes. They are the same in the
/// compiler process and in the host.
pub(super) fn code_settings(concurrent: bool) -> wasmtime::Config {
    let mut wasmtime = wasmtime::Config::new();
    wasmtime
        .epoch_interruption(true)
        .parallel_compilation(true)
        .async_stack_size(STACK_BYTES)
        .max_wasm_stack(STACK_BYTES / 2);
    match concurrent {
        true => wasmtime.wasm_component_model_async(true),
        // Plugins of this engine are synchronous: a call costs a quarter as much without the
        // machinery for tasks.
        false => wasmtime.concurrency_support(false),
    };
    wasmtime
}

pub(super) fn engine_config(config: &EngineConfig) -> wasmtime::Config {
    let mut wasmtime = code_settings(false);
    wasmtime.allocation_strategy(pool(config, config.instances, config.instances));
    wasmtime
}

pub(super) fn streaming_config(config: &EngineConfig) -> wasmtime::Config {
    let instances = config.instances.clamp(1, CONCURRENT_INSTANCES_MAX);
    let mut wasmtime = code_settings(true);
    wasmtime.allocation_strategy(pool(config, instances, instances.saturating_mul(CONCURRENT_STACKS)));
    wasmtime
}

fn pool(config: &EngineConfig, instances: u32, stacks: u32) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_stacks(stacks)
        // A component consists of several core instances: the program, its adapters, shims.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_from_an_engine_without_a_pool_fits_the_engines_that_run_it() {
        let config = EngineConfig { instances: 1, cache_dir: None, ..EngineConfig::default() };
        let settings = |engine: &wasmtime::Engine| {
            use std::hash::{DefaultHasher, Hash, Hasher};
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        for (concurrent, config) in [(false, engine_config(&config)), (true, streaming_config(&config))] {
            let compiling = wasmtime::Engine::new(&code_settings(concurrent)).unwrap();
            let running = wasmtime::Engine::new(&config).unwrap();
            assert_eq!(settings(&compiling), settings(&running), "concurrent: {concurrent}");
        }
    }
}
