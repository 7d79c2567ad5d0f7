//! The budget that pays for responses that nobody has read yet.

use crate::error::Result;

/// Pays for responses that nobody has read yet.
pub trait Budget: Send + Sync {
    /// Charges bytes, or returns why they exceed the budget.
    fn charge(&self, bytes: usize) -> Result<()>;

    /// Returns bytes that are no longer held.
    fn release(&self, bytes: usize);
}
