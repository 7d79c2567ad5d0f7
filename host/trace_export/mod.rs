//! Sends spans to a collector over OTLP.

mod encode;
mod exporter;
mod target;

pub use exporter::Exporter;

use crate::config::TraceSettings;
use crate::error::{Error, Result};

/// Checks the files of the settings, without connecting.
///
/// # Errors
/// `invalid_input` if one cannot be used.
pub fn check(settings: &TraceSettings) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::io(&error))?;
    runtime.block_on(async { target::Target::new(settings).map(drop) })
}
