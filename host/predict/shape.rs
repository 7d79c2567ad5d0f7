//! Shapes of tensors.

use crate::error::{Error, Result};
use smallvec::SmallVec;

/// Dimensions, outermost first.
pub type Shape = SmallVec<[i64; 4]>;

/// The most dimensions that a tensor may have.
pub const MAX_RANK: usize = 16;

/// Returns the product of the dimensions. Refuses negative ones and overflow.
pub fn element_count(shape: &[i64]) -> Result<usize> {
    if shape.len() > MAX_RANK {
        return Err(Error::invalid(format!("{} dimensions; at most {MAX_RANK} are supported", shape.len())));
    }
    shape.iter().try_fold(1_usize, |count, &dimension| {
        let dimension = usize::try_from(dimension)
            .map_err(|_| Error::invalid(format!("shape {} has a negative dimension", format_shape(shape))))?;
        count.checked_mul(dimension).filter(|&count| isize::try_from(count).is_ok()).ok_or_else(|| {
            Error::invalid(format!(
                "shape {} has more elements than can be addressed: it causes total element count to exceed maximum \
                 size of {}",
                format_shape(shape),
                isize::MAX
            ))
        })
    })
}

/// `[1,-1,3]`
pub fn format_shape(shape: &[i64]) -> String {
    let dimensions: Vec<String> = shape.iter().map(i64::to_string).collect();
    format!("[{}]", dimensions.join(","))
}
