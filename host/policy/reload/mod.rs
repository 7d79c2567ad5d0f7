//! The only writer of the live policy: watches files, builds policies, swaps, rolls back, keeps the
//! record.
//!
//! The reload thread (`thread`) owns the live policy and makes all decisions. It never waits for a
//! file, a compiler or a model: others do that work and report to it. `watching` checks the files,
//! `builders` read and load, `background` keeps copies. A new policy is built beside the old one,
//! and any failure leaves the old one in place. Files that were refused stay refused until they
//! change. While a new policy is introduced, the reload thread also judges it and moves it on or
//! back (`stages`).

mod attempts;
mod background;
mod build;
mod builders;
mod command;
mod control;
mod decide;
mod first;
mod history;
mod permission;
mod publish;
mod records;
mod refused;
mod reloader;
mod request;
mod retry;
mod stages;
mod step;
mod thread;
mod unload;
mod watching;

pub use control::{Indexed, State};
pub use first::FirstPlan;
pub use reloader::Reloader;
