//! Between tensors and the values of ONNX Runtime, and from a session's signature to metadata.

use super::plain_message::plain_error;
use super::ranks::Signature;
use super::source::load_error;
use super::strings;
use crate::error::{Error, Result};
use crate::predict::{
    ALIGNMENT, Datatype, Metadata, Shape, ShapeSpec, Tensor, TensorSpec, element_count, is_aligned, padding,
};
use bytes::Bytes;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};
use smallvec::SmallVec;
use std::fmt;

pub(super) fn metadata(session: &Session) -> Result<Metadata> {
    use Signature::{Inputs, Outputs, OverridableInitializers};

    let spec = |signature, index, name: &str, ty: &ValueType| {
        let spec = spec(signature, name, ty)?;
        match spec.shape.is_scalar() && !signature.has_shape(session, index).map_err(load_error)? {
            true => Ok(TensorSpec { shape: ShapeSpec::AnyRank, ..spec }),
            false => Ok(spec),
        }
    };
    let inputs = session.inputs().iter().enumerate();
    let inputs = inputs.map(|(index, input)| spec(Inputs, index, input.name(), input.dtype()));
    let initializers = session.overridable_initializers();
    let optional = initializers.iter().enumerate();
    let optional =
        optional.map(|(index, input)| spec(OverridableInitializers, index, input.name(), input.dtype()));
    let outputs = session.outputs().iter().enumerate();
    let outputs = outputs.map(|(index, output)| spec(Outputs, index, output.name(), output.dtype()));
    Ok(Metadata {
        inputs: inputs.chain(optional).collect::<Result<_>>()?,
        outputs: outputs.collect::<Result<_>>()?,
        streaming: false,
    })
}

fn spec(signature: Signature, name: &str, ty: &ValueType) -> Result<TensorSpec> {
    let what = if matches!(signature, Signature::Outputs) { "output" } else { "input" };
    let optional = matches!(signature, Signature::OverridableInitializers);
    let refused = |reason: &str| Err(Error::unsupported(format!("{what} \"{name}\" {reason}")));
    match ty {
        ValueType::Tensor { ty, shape, .. } => match datatype(*ty) {
            Some(datatype) => {
                let shape: Shape = shape.iter().map(|&dimension| dimension.max(-1)).collect();
                Ok(TensorSpec { name: name.into(), datatype, shape: shape.into(), optional })
            }
            None => refused(&format!("has elements of type {ty}, which the Open Inference Protocol lacks")),
        },
        ValueType::Sequence(inner) if matches!(**inner, ValueType::Map { .. }) => {
            refused("is a sequence of maps, not a tensor; export the classifier with the option zipmap=False")
        }
        ValueType::Sequence(_) => {
            refused("is a sequence, not a tensor; export the model with tensor outputs")
        }
        ValueType::Map { .. } => refused("is a map, not a tensor; export the model with tensor outputs"),
        ValueType::Optional(_) => refused("is of an optional type; export the model with plain tensors"),
    }
}

