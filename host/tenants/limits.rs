//! What a tenant may use.

use super::rate::Rate;
use std::num::NonZeroU32;

/// The limits of a tenant. `None` is no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantLimits {
    /// Its share of executors that have more work than they can do, relative to other tenants.
    pub weight: NonZeroU32,
    pub requests: Option<Rate>,
    /// Rows of inputs, counted when they are decoded.
    pub rows: Option<Rate>,
    /// Requests that have begun and not ended.
    pub max_in_flight: Option<usize>,
    /// Bytes of bodies that the host holds for it.
    pub max_in_flight_bytes: Option<usize>,
}

impl Default for TenantLimits {
    fn default() -> Self {
        TenantLimits {
            weight: NonZeroU32::MIN,
            requests: None,
            rows: None,
            max_in_flight: None,
            max_in_flight_bytes: None,
        }
    }
}
