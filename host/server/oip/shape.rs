//! Shapes of inputs whose sender does not give one.

use crate::predict::{Shape, element_count};

/// Returns the shape of `count` elements of an input with shape `spec`. Free dimensions are 1,
/// except for the last, which has the remaining elements. `None` if the elements do not fill the
/// shape.
pub(super) fn filled(spec: &[i64], count: usize) -> Option<Shape> {
    let mut shape: Shape = spec.iter().map(|&dimension| if dimension < 0 { 1 } else { dimension }).collect();
    let others = element_count(&shape).ok()?;
    if let Some(last) = spec.iter().rposition(|&dimension| dimension < 0) {
        shape[last] = i64::try_from(count.checked_div(others)?).ok()?;
    }
    (element_count(&shape).ok()? == count).then_some(shape)
}
