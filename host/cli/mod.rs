//! The commands other than serve and drill. `project` has those for authors of plugins.

mod check;
mod client;
mod client_tls;
mod diff;
pub mod jobs;
pub mod key;
mod loaded;
mod predict;
mod prepared;
pub mod project;
mod request_file;
mod rights;

pub use check::{Picture, check};
pub use diff::diff;
pub use predict::{Predict, PredictRequest, predict};
