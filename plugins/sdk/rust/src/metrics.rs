//! Numbers for the operator. A name has 1 to 64 letters, digits and `_`; anything else traps, as do more
//! than 64 names.

use crate::bindings::metrics;

/// Adds to `hostler_plugin_events_total{plugin, name}`.
pub fn count(name: &str, by: u64) {
    metrics::count(name, by);
}

/// Sets `hostler_plugin_value{plugin, name}`.
pub fn set(name: &str, value: f64) {
    metrics::set(name, value);
}
