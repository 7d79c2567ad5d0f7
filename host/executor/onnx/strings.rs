//! Passes strings to and from ONNX Runtime as bytes. Its strings have a length and may hold any
//! bytes, but the API of `ort` requires UTF-8 without NUL, so this calls ONNX Runtime's C API.

use crate::predict::Tensor;
use ort::AsPointer;
use ort::value::{DynValue, Shape};
use std::ptr;

/// Creates a tensor of strings from the elements of a tensor of BYTES.
pub(super) fn value(tensor: &Tensor) -> ort::Result<ort::value::Tensor<String>> {
    let shape = Shape::new(tensor.shape().iter().copied());
    let mut value = ort::value::Tensor::from_string_array((shape, vec![""; tensor.count()].as_slice()))?;
    for (index, element) in tensor.elements().enumerate() {
        let mut place = ptr::null_mut();
        // SAFETY: `value` is a live tensor of strings that nothing else can access. The call checks
        // `index` itself, and returns null or a status, which is owned here.
        unsafe {
            ort::Error::result_from_status((ort::api().GetResizedStringTensorElementBuffer)(
                value.ptr_mut(),
                index,
                element.len(),
                &raw mut place,
            ))?;
        }
        // SAFETY: the call succeeded, so `place` points to the string, which it has resized to
        // `element.len()` bytes. The memory belongs to the tensor, does not overlap the request,
        // and stays valid until the string is resized again.
        unsafe { ptr::copy_nonoverlapping(element.as_ptr(), place.cast::<u8>(), element.len()) };
    }
    Ok(value)
}

/// Returns the concatenated elements of a tensor of `count` strings, and the offset of each; the
/// last offset is the end. Fails for another kind of value.
pub(super) fn elements(value: &DynValue, count: usize) -> ort::Result<(Vec<u8>, Vec<usize>)> {
    let mut length = 0;
    // SAFETY: `value` is live, and the call checks that it is a tensor of strings. `length` is
    // valid for writes.
    unsafe {
        ort::Error::result_from_status((ort::api().GetStringTensorDataLength)(value.ptr(), &raw mut length))?;
    }
    let (mut bytes, mut offsets) = (vec![0_u8; length], vec![0_usize; count]);
    // SAFETY: as above. Both buffers have the lengths passed here, and the call refuses buffers of
    // other lengths.
    unsafe {
        ort::Error::result_from_status((ort::api().GetStringTensorContent)(
            value.ptr(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            offsets.as_mut_ptr(),
            offsets.len(),
        ))?;
    }
    offsets.push(length);
    Ok((bytes, offsets))
}
