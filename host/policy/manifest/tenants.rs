//! `[tenants.<name>]` as written.

use serde::Deserialize;
use toml::Spanned;

/// `[tenants.<name>]`. The table `"*"` is for all tenants without one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenant {
    /// Names of callers by the access rules: `key:NAME`, `user:NAME`, `group:NAME`, `cert:NAME`.
    pub callers: Vec<Spanned<String>>,
    /// Its share of executors that have too much to do, relative to other tenants.
    pub weight: Option<Spanned<u32>>,
    pub requests_per_s: Option<Spanned<f64>>,
    /// Requests at once after a pause.
    pub burst_requests: Option<Spanned<f64>>,
    pub rows_per_s: Option<Spanned<f64>>,
    /// Rows at once after a pause.
    pub burst_rows: Option<Spanned<f64>>,
    /// Requests that have begun and not ended.
    pub max_in_flight: Option<Spanned<usize>>,
    /// Bytes of their bodies.
    pub max_in_flight_mb: Option<Spanned<usize>>,
}
