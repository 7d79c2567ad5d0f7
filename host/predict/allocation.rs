//! The memory that tensors keep alive.

use bytes::Bytes;

/// The memory that a tensor's data keep alive: the whole buffer that they are a part of, such as
/// the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Unique as long as the memory is kept.
    pub address: usize,
    pub bytes: usize,
}

impl Allocation {
    pub fn of(whole: &[u8]) -> Self {
        Allocation { address: whole.as_ptr() as usize, bytes: whole.len() }
    }

    /// Returns the memory from the first of these parts to the last. For parts of one buffer that
    /// is not accessible itself. `None` if the parts are too far apart to be of one buffer.
    pub fn spanning(parts: &[Bytes]) -> Option<Self> {
        const BETWEEN_BYTES_MAX: usize = 1 << 20;
        let filled = || parts.iter().filter(|part| !part.is_empty()).map(|part| Allocation::of(part));
        let address = filled().map(|part| part.address).min()?;
        let bytes = filled().map(|part| part.address + part.bytes).max()? - address;
        let sum: usize = filled().map(|part| part.bytes).sum();
        (bytes <= sum.saturating_add(BETWEEN_BYTES_MAX)).then_some(Allocation { address, bytes })
    }

    pub(super) fn contains(self, other: Allocation) -> bool {
        self.address <= other.address && other.address + other.bytes <= self.address + self.bytes
    }
}
