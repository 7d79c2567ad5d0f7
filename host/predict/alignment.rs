//! Where the data of tensors lie in memory. Vector kernels read aligned data fastest, and their
//! results do not depend on the address then.

use bytes::Bytes;

/// The alignment of tensors: a cache line, which is also the longest vector of common processors.
pub const ALIGNMENT: usize = 64;

/// Returns true if the data need no copy to be aligned.
pub fn is_aligned(data: &[u8]) -> bool {
    data.is_empty() || data.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

/// Returns how many bytes must lie in front of data, in a buffer that begins at `buffer`, so that
/// the byte at the index `at` of the data is aligned. Less than `ALIGNMENT`.
pub fn padding(buffer: *const u8, at: usize) -> usize {
    buffer.addr().wrapping_add(at).wrapping_neg() % ALIGNMENT
}

/// A buffer for the data of one tensor. They are aligned unless they grow beyond its capacity.
#[derive(Debug, Default)]
pub(super) struct AlignedBuffer {
    bytes: Vec<u8>,
    padding: usize,
}

impl AlignedBuffer {
    /// Creates a buffer with room for `capacity` bytes. A small one is not aligned: its data are
    /// copied cheaply if they must be.
    pub fn with_capacity(capacity: usize) -> Self {
        const UNALIGNED_BYTES_MAX: usize = 4 << 10;
        if capacity <= UNALIGNED_BYTES_MAX {
            return AlignedBuffer { bytes: Vec::with_capacity(capacity), padding: 0 };
        }
        let mut bytes = Vec::with_capacity(capacity + ALIGNMENT);
        let padding = padding(bytes.as_ptr(), 0);
        bytes.resize(padding, 0);
        AlignedBuffer { bytes, padding }
    }

    /// Returns the number of bytes of data.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.padding
    }

    /// Returns the vector to which data are appended. It may hold other bytes before them.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub fn freeze(self) -> Bytes {
        Bytes::from(self.bytes).slice(self.padding..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_byte_is_aligned() {
        let buffer = [0_u8; 4 * ALIGNMENT];
        for start in 0..ALIGNMENT {
            for at in [0, 1, 63, 64, 100] {
                let padding = padding(&raw const buffer[start], at);
                assert!(padding < ALIGNMENT);
                assert!(is_aligned(&buffer[start + padding + at..]), "{start} {at}");
            }
        }
    }

    #[test]
    fn data_of_a_buffer_are_aligned() {
        for length in [5_000, 70_001, 1 << 20] {
            let mut buffer = AlignedBuffer::with_capacity(length);
            let end = buffer.padding + length;
            buffer.tail().resize(end, 7);
            assert_eq!(buffer.len(), length);
            let data = buffer.freeze();
            assert!(is_aligned(&data) && data.len() == length && data[0] == 7);
        }
    }
}
