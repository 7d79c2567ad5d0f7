//! `hostler drill`: checks a manifest under load before an operator trusts it.
//!
//! A child process of this program serves a copy of the manifest and its files. While requests with
//! known answers run, the drill swaps and damages files, adds hostile guests, overloads the host
//! and stops it. The drill passes if every request was answered correctly; latencies are shown but
//! decide nothing.

mod client;
mod copy;
mod exercises;
mod files;
mod fixture;
mod host;
mod hostile;
mod load;
mod options;
mod pace;
mod pressure;
mod report;
mod run;
mod samples;
mod swaps;

pub use exercises::EXERCISES;
pub use options::Options;
pub use run::run;
