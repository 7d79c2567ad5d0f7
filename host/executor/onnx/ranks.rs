//! Tells inputs and outputs without a shape from scalars. The API of `ort` shows both as a shape
//! without dimensions, so this calls ONNX Runtime's C API.

use ort::AsPointer;
use ort::session::Session;
use ort::sys::{OrtSession, OrtStatusPtr, OrtTypeInfo};
use std::ptr;

/// Returns the type of the input or output with this index.
type TypeInfoOf = unsafe extern "system" fn(*const OrtSession, usize, *mut *mut OrtTypeInfo) -> OrtStatusPtr;

/// A list of a session's inputs or outputs.
#[derive(Clone, Copy)]
pub(super) enum Signature {
    Inputs,
    /// Initializers that are inputs as well.
    OverridableInitializers,
    Outputs,
}

impl Signature {
    fn type_info_of(self) -> TypeInfoOf {
        let api = ort::api();
        match self {
            Signature::Inputs => api.SessionGetInputTypeInfo,
            Signature::OverridableInitializers => api.SessionGetOverridableInitializerTypeInfo,
            Signature::Outputs => api.SessionGetOutputTypeInfo,
        }
    }

    /// Returns true if the graph gives a shape to the tensor with this index.
    pub fn has_shape(self, session: &Session, index: usize) -> ort::Result<bool> {
        let (mut type_info, mut tensor) = (ptr::null_mut(), ptr::null());
        // SAFETY: `session` is live, the call checks `index` itself, and `type_info` is valid for
        // writes. The status is owned here.
        unsafe {
            let status = (self.type_info_of())(session.ptr(), index, &raw mut type_info);
            ort::Error::result_from_status(status)?;
        }
        let type_info = TypeInfo(type_info);
        // SAFETY: the call has succeeded, so `type_info` points to a type, which is freed at the
        // end of this function.
        unsafe {
            let status = (ort::api().CastTypeInfoToTensorInfo)(type_info.0, &raw mut tensor);
            ort::Error::result_from_status(status)?;
        }
        // SAFETY: `tensor` is null for a type that is not a tensor, and otherwise a part of
        // `type_info`.
        Ok(tensor.is_null() || unsafe { (ort::api().TensorTypeAndShape_HasShape)(tensor) })
    }
}

/// A type that is freed when dropped.
struct TypeInfo(*mut OrtTypeInfo);

impl Drop for TypeInfo {
    fn drop(&mut self) {
        // SAFETY: the pointer came from ONNX Runtime, which has handed over its ownership.
        unsafe { (ort::api().ReleaseTypeInfo)(self.0) };
    }
}
