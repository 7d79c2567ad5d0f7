//! Manifests, reloads, rollouts, and the command line.

#[path = "../support/mod.rs"]
mod support;

mod address_space;
mod bad_models;
mod builds;
mod canary;
mod cli;
mod deploy;
mod drill;
mod evidence;
mod examples;
mod executors;
mod external_data;
mod files;
mod gpu;
mod guard;
mod last_good;
mod manifest;
mod models;
mod names;
mod reload;
mod reload_memory;
mod routing;
mod secrets;
mod soak;
mod status;
