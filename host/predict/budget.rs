//! Limits the memory that decoding one request may take besides its body.

use crate::error::{Error, Result};

/// Decoded, a request may be this many times as large as the largest body.
const GROWTH_MAX: usize = 4;

/// Bytes that may still be allocated. Charged before they are allocated.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBudget {
    left: usize,
    max: usize,
}

impl MemoryBudget {
    /// The budget of a request whose body may have `max_body_bytes` (`max_body_mb`).
    pub fn new(max_body_bytes: usize) -> Self {
        let max = max_body_bytes.saturating_mul(GROWTH_MAX);
        MemoryBudget { left: max, max }
    }

    /// The budget for text that the operator wrote.
    pub fn unlimited() -> Self {
        MemoryBudget { left: usize::MAX, max: usize::MAX }
    }

    pub fn left(&self) -> usize {
        self.left
    }

    pub fn max(&self) -> usize {
        self.max
    }

    /// Charges `bytes` for `what`, such as "parameters", or refuses them.
    pub fn charge(&mut self, bytes: usize, what: &str) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| self.exceeded(what))?;
        Ok(())
    }

    pub fn exceeded(&self, what: &str) -> Error {
        Error::too_large(format!(
            "the request's {what} would take over {} MB of memory, {GROWTH_MAX} times max_body_mb; send fewer \
             elements or binary tensors, or raise max_body_mb",
            self.max >> 20
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_budget_is_spent_once() {
        let mut budget = MemoryBudget::new(1 << 20);
        budget.charge(3 << 20, "inputs").unwrap();
        budget.charge(1 << 20, "inputs").unwrap();
        let error = budget.charge(1, "parameters").unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        assert!(error.message().starts_with("the request's parameters would take over 4 MB"), "{error}");
        MemoryBudget::unlimited().charge(usize::MAX, "inputs").unwrap();
    }
}
