//! The contents of tensors: raw bytes beside the inputs of a message, or typed lists within them.

use super::message::InferInputTensor;
use crate::error::{Error, Result};
use crate::predict::walk::shown;
use crate::predict::{Datatype, MemoryBudget, Shape, Tensor, append_element, element_count, format_shape};
use crate::proto::wire::{self, Fields, Malformed, Value};
use crate::server::oip::phrases::InputOf;
use bytes::Bytes;

/// Pairs each input of a request for `model` with its contents.
pub(super) fn decode(
    model: &str,
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
    budget: &mut MemoryBudget,
) -> Result<Vec<Tensor>> {
    if raw.is_empty() {
        return inputs.into_iter().map(|input| typed(model, input, budget)).collect();
    }
    let (given, wanted) = (raw.len(), inputs.len());
    if let Some(input) = inputs.iter().find(|input| !input.contents.is_empty()) {
        let phrase = "contents field must not be specified when using raw_input_contents for";
        let message = "it has contents, and there are raw_input_contents as well; send one of them";
        return Err(fault(
            input,
            format!("{message}: {phrase} '{}' for model '{model}'", shown(&input.name)),
        ));
    }
    if let Some(input) = inputs.get(given) {
        let message = format!("no raw contents: there are {given} for {wanted} inputs");
        return Err(of(model, input, datatype(input)?).no_data(at(input, message)));
    }
    if given > wanted {
        let last = inputs
            .last()
            .map_or_else(String::new, |input| format!(", the last of which is \"{}\"", input.name));
        let message = format!("raw_input_contents has {given} entries for {wanted} inputs{last}");
        return Err(Error::invalid(message).field("raw_input_contents"));
    }
    let one = |(input, data): (InferInputTensor, Bytes)| {
        let datatype = datatype(&input)?;
        let facts = InputOf::facts(datatype, &data);
        tensor(&input, datatype, data).map_err(|error| of(model, &input, datatype).wrong_data(error, &facts))
    };
    inputs.into_iter().zip(raw).map(one).collect()
}

fn of<'a>(model: &'a str, input: &'a InferInputTensor, datatype: Datatype) -> InputOf<'a> {
    InputOf { model, name: &input.name, datatype, shape: &input.shape }
}

/// Puts the name of an input before a message.
fn at(input: &InferInputTensor, what: impl std::fmt::Display) -> String {
    format!("input \"{}\": {what}", shown(&input.name))
}

fn fault(input: &InferInputTensor, what: impl std::fmt::Display) -> Error {
    Error::invalid(at(input, what)).field(&*input.name)
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
fn typed(model: &str, input: InferInputTensor, budget: &mut MemoryBudget) -> Result<Tensor> {
    let datatype = datatype(&input)?;
    let list = List::of(datatype).ok_or_else(|| {
        fault(&input, format!("{} has no typed contents; send it in raw_input_contents", datatype.as_str()))
    })?;
    let unreadable = |error: Malformed| fault(&input, format!("its contents cannot be read: {error}"));
    let counts = Counts::of(&input.contents).map_err(unreadable)?;
    let given = counts.elements(list);
    if let Some(other) = counts.other_than(list) {
        let error =
            fault(&input, format!("{} is sent in {}, not in {}", datatype.as_str(), list.name, other.name));
        return Err(unexpected_contents(model, &input, datatype, error, other, given > 0));
    }
    let wanted = element_count(&input.shape).map_err(|error| fault(&input, error))?;
    if given != wanted {
        let (shape, list) = (format_shape(&input.shape), list.name);
        let message =
            at(&input, format_args!("shape {shape} needs {wanted} elements in {list}, got {given}"));
        let input = of(model, &input, datatype);
        return Err(match given {
            0 => input.no_data(message),
            _ => input.wrong_elements(Error::invalid(message), given),
        });
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

/// Adds to an error for contents in the list of another datatype how clients recognize it.
fn unexpected_contents(
    model: &str,
    input: &InferInputTensor,
    datatype: Datatype,
    error: Error,
    other: List,
    is_second: bool,
) -> Error {
    let name = shown(&input.name);
    let what = format!("unexpected explicit tensor data for input tensor '{name}' for model '{model}'");
    let input = of(model, input, datatype);
    match is_second {
        true => input.add(error, format_args!("{what}, binary data was already supplied.")),
        false => {
            let (other, expected) = (other.datatype.as_str(), datatype.as_str());
            input.add(error, format_args!("{what} of type '{other}', expected datatype '{expected}'"))
        }
    }
}

/// A list of `InferTensorContents`.
#[derive(Clone, Copy, PartialEq)]
struct List {
    number: u32,
    name: &'static str,
    /// The datatype that it is named after.
    datatype: Datatype,
}

const LISTS: [List; 8] = [
    List { number: 1, name: "bool_contents", datatype: Datatype::Bool },
    List { number: 2, name: "int_contents", datatype: Datatype::Int32 },
    List { number: 3, name: "int64_contents", datatype: Datatype::Int64 },
    List { number: 4, name: "uint_contents", datatype: Datatype::Uint32 },
    List { number: 5, name: "uint64_contents", datatype: Datatype::Uint64 },
    List { number: 6, name: "fp32_contents", datatype: Datatype::Fp32 },
    List { number: 7, name: "fp64_contents", datatype: Datatype::Fp64 },
    List { number: 8, name: "bytes_contents", datatype: Datatype::Bytes },
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
        Some(LISTS[number as usize - 1])
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

    /// Returns another list that has elements.
    fn other_than(&self, list: List) -> Option<List> {
        LISTS.into_iter().find(|other| *other != list && self.elements(*other) > 0)
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
