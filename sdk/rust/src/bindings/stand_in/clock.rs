//! The interface `hostler:concurrent/clock`.

use super::types::Error;
use crate::testing::Wait;
use std::time::Duration;

pub async fn sleep(time_us: u64) -> Result<(), Error> {
    Wait::of(Duration::from_micros(time_us)).await
}