fn datatype(ty: TensorElementType) -> Option<Datatype> {
    Some(match ty {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}

/// The largest tensor that is copied only because it is not aligned to `ALIGNMENT`.
const COPIED_BYTES_MAX: usize = 1 << 20;

/// Returns true if a run gets a copy of this tensor: it is not aligned, and either small or not
/// even aligned for its datatype. Strings are always copied, by the runtime.
pub(super) fn is_copied(tensor: &Tensor) -> bool {
    let data = tensor.data();
    let is_element_aligned = |size| data.as_ptr().addr().is_multiple_of(size) || data.is_empty();
    let is_usable = tensor.datatype().size().is_some_and(is_element_aligned);
    !is_usable || (!is_aligned(data) && data.len() <= COPIED_BYTES_MAX)
}

/// Aligned copies of the inputs of a run that are not aligned themselves, in one buffer.
///
/// The kernels of the runtime treat elements in front of the first aligned vector apart, so sums of
/// the same numbers can differ in their last bits with the address. A large tensor that is aligned
/// for its datatype only is not copied.
pub(super) struct AlignedInputs {
    buffer: Vec<u8>,
    /// By input, where its copy begins.
    places: SmallVec<[Option<usize>; 4]>,
}

impl AlignedInputs {
    pub fn of(inputs: &[Tensor]) -> Self {
        let is_copied = |tensor: &Tensor| tensor.datatype() != Datatype::Bytes && is_copied(tensor);
        let size = |tensor: &Tensor| tensor.data().len().next_multiple_of(ALIGNMENT);
        let bytes: usize = inputs.iter().filter(|tensor| is_copied(tensor)).map(size).sum();
        if bytes == 0 {
            return AlignedInputs { buffer: Vec::new(), places: SmallVec::new() };
        }
        let mut buffer = Vec::with_capacity(bytes + ALIGNMENT);
        buffer.resize(padding(buffer.as_ptr(), 0), 0);
        let places = inputs.iter().map(|tensor| {
            is_copied(tensor).then(|| {
                let place = buffer.len();
                buffer.extend_from_slice(tensor.data());
                buffer.resize(place + size(tensor), 0);
                place
            })
        });
        AlignedInputs { places: places.collect(), buffer }
    }

    /// Returns the value of an input: a view of its copy, or of the tensor.
    pub fn value<'a>(&'a self, index: usize, tensor: &'a Tensor) -> Result<SessionInputValue<'a>> {
        let data = match self.places.get(index).copied().flatten() {
            Some(place) => &self.buffer[place..place + tensor.data().len()],
            None => tensor.data(),
        };
        input_value(tensor, data)
    }
}

/// Returns a view of `data`, which are those of the tensor.
fn input_value<'a>(tensor: &'a Tensor, data: &'a [u8]) -> Result<SessionInputValue<'a>> {
    fn typed<'a, T>(tensor: &'a Tensor, data: &'a [u8]) -> Result<SessionInputValue<'a>>
    where
        T: bytemuck::CheckedBitPattern
            + bytemuck::NoUninit
            + PrimitiveTensorElementType
            + fmt::Debug
            + 'static,
    {
        let invalid =
            |why: String| Error::invalid(format!("input \"{}\": {why}", tensor.name())).field(tensor.name());
        // Nothing has any address, which need not be aligned.
        let elements = match data {
            [] => Ok(&[][..]),
            data => bytemuck::checked::try_cast_slice::<u8, T>(data),
        };
        let elements = elements.map_err(|error| invalid(error.to_string()))?;
        let shape = ort::value::Shape::new(tensor.shape().iter().copied());
        let value = TensorRef::from_array_view((shape, elements)).map(Into::into);
        value.map_err(|error| invalid(plain_error(&error)))
    }
    match tensor.datatype() {
        Datatype::Bool => typed::<bool>(tensor, data),
        Datatype::Uint8 => typed::<u8>(tensor, data),
        Datatype::Uint16 => typed::<u16>(tensor, data),
        Datatype::Uint32 => typed::<u32>(tensor, data),
        Datatype::Uint64 => typed::<u64>(tensor, data),
        Datatype::Int8 => typed::<i8>(tensor, data),
        Datatype::Int16 => typed::<i16>(tensor, data),
        Datatype::Int32 => typed::<i32>(tensor, data),
        Datatype::Int64 => typed::<i64>(tensor, data),
        Datatype::Fp16 => typed::<half::f16>(tensor, data),
        Datatype::Bf16 => typed::<half::bf16>(tensor, data),
        Datatype::Fp32 => typed::<f32>(tensor, data),
        Datatype::Fp64 => typed::<f64>(tensor, data),
        Datatype::Bytes => {
            let value = strings::value(tensor).map(Into::into);
            value.map_err(|error| {
                Error::invalid(format!("input \"{}\": {}", tensor.name(), plain_error(&error)))
                    .field(tensor.name())
            })
        }
    }
}

pub(super) fn output_tensor(spec: &TensorSpec, value: &DynValue) -> Result<Tensor> {
    fn typed<T>(value: &DynValue) -> ort::Result<(Shape, Bytes)>
    where
        T: bytemuck::NoUninit + PrimitiveTensorElementType,
    {
        let (shape, elements) = value.try_extract_tensor::<T>()?;
        Ok((shape.iter().copied().collect(), Bytes::copy_from_slice(bytemuck::cast_slice(elements))))
    }
    let extracted = match spec.datatype {
        Datatype::Bool => typed::<bool>(value),
        Datatype::Uint8 => typed::<u8>(value),
        Datatype::Uint16 => typed::<u16>(value),
        Datatype::Uint32 => typed::<u32>(value),
        Datatype::Uint64 => typed::<u64>(value),
        Datatype::Int8 => typed::<i8>(value),
        Datatype::Int16 => typed::<i16>(value),
        Datatype::Int32 => typed::<i32>(value),
        Datatype::Int64 => typed::<i64>(value),
        Datatype::Fp16 => typed::<half::f16>(value),
        Datatype::Bf16 => typed::<half::bf16>(value),
        Datatype::Fp32 => typed::<f32>(value),
        Datatype::Fp64 => typed::<f64>(value),
        Datatype::Bytes => match value.dtype() {
            ValueType::Tensor { ty: TensorElementType::String, shape, .. } => {
                let shape: Shape = shape.iter().copied().collect();
                let (bytes, offsets) = strings::elements(value, element_count(&shape)?).map_err(|error| {
                    Error::failed(format!("output \"{}\": {}", spec.name, plain_error(&error)))
                })?;
                let elements = offsets.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
                return Tensor::from_elements(spec.name.clone(), shape, elements);
            }
            other => {
                return Err(Error::failed(format!("output \"{}\" is {other:?}, not strings", spec.name)));
            }
        },
    };
    let (shape, data) = extracted
        .map_err(|error| Error::failed(format!("output \"{}\": {}", spec.name, plain_error(&error))))?;
    Tensor::new(spec.name.clone(), spec.datatype, shape, data)
}
