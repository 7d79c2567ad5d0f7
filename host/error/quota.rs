//! A quota of a caller, for those who must wait.

use std::time::Duration;

/// A quota: so many units in a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// What is counted: `requests` or `rows`.
    pub name: &'static str,
    /// Units that may be used at once.
    pub limit: f64,
    /// Time in which that many become available.
    pub per: Duration,
}
