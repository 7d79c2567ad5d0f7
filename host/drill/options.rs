//! The options of a drill.

use std::path::PathBuf;
use std::time::Duration;

/// The arguments of the command line.
pub struct Options {
    pub manifest: PathBuf,
    /// The duration of each exercise.
    pub time: Duration,
    pub connections: usize,
    pub swaps_per_second: f64,
    pub json: bool,
    /// Runs only these exercises; empty for all.
    pub only: Vec<String>,
}
