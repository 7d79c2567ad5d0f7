//! The contents of tensors: raw bytes beside the inputs of a message, or typed lists within them.

use super::message::InferInputTensor;
use crate::error::{Error, Result};
use crate::predict::walk::shown;
use crate::predict::{Datatype, MemoryBudget, Shape, Tensor, append_element, element_count, format_shape};
use crate::proto::wire::{self, Fields, Malformed, Value};
use bytes::Bytes;

/// Pairs each input of a request for `model` with its contents.
pub(super) fn decode(
    model: &str,
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
    budget: &mut MemoryBudget,
) -> Result<Vec<Tensor>> {
    if raw.is_empty() {
        return inputs.into_iter().map(|input| typed(input, budget)).collect();
    }
    let (given, wanted) = (raw.len(), inputs.len());
    if let Some(input) = inputs.iter().find(|input| !input.contents.is_empty()) {
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

/// Adds the expected and the actual size to an error, in the words that the protocol's clients
/// know.
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

/// Decodes typed contents directly into the bytes of the tensor, whose number is counted first.
fn typed(input: InferInputTensor, budget: &mut MemoryBudget) -> Result<Tensor> {
    let datatype = datatype(&input)?;
    let list = List::of(datatype).ok_or_else(|| {
        fault(&input, format!("{} has no typed contents; send it in raw_input_contents", datatype.as_str()))
    })?;
    let unreadable = |error: Malformed| fault(&input, format!("its contents cannot be read: {error}"));
    let counts = Counts::of(&input.contents).map_err(unreadable)?;
    if let Some(other) = counts.other_than(list) {
        return Err(fault(&input, format!("{} is sent in {}, not in {other}", datatype.as_str(), list.name)));
    }
    let given = counts.elements(list);
    let wanted = element_count(&input.shape).map_err(|error| fault(&input, error))?;
    if given != wanted {
        let (shape, list) = (format_shape(&input.shape), list.name);
        return Err(fault(&input, format!("shape {shape} needs {wanted} elements in {list}, got {given}")));
    }
    let size = counts.tensor_bytes(datatype);
    budget
        .charge(size, &format!("input \"{}\"", shown(&input.name)))
        .map_err(|error| error.field(&*input.name))?;
    let mut data = Vec::with_capacity(size);
    each(&input.contents, list.number, |element| put(datatype, element, &mut data))
        .map_err(unreadable)?
        .map_err(|error| fault(&input, error))?;
    tensor(&input, datatype, data.into())
}

/// A list of `InferTensorContents`.
#[derive(Clone, Copy, PartialEq)]
struct List {
    number: u32,
    name: &'static str,
}

const LISTS: [&str; 8] = [
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
    "bytes_contents",
];

impl List {
    /// Returns the list of a datatype. `None` for the 16-bit floats, which have none.
    fn of(datatype: Datatype) -> Option<Self> {
        let number = match datatype {
            Datatype::Bool => 1,
            Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => 2,
            Datatype::Int64 => 3,
            Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => 4,
            Datatype::Uint64 => 5,
            Datatype::Fp32 => 6,
            Datatype::Fp64 => 7,
            Datatype::Bytes => 8,
            Datatype::Fp16 | Datatype::Bf16 => return None,
        };
        Some(List { number, name: LISTS[number as usize - 1] })
    }
}

/// The number of elements of each list, by the number of its field.
#[derive(Default)]
struct Counts {
    elements: [usize; LISTS.len() + 1],
    /// The bytes of texts.
    text_bytes: usize,
}

impl Counts {
    fn of(contents: &[Bytes]) -> Result<Self, Malformed> {
        let mut counts = Counts::default();
        for part in contents {
            for field in Fields::of(part) {
                let (number, value) = field?;
                let Some(elements) = counts.elements.get_mut(number as usize) else { continue };
                *elements += match (number, value) {
                    (8, Value::Bytes(text)) => {
                        counts.text_bytes += text.len();
                        1
                    }
                    (1..=5, Value::Varint(_)) | (6, Value::Fixed32(_)) | (7, Value::Fixed64(_)) => 1,
                    (1..=5, Value::Bytes(packed)) => packed.iter().filter(|byte| **byte < 0x80).count(),
                    (6, Value::Bytes(packed)) => packed.len() / 4,
                    (7, Value::Bytes(packed)) => packed.len() / 8,
                    _ => return Err(Malformed::WIRE_TYPE),
                };
            }
        }
        Ok(counts)
    }

    fn elements(&self, list: List) -> usize {
        self.elements[list.number as usize]
    }

    /// Returns the name of another list that has elements.
    fn other_than(&self, list: List) -> Option<&'static str> {
        let mut others = LISTS.iter().zip(&self.elements[1..]);
        others.find(|(name, count)| **name != list.name && **count > 0).map(|(name, _)| *name)
    }

    fn tensor_bytes(&self, datatype: Datatype) -> usize {
        match (datatype.size(), List::of(datatype)) {
            (Some(size), Some(list)) => size.saturating_mul(self.elements(list)),
            _ => 4 * self.elements[8] + self.text_bytes,
        }
    }
}

/// An element in the form of the wire.
enum Element<'a> {
    Varint(u64),
    /// Any number of elements, little-endian as in a tensor.
    Fixed(&'a [u8]),
    Text(&'a [u8]),
}

/// Calls `take` with the elements of a list, until it returns an error. The outer error is one of
/// the wire format.
fn each(
    contents: &[Bytes],
    list: u32,
    mut take: impl FnMut(Element<'_>) -> Result<()>,
) -> Result<Result<()>, Malformed> {
    for part in contents {
        for field in Fields::of(part) {
            let (number, value) = field?;
            if number != list {
                continue;
            }
            let taken = match (number, value) {
                (8, Value::Bytes(text)) => take(Element::Text(text)),
                (6 | 7, Value::Bytes(packed)) => take(Element::Fixed(packed)),
                (_, Value::Bytes(mut packed)) => {
                    let mut taken = Ok(());
                    while !packed.is_empty() && taken.is_ok() {
                        taken = take(Element::Varint(wire::varint(&mut packed)?));
                    }
                    taken
                }
                (_, Value::Varint(value)) => take(Element::Varint(value)),
                (_, Value::Fixed32(bytes)) => take(Element::Fixed(&bytes)),
                (_, Value::Fixed64(bytes)) => take(Element::Fixed(&bytes)),
                (_, Value::Group) => return Err(Malformed::WIRE_TYPE),
            };
            if taken.is_err() {
                return Ok(taken);
            }
        }
    }
    Ok(Ok(()))
}

/// Appends an element in the form of tensors. Integers of fewer than 32 bits have 32 bits on the
/// wire, so one can be too large.
fn put(datatype: Datatype, element: Element<'_>, data: &mut Vec<u8>) -> Result<()> {
    let value = match element {
        Element::Varint(value) => value,
        Element::Fixed(bytes) => {
            data.extend_from_slice(bytes);
            return Ok(());
        }
        Element::Text(text) => return append_element(data, text),
    };
    macro_rules! narrow {
        ($wire:ty, $rust:ty) => {{
            let value = value as $wire;
            let narrow = <$rust>::try_from(value).map_err(|_| {
                let index = data.len() / size_of::<$rust>();
                let name = datatype.as_str();
                Error::invalid(format!("element {index} is {value}, which {name} cannot hold"))
            })?;
            data.extend_from_slice(&narrow.to_le_bytes());
        }};
    }
    match datatype {
        Datatype::Bool => data.push(u8::from(value != 0)),
        Datatype::Int8 => narrow!(i32, i8),
        Datatype::Int16 => narrow!(i32, i16),
        Datatype::Int32 => data.extend_from_slice(&(value as i32).to_le_bytes()),
        Datatype::Uint8 => narrow!(u32, u8),
        Datatype::Uint16 => narrow!(u32, u16),
        Datatype::Uint32 => data.extend_from_slice(&(value as u32).to_le_bytes()),
        _ => data.extend_from_slice(&value.to_le_bytes()),
    }
    Ok(())
}

/// Returns the number of bytes that decoding must inspect: typed contents, and raw ones that are
/// checked.
pub(super) fn work_bytes(inputs: &[InferInputTensor], raw: &[Bytes]) -> usize {
    let typed = inputs.iter().flat_map(|input| &input.contents).map(Bytes::len);
    let checked = |(input, data): (&InferInputTensor, &Bytes)| match &*input.datatype {
        "BOOL" | "BYTES" => data.len(),
        _ => 0,
    };
    typed.sum::<usize>() + inputs.iter().zip(raw).map(checked).sum::<usize>()
}
