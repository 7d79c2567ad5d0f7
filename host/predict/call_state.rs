//! The part of a call's context that its responses use.

use super::cancellation::Cancellation;
use crate::error::Error;
use std::time::Instant;

/// The state of a call. A trait to break a cycle: the context of a call names the models that can
/// be called, and these return responses.
pub trait CallState: Send + Sync {
    fn deadline(&self) -> Option<Instant>;

    /// Returns true if the work has begun.
    fn has_begun(&self) -> bool;

    fn cancellation(&self) -> &Cancellation;

    /// Returns why the call was cancelled; `None` if it was not.
    fn stopped(&self) -> Option<Error>;
}
