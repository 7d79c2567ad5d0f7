//! Computes from the bytes of a protobuf message how much memory it takes once it is built.
//!
//! prost allocates an element for each entry of a list and cannot count while it decodes: two bytes
//! on the wire can become hundreds in memory. The shapes of all messages are generated from
//! `inference.proto` when the host is built.

use super::wire::{Fields, Value};

/// The memory that a message and its parts take.
pub struct Shape {
    /// Bytes of one such message, without the heap.
    pub size: usize,
    /// By field number. Unlisted fields take no memory.
    pub fields: &'static [(u32, Field)],
}

/// What a field becomes.
pub enum Field {
    Text,
    Texts,
    /// The bytes are not copied; each entry of a list is a handle to them.
    Slices,
    /// Numbers of this many bytes in memory, and one to ten bytes each on the wire.
    Varints(usize),
    /// Numbers of this many bytes, in memory and on the wire.
    Fixed(usize),
    One(&'static Shape),
    Many(&'static Shape),
    /// A map, by the shape of its entries.
    Map(&'static Shape),
}

/// Messages whose memory is known.
pub trait Shaped {
    const SHAPE: &'static Shape;
}

/// A vector starts with room for four elements. While it grows it may have room for twice its
/// elements, beside the half that it grew from.
const LIST_FACTOR: usize = 4;

/// Nodes of a tree are half empty, and its entries are moved into a list afterwards.
const MAP_FACTOR: usize = 5;

/// Added for each allocation.
const ALLOCATION_BYTES: usize = 16;

/// Added for each field: a field without memory still takes time.
const FIELD_BYTES: usize = 16;

/// What a message may take, however short it is.
const FLOOR_BYTES: usize = 4 << 20;

/// Returns what a message of this length may take, if no other limit of a request applies.
pub fn allowance(length: usize) -> usize {
    length.saturating_mul(4).max(FLOOR_BYTES)
}

/// The message would take more memory than it may.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TooMuch;

/// Returns an upper bound of the bytes that building this message takes, or an error if they exceed
/// `max`. Counts a malformed message up to the place where prost stops.
pub fn of(shape: &Shape, message: &[u8], max: usize) -> Result<usize, TooMuch> {
    let mut left = max;
    match count(shape, message, &mut left) {
        Err(Stop::TooMuch) => Err(TooMuch),
        Ok(()) | Err(Stop::Malformed) => Ok(max - left),
    }
}

enum Stop {
    TooMuch,
    Malformed,
}

fn count(shape: &Shape, message: &[u8], left: &mut usize) -> Result<(), Stop> {
    for field in Fields::of(message) {
        let (number, value) = field.map_err(|_| Stop::Malformed)?;
        let known = shape.fields.iter().find(|(known, _)| *known == number).map(|(_, field)| field);
        let bytes = match (known, value) {
            (Some(Field::Text), Value::Bytes(text)) => text.len() + ALLOCATION_BYTES,
            (Some(Field::Texts), Value::Bytes(text)) => {
                LIST_FACTOR * size_of::<String>() + text.len() + ALLOCATION_BYTES
            }
            (Some(Field::Slices), Value::Bytes(_)) => LIST_FACTOR * size_of::<bytes::Bytes>(),
            (Some(Field::Varints(size)), Value::Bytes(packed)) => {
                LIST_FACTOR * size * packed.iter().filter(|byte| **byte < 0x80).count()
            }
            (Some(Field::Fixed(_)), Value::Bytes(packed)) => LIST_FACTOR * packed.len(),
            (Some(Field::Varints(size) | Field::Fixed(size)), _) => LIST_FACTOR * size,
            (Some(Field::Many(shape)), Value::Bytes(_)) => LIST_FACTOR * shape.size,
            (Some(Field::Map(entry)), Value::Bytes(_)) => MAP_FACTOR * entry.size,
            _ => 0,
        };
        *left = left.checked_sub(FIELD_BYTES + bytes).ok_or(Stop::TooMuch)?;
        if let (Some(Field::One(inner) | Field::Many(inner) | Field::Map(inner)), Value::Bytes(content)) =
            (known, value)
        {
            count(inner, content, left)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::inference::infer_parameter::ParameterChoice;
    use crate::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use crate::proto::inference::{
        InferParameter, InferTensorContents, LogSettingsRequest, ModelConfigResponse, ModelInferRequest,
        ModelMetadataResponse, RepositoryModelLoadRequest, TraceSettingRequest,
    };
    use prost::Message;
    use std::collections::BTreeMap;

    fn counted<M: Shaped>(message: &[u8]) -> usize {
        of(M::SHAPE, message, usize::MAX).unwrap()
    }

    #[test]
    fn lists_of_nothing_are_charged_for_what_they_become() {
        let count = 10_000;
        let repeated = |bytes: &[u8]| bytes.repeat(count);
        let inputs = counted::<ModelInferRequest>(&repeated(&[0x2a, 0]));
        assert!(inputs >= count * 2 * size_of::<InferInputTensor>(), "{inputs}");
        let outputs = counted::<ModelInferRequest>(&repeated(&[0x32, 0]));
        assert!(outputs >= count * 2 * size_of::<InferRequestedOutputTensor>(), "{outputs}");
        let raw = counted::<ModelInferRequest>(&repeated(&[0x3a, 0]));
        assert!(raw >= count * 2 * size_of::<bytes::Bytes>(), "{raw}");
        let traces = counted::<TraceSettingRequest>(&repeated(&[0x0a, 4, 0x12, 2, 0x0a, 0]));
        assert!(traces >= count * 2 * size_of::<String>(), "{traces}");
        let unknown = counted::<LogSettingsRequest>(&repeated(&[0x78, 0]));
        assert_eq!(unknown, count * FIELD_BYTES, "what takes no memory takes time");
        assert!(of(ModelInferRequest::SHAPE, &repeated(&[0x2a, 0]), inputs - 1).is_err());
    }

    #[test]
    fn a_tensor_of_raw_bytes_takes_next_to_nothing_more() {
        let input = InferInputTensor { shape: vec![1, 3, 224, 224], ..Default::default() };
        let raw_input_contents = vec![vec![7; 1 << 20].into()];
        let request = ModelInferRequest { inputs: vec![input], raw_input_contents, ..Default::default() };
        assert!(counted::<ModelInferRequest>(&request.encode_to_vec()) < 4096);
    }

    /// Returns the bytes that this request holds on the heap, including spare capacity.
    fn heap(request: &ModelInferRequest) -> usize {
        fn list<T>(list: &Vec<T>) -> usize {
            list.capacity() * size_of::<T>()
        }
        fn map(map: &BTreeMap<String, InferParameter>) -> usize {
            let entry = |(name, value): (&String, &InferParameter)| {
                let text = match &value.parameter_choice {
                    Some(ParameterChoice::StringParam(text)) => text.capacity(),
                    _ => 0,
                };
                size_of::<String>() + size_of::<InferParameter>() + name.capacity() + text
            };
            map.iter().map(entry).sum()
        }
        fn contents(contents: &InferTensorContents) -> usize {
            list(&contents.bool_contents)
                + list(&contents.int_contents)
                + list(&contents.int64_contents)
                + list(&contents.uint_contents)
                + list(&contents.uint64_contents)
                + list(&contents.fp32_contents)
                + list(&contents.fp64_contents)
                + list(&contents.bytes_contents)
        }
        let input = |input: &InferInputTensor| {
            input.name.capacity()
                + input.datatype.capacity()
                + list(&input.shape)
                + map(&input.parameters)
                + input.contents.as_ref().map_or(0, contents)
        };
        let output = |output: &InferRequestedOutputTensor| output.name.capacity() + map(&output.parameters);
        request.model_name.capacity()
            + request.model_version.capacity()
            + request.id.capacity()
            + map(&request.parameters)
            + list(&request.inputs)
            + request.inputs.iter().map(input).sum::<usize>()
            + list(&request.outputs)
            + request.outputs.iter().map(output).sum::<usize>()
            + list(&request.raw_input_contents)
    }

    /// Generates bytes that are likely to be a valid message: existing fields with plausible
    /// contents.
    fn message(random: &mut fastrand::Rng, shape: &Shape, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let (number, field) = &shape.fields[random.usize(..shape.fields.len())];
            let mut content = match field {
                Field::One(inner) | Field::Many(inner) | Field::Map(inner) => {
                    let length = random.usize(..=length / 2);
                    message(random, inner, length)
                }
                _ => (0..random.usize(..9)).map(|_| random.u8(..128)).collect(),
            };
            if matches!(field, Field::Fixed(_)) {
                content.truncate(content.len() / 8 * 8);
            }
            for _ in 0..random.usize(1..6) {
                prost::encoding::encode_varint((u64::from(*number) << 3) | 2, &mut bytes);
                prost::encoding::encode_varint(content.len() as u64, &mut bytes);
                bytes.extend_from_slice(&content);
            }
        }
        bytes
    }

    #[test]
    fn never_less_is_counted_than_is_built() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut built, mut broken) = (0, 0);
        for round in 0..20_000 {
            let length = random.usize(..400);
            let mut bytes = match round % 4 {
                0 => (0..length).map(|_| random.u8(..)).collect(),
                _ => message(&mut random, ModelInferRequest::SHAPE, length),
            };
            if round % 4 == 3 && !bytes.is_empty() {
                for _ in 0..random.usize(1..4) {
                    let place = random.usize(..bytes.len());
                    bytes[place] = random.u8(..);
                }
            }
            let counted = counted::<ModelInferRequest>(&bytes);
            // What was built before the fault counts as well.
            let mut request = ModelInferRequest::default();
            match request.merge(&mut &bytes[..]) {
                Ok(()) => built += 1,
                Err(_) => broken += 1,
            }
            // prost may build a text that exceeds its message before it detects that.
            let slack = if broken > 0 { bytes.len() } else { 0 };
            let heap = heap(&request);
            assert!(counted + slack >= heap, "{counted} for {heap}: {bytes:?}");
            for max in [0, counted / 2, counted] {
                assert_eq!(of(ModelInferRequest::SHAPE, &bytes, max).is_ok(), max >= counted);
            }
            counted_without_panic(&bytes);
        }
        assert!(built > 5_000 && broken > 5_000, "{built} built, {broken} broken");
    }

    fn counted_without_panic(bytes: &[u8]) {
        counted::<RepositoryModelLoadRequest>(bytes);
        counted::<ModelMetadataResponse>(bytes);
        counted::<ModelConfigResponse>(bytes);
    }
}
