//! Commands for authors of plugins: they create, build, serve and test a project of their own,
//! outside any repository.
//!
//! - `language` and `role`: what a project is written in, and what it becomes.
//! - `embedded`: the files that this program carries: SDKs, contract, templates. `written` writes
//!   them into a folder.
//! - `settings`: `plugin.toml`, which says how a project is built. Only `build` and `dev` execute
//!   what it says.
//! - `steps` runs the steps of a build, and `sources` finds out what has changed.
//! - `entries` keeps the layout of a file of cases that is updated.
//! - One file for each command: `new`, `sdk`, `build`, `component`, `dev`, `test`, `bench`,
//!   `doctor`.
//!   `comparison` judges two builds.

mod bench;
mod build;
mod comparison;
mod component;
mod dev;
mod doctor;
mod embedded;
mod entries;
mod language;
mod new;
mod role;
mod sdk;
mod settings;
mod sources;
mod steps;
mod test;
mod written;

pub use bench::{Bench, bench};
pub use build::build;
pub use component::component;
pub use dev::{Dev, dev};
pub use doctor::doctor;
pub use language::Language;
pub use new::new;
pub use role::ProjectRole;
pub use sdk::{write_contract, write_sdk};
pub use test::{Test, test};
