//! What a caller requests besides its input.

use crate::predict::{Parameters, Priority, StepObserver};
use std::sync::Arc;
use std::time::Duration;

/// What a caller requests besides its input.
#[derive(Default)]
pub struct CallOptions {
    pub parameters: Parameters,
    /// The caller's own timeout.
    pub timeout: Option<Duration>,
    /// The requested outputs; `None` for all.
    pub outputs: Option<Arc<[String]>>,
    pub priority: Priority,
    /// Is told about the steps of a pipeline.
    pub steps: Option<Arc<dyn StepObserver>>,
}
