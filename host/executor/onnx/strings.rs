//! Texts in and out of ONNX Runtime as bytes. Its own strings have a length and hold anything, but what `ort` has for
//! them wants UTF-8 without NUL, so this asks ONNX Runtime itself.

use crate::predict::Tensor;
use ort::AsPointer;
use ort::value::{DynValue, Shape};
use std::ptr;

/// A tensor of strings with the elements of a tensor of BYTES.
pub(super) fn value(tensor: &Tensor) -> ort::Result<ort::value::Tensor<String>> {
    let shape = Shape::new(tensor.shape().iter().copied());
    let mut value = ort::value::Tensor::from_string_array((shape, vec![""; tensor.count()].as_slice()))?;
    for (index, element) in tensor.elements().enumerate() {
        let mut place = ptr::null_mut();
        // SAFETY: `value` is a live tensor of strings that nothing else sees; the call checks `index` itself, and
        // returns null or a status that is taken over here, once.
        unsafe {
            ort::Error::result_from_status((ort::api().GetResizedStringTensorElementBuffer)(
                value.ptr_mut(),
                index,
                element.len(),
                &mut place,
            ))?;
        }
        // SAFETY: the call succeeded, so `place` is the memory of the string that it has made `element.len()` bytes
        // long. It is the tensor's own, apart from the request's, and stays until the string is resized again.
        unsafe { ptr::copy_nonoverlapping(element.as_ptr(), place.cast::<u8>(), element.len()) };
    }
    Ok(value)
}

/// The elements of a tensor of `count` strings, one behind the other, and where each begins; the last place is the end.
/// Another kind of value is an error.
pub(super) fn elements(value: &DynValue, count: usize) -> ort::Result<(Vec<u8>, Vec<usize>)> {
    let mut length = 0;
    // SAFETY: `value` is live, and the call checks that it is a tensor of strings; `length` is a place for a number.
    unsafe {
        ort::Error::result_from_status((ort::api().GetStringTensorDataLength)(value.ptr(), &mut length))?;
    }
    let (mut bytes, mut places) = (vec![0_u8; length], vec![0_usize; count]);
    // SAFETY: as above; both buffers are as long as is said here, and the call refuses buffers that do not fit.
    unsafe {
        ort::Error::result_from_status((ort::api().GetStringTensorContent)(
            value.ptr(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            places.as_mut_ptr(),
            places.len(),
        ))?;
    }
    places.push(length);
    Ok((bytes, places))
}
