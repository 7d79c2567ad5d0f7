//! Hostler: a native inference host.
//!
//! The host owns thread pools and ONNX Runtime sessions; sandboxed WebAssembly components do pre- and
//! postprocessing; a policy names them all and is swapped, live, when a file changes.
//!
//! # The map
//!
//! Each layer names only those below it; `tests/architecture.rs` holds that.
//!
//! | layer | what it is |
//! |---|---|
//! | `main`, [`cli`], [`drill`] | the command line; the commands that do not serve; the one that mistreats a copy |
//! | [`app`] | starts everything in order, serves, stops in order |
//! | [`server`] | listeners and protocols: bytes to [`predict`] types and back, error kind to status |
//! | [`jobs`] | requests in the background: states, budgets, retries, results that are kept |
//! | [`router`] | a request's way, once for all protocols: resolve, deadline, submit, account |
//! | [`policy`] | manifest, plan, running policy; `reload` is its only writer, what clients load and unload an `overlay` over the manifest, `load` the only place that knows concrete executors; [`access_log`] beside it |
//! | [`executor`] | named places that run models: queues, workers, ONNX Runtime sessions, whose runs have stacks of their own; remotes that are asked; plugins that stand before them; pipelines that call others |
//! | [`graph`] | graphs of models: what a pipeline is made of, its checks, conditions and pictures |
//! | [`plugin`] | WebAssembly components: the engine, instances, limits, what guests may call and remember, and the servers that they may ask |
//! | [`offload`] | threads for reading and writing large bodies |
//! | [`input_file`] | reads files that users name: regular ones only, within bounds |
//! | [`metrics`], [`shutdown`], [`config`], [`predict`] | counters; signals and readiness; settings that several layers read; tensors, payloads, contexts, responses |
//! | [`alarm`], [`cancel`], [`error`], [`output`], [`private_folder`], [`proto`] | deadlines at the price of one timer a task; the flag that abandons a build; the one error type; stdout and stderr; folders that only the host writes to; the messages of the Open Inference Protocol over gRPC |
//!
//! # A request
//!
//! `server` decodes, `router` takes the policy snapshot once and resolves the route, the route's executor
//! admits the call or refuses it at once. One worker thread runs preprocess, model and postprocess; its
//! answer wakes the connection's task, `server` encodes. What the host holds for all clients shares one budget
//! (`server/transfers.rs`), and slow clients lose theirs first. Large bodies are decoded and encoded on the threads of
//! `offload`, and plugins are compiled in a child process with limits. I/O threads do nothing else; workers run at a
//! lower priority. A `custom` executor is a plugin that decides how another executor is called: its guests
//! wait, so they are tasks on threads of their own, and each call of theirs is admitted like any other. So are the
//! calls of a `triton` executor, which wait for a remote. A `pipeline` executor drives a graph of models: one task decides
//! which steps run, calls their models on their executors, and runs a step itself while it is polled on a worker of the
//! right one; what it has begun is admitted before what is new. A transformer or model that calls other models has its turn on a
//! worker, leaves it when it waits, and has another one when it is woken. A plugin whose requests wait side by side has an instance
//! for all of them, on a thread of its own, and holds no worker; a worker whose guest calls it may run it for a moment.
//! A reload builds beside the running policy at the lowest and swaps it in one step.
//!
//! # Invariants
//!
//! - A request uses one policy from its first byte to its last.
//! - Admission never blocks: a place in a bounded queue, or `Overloaded`. A request that has begun is not refused on its
//!   way: its further calls wait for their places until its deadline, before what is new.
//! - A deadline is answered when it passes, whatever the work does; the work is stopped as soon as it can.
//! - A guest that does not return cleanly loses its instance, and nobody else is hurt.
//! - A job ends: every wait has a bound, and attempts of one job never overlap.
//! - A failed reload changes nothing but the record of it.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod access_log;
pub mod app;
pub mod cancel;
pub mod cli;
pub mod config;
pub mod drill;
pub mod error;
pub mod executor;
pub mod graph;
pub mod input_file;
pub mod jobs;
pub mod metrics;
pub mod offload;
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
mod wait_list;
