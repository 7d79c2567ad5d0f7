//! The commands that do not serve: check, diff, jobs, predict, wit.

mod check;
mod client;
mod contract;
mod diff;
pub mod jobs;
mod loaded;
mod predict;

pub use check::{Picture, check};
pub use contract::write_contract;
pub use diff::diff;
pub use predict::predict;
