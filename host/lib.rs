//! Hostler: a native inference host.
//!
//! The host owns thread pools and ONNX Runtime sessions. Sandboxed WebAssembly components do pre-
//! and postprocessing. A policy names them all and is swapped, live, when a file changes.
//!
//! # The map
//!
//! Each layer names only the layers below it; `tests/architecture` checks that.
//!
//! | layer | contents |
//! |---|---|
//! | `main`, [`cli`], [`drill`] | the command line; the commands that do not serve; tests of a copy of a manifest under load |
//! | [`app`] | starts everything in order, serves, stops in order |
//! | [`server`] | listeners and protocols: bytes to [`predict`] types and back, error kind to status |
//! | [`jobs`] | requests in the background: states, budgets, retries, stored results |
//! | [`router`] | the path of a request, the same for all protocols: resolve, deadline, submit, account |
//! | [`policy`] | manifest, plan, policy. `reload` is its only writer; what clients load and unload is an `overlay` over the manifest; only `load` knows concrete executors. [`access_log`] beside it |
//! | [`executor`] | named places that run models: queues, workers, ONNX Runtime sessions, whose runs have their own stacks; remotes; custom executors; pipelines |
//! | [`graph`] | graphs of models: the definition of a pipeline, its checks, conditions and pictures |
//! | [`plugin`] | WebAssembly components: engine, instances, limits, host calls, plugin state, HTTP calls |
//! | [`offload`] | threads for decoding and encoding large bodies |
//! | [`input_file`], [`outbound`] | reads files that users name: regular ones only, within limits; HTTP to servers that the manifest allows |
//! | [`access`], [`audit`] | who may do what: API keys, tokens, certificates, and the rules; the log of what was changed by whom |
//! | [`metrics`], [`shutdown`], [`config`], [`predict`] | counters; signals and readiness; settings that several layers read; tensors, payloads, contexts, responses |
//! | [`cancel`], [`private_folder`] | the flag that abandons a build; folders that only the host writes to |
//! | [`task_timer`], [`error`], [`output`], [`proto`], [`fixed_routes`], [`timestamp`], `wait_list`, [`allocator`] | deadlines at the cost of one timer per task; the only error type; stdout and stderr; the messages of the Open Inference Protocol over gRPC; routes that a model must not be named like; times as text; work that waits for capacity; the memory allocator of the program |
//!
//! # A request
//!
//! `server` decodes the request. `router` takes the policy snapshot once and resolves the route,
//! and the route's executor admits the call or refuses it immediately. One worker thread runs
//! preprocess, model and postprocess; its answer wakes the connection's task, and `server` encodes.
//! What the host holds for all clients shares one budget (`server/transfers`), and slow clients
//! lose theirs first. Large bodies are decoded and encoded on the threads of `offload`, and plugins
//! are compiled in a child process with limits. I/O threads do nothing else; workers run at a lower
//! priority.
//!
//! A `custom` executor is a plugin that decides how another executor is called. Its guests wait, so
//! they are tasks on separate threads, and each of their calls is admitted like any other. The same
//! holds for the calls of a `triton` executor, which wait for a remote. A `pipeline` executor
//! drives a graph of models: one task decides which steps run and calls their models on their
//! executors. It runs a step inline while it is polled on a worker of the right executor. Steps of
//! a request that has begun are admitted before new requests.
//!
//! A transformer or model that calls other models runs on a worker, leaves it while it waits, and
//! is requeued when it is woken. A streaming model runs all its calls in one instance, on its own
//! thread, and holds no worker; a worker whose guest calls it may run it briefly. A reload builds
//! the new policy beside the live one, at the lowest priority, and swaps it in one step.
//!
//! # Invariants
//!
//! - A request uses one policy from its first byte to its last.
//! - Admission never blocks: a place in a bounded queue, or `Overloaded`. A request that has begun
//!   is not refused later: its further calls wait for capacity until its deadline, before new
//!   requests.
//! - A deadline is answered when it passes, whatever the work does; the work is stopped as soon as
//!   possible.
//! - A guest that does not return cleanly loses its instance, and no other request is affected.
//! - A job ends: every wait has a bound, and attempts of one job never overlap.
//! - A failed reload changes nothing but the record of it.

#![deny(clippy::print_stdout, clippy::print_stderr)]
// Tests may unwrap, and lock as they like.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::disallowed_methods))]

pub mod access;
pub mod access_log;
pub mod allocator;
pub mod app;
pub mod audit;
pub mod cancel;
pub mod cli;
pub mod config;
pub mod drill;
pub mod error;
pub mod executor;
pub mod fixed_routes;
pub mod graph;
pub mod input_file;
pub mod jobs;
mod lock;
pub mod metrics;
pub mod offload;
pub mod outbound;
pub mod output;
pub mod plugin;
pub mod policy;
pub mod predict;
pub mod private_folder;
pub mod proto;
pub mod router;
pub mod server;
pub mod shutdown;
pub mod task_timer;
pub mod tenants;
pub mod timestamp;
pub mod trace_export;
pub mod traces;
mod wait_list;
