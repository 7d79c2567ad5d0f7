//! A tensor's contents: raw bytes beside the message's inputs, or typed lists inside of them.

use crate::error::{Error, Result};
use crate::predict::{Datatype, Shape, Tensor, element_count, format_shape};
use crate::proto::inference::InferTensorContents;
use crate::proto::inference::model_infer_request::InferInputTensor;
use bytes::Bytes;

/// Pairs each input of a request for `model` with its contents.
pub(super) fn decode(model: &str, inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Vec<Tensor>> {
    if raw.is_empty() {
        return inputs.into_iter().map(typed).collect();
    }
    let (given, wanted) = (raw.len(), inputs.len());
    if let Some(input) = inputs.iter().find(|input| input.contents.is_some()) {
        return Err(fault(
            input,
            "it has contents, and there are raw_input_contents as well; send one of them",
        ));
    }
    if let Some(input) = inputs.get(given) {
        return Err(fault(input, format!("no raw contents: there are {given} for {wanted} inputs")));
    }
    if given > wanted {
        let last = inputs
            .last()
            .map_or_else(String::new, |input| format!(", the last of which is \"{}\"", input.name));
        let message = format!("raw_input_contents has {given} entries for {wanted} inputs{last}");
        return Err(Error::invalid(message).field("raw_input_contents"));
    }
    let one = |(input, data): (InferInputTensor, Bytes)| {
        let (datatype, got) = (datatype(&input)?, data.len());
        tensor(&input, datatype, data).map_err(|error| mismatch(model, &input, datatype, got, error))
    };
    inputs.into_iter().zip(raw).map(one).collect()
}

/// Says which sizes do not fit, in the words that the protocol's clients know.
fn mismatch(model: &str, input: &InferInputTensor, datatype: Datatype, got: usize, error: Error) -> Error {
    let count = element_count(&input.shape).ok();
    let expected = count.zip(datatype.size()).and_then(|(count, size)| count.checked_mul(size));
    match expected.filter(|&expected| expected != got) {
        Some(expected) => {
            let name = &*input.name;
            let message = format!(
                "{}: input byte size mismatch for input '{name}' for model '{model}'. Expected {expected}, got {got}",
                error.message()
            );
            Error::invalid(message).field(name)
        }
        None => error,
    }
}

fn fault(input: &InferInputTensor, what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("input \"{}\": {what}", input.name)).field(&*input.name)
}

fn datatype(input: &InferInputTensor) -> Result<Datatype> {
    Datatype::parse(&input.datatype).ok_or_else(|| {
        let hint = crate::error::did_you_mean(&input.datatype, Datatype::ALL.map(Datatype::as_str));
        fault(input, format!("no datatype \"{}\"{hint}", input.datatype))
    })
}

fn tensor(input: &InferInputTensor, datatype: Datatype, data: Bytes) -> Result<Tensor> {
    let shape = Shape::from_slice(&input.shape);
    let tensor = Tensor::new(&*input.name, datatype, shape, data);
    tensor.map_err(|error| error.context(format!("input \"{}\"", input.name)).field(&*input.name))
}

fn typed(mut input: InferInputTensor) -> Result<Tensor> {
    let datatype = datatype(&input)?;
    let contents = input.contents.take().unwrap_or_default();
    let list = list_of(datatype).ok_or_else(|| {
        fault(&input, format!("{} has no typed contents; send it in raw_input_contents", datatype.as_str()))
    })?;
    let filled = filled(&contents);
    if let Some((other, _)) = filled.iter().find(|(name, count)| *name != list && *count > 0) {
        return Err(fault(&input, format!("{} is sent in {list}, not in {other}", datatype.as_str())));
    }
    let given = filled.iter().find(|(name, _)| *name == list).map_or(0, |(_, count)| *count);
    let wanted = element_count(&input.shape).map_err(|error| fault(&input, error))?;
    if given != wanted {
        let shape = format_shape(&input.shape);
        return Err(fault(&input, format!("shape {shape} needs {wanted} elements in {list}, got {given}")));
    }
    let data = bytes_of(datatype, contents).map_err(|error| fault(&input, error))?;
    tensor(&input, datatype, data)
}

/// The list that goes with a datatype; the halves have none.
fn list_of(datatype: Datatype) -> Option<&'static str> {
    Some(match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
        Datatype::Int64 => "int64_contents",
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
        Datatype::Uint64 => "uint64_contents",
        Datatype::Fp32 => "fp32_contents",
        Datatype::Fp64 => "fp64_contents",
        Datatype::Bytes => "bytes_contents",
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

fn filled(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

/// The elements in the form that tensors have.
fn bytes_of(datatype: Datatype, contents: InferTensorContents) -> Result<Bytes> {
    let data = match datatype {
        Datatype::Bool => contents.bool_contents.into_iter().map(u8::from).collect(),
        Datatype::Int8 => narrow(&contents.int_contents, i8::to_le_bytes, datatype)?,
        Datatype::Int16 => narrow(&contents.int_contents, i16::to_le_bytes, datatype)?,
        Datatype::Int32 => wide(&contents.int_contents, i32::to_le_bytes),
        Datatype::Int64 => wide(&contents.int64_contents, i64::to_le_bytes),
        Datatype::Uint8 => narrow(&contents.uint_contents, u8::to_le_bytes, datatype)?,
        Datatype::Uint16 => narrow(&contents.uint_contents, u16::to_le_bytes, datatype)?,
        Datatype::Uint32 => wide(&contents.uint_contents, u32::to_le_bytes),
        Datatype::Uint64 => wide(&contents.uint64_contents, u64::to_le_bytes),
        Datatype::Fp32 => wide(&contents.fp32_contents, f32::to_le_bytes),
        Datatype::Fp64 => wide(&contents.fp64_contents, f64::to_le_bytes),
        Datatype::Bytes => return elements(&contents.bytes_contents),
        Datatype::Fp16 | Datatype::Bf16 => unreachable!("invariant: a datatype with a list"),
    };
    Ok(data.into())
}

fn wide<T: Copy, const N: usize>(elements: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    elements.iter().flat_map(|element| bytes(*element)).collect()
}

/// The lists are of 32 bits, so an element can be too large for its datatype.
fn narrow<W: Copy + std::fmt::Display, T: TryFrom<W>, const N: usize>(
    elements: &[W],
    bytes: impl Fn(T) -> [u8; N],
    datatype: Datatype,
) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(elements.len() * N);
    for (index, element) in elements.iter().enumerate() {
        let narrow = T::try_from(*element).map_err(|_| {
            Error::invalid(format!("element {index} is {element}, which {} cannot hold", datatype.as_str()))
        })?;
        data.extend_from_slice(&bytes(narrow));
    }
    Ok(data)
}

fn elements(elements: &[Bytes]) -> Result<Bytes> {
    let one = Shape::from_slice(&[elements.len() as i64]);
    Tensor::from_elements("", one, elements).map(|tensor| tensor.data().clone())
}
