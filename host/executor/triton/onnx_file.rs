//! Compares the inputs and outputs of an ONNX file with those of a remote model.
//!
//! Reads only the few fields of ONNX's protobuf schema that describe them: it needs no runtime,
//! keeps no weights, and bounds what a hostile file can make it allocate.

use crate::error::{Error, Result};
use crate::executor::source::ReferenceFile;
use crate::predict::{Datatype, Metadata, Shape, ShapeSpec, TensorSpec};
use crate::proto::wire::{Fields, Value as Content};
use prost::Message;

/// The maximum number of inputs and outputs, and of bytes that describe one of them.
const VALUES_MAX: usize = 1 << 16;
const VALUE_BYTES_MAX: usize = 1 << 16;

/// The inputs and outputs of a graph.
#[derive(Default)]
struct Graph {
    inputs: Vec<Value>,
    outputs: Vec<Value>,
}

impl Graph {
    /// Reads the main graph of a model, without the inputs that have a default. Returns `None` if
    /// the bytes are not an ONNX model.
    fn of(model: &[u8]) -> Option<Graph> {
        let (mut graph, mut found) = (Graph::default(), false);
        for field in Fields::of(model) {
            let (7, Content::Bytes(message)) = field.ok()? else { continue };
            found = true;
            for field in Fields::of(message) {
                let (values, value) = match field.ok()? {
                    (11, Content::Bytes(value)) => (&mut graph.inputs, value),
                    (12, Content::Bytes(value)) => (&mut graph.outputs, value),
                    _ => continue,
                };
                if values.len() == VALUES_MAX || value.len() > VALUE_BYTES_MAX {
                    return None;
                }
                values.push(Value::decode(value).ok()?);
            }
            let defaults = Fields::of(message).filter_map(|field| match field {
                Ok((5, Content::Bytes(tensor))) => name_of(tensor),
                _ => None,
            });
            let defaults: std::collections::HashSet<&[u8]> = defaults.collect();
            graph.inputs.retain(|value| !defaults.contains(value.name.as_bytes()));
        }
        found.then_some(graph)
    }
}

fn name_of(tensor: &[u8]) -> Option<&[u8]> {
    let names = Fields::of(tensor).filter_map(|field| match field {
        Ok((8, Content::Bytes(name))) => Some(name),
        _ => None,
    });
    names.last()
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Dimensions>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimensions {
    #[prost(message, repeated, tag = "1")]
    dimensions: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    /// `None` for a free dimension, which may have a name instead.
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
}

/// Fails if the remote model has other inputs or outputs than the file. A dimension that is free in
/// one of them matches every size in the other.
pub(super) fn compare(reference: &ReferenceFile, there: &str, remote: &Metadata) -> Result<()> {
    let file = reference.path.display();
    let graph = Graph::of(&reference.bytes);
    let graph = graph.ok_or_else(|| Error::invalid(format!("{file} is not an ONNX model")))?;
    let fault = difference("input", &graph.inputs, &remote.inputs)
        .or_else(|| difference("output", &graph.outputs, &remote.outputs));
    match fault {
        None => Ok(()),
        Some(fault) => Err(Error::invalid(format!(
            "{there} differs from the file {file}: {fault}; make them the same, or remove path or remote"
        ))),
    }
}

fn difference(what: &str, here: &[Value], there: &[TensorSpec]) -> Option<String> {
    for value in here {
        let name = &value.name;
        let Some(spec) = there.iter().find(|spec| *spec.name == *name) else {
            return Some(format!("the file's {what} \"{name}\" is missing in the remote model"));
        };
        let Some(tensor) = value.kind.as_ref().and_then(|kind| kind.tensor.as_ref()) else {
            return Some(format!("the file's {what} \"{name}\" is not a tensor"));
        };
        if !fits(tensor, spec) {
            let (ours, theirs, datatype) = (shown(tensor), &spec.shape, spec.datatype.as_str());
            return Some(format!(
                "{what} \"{name}\" is {ours} in the file, but {datatype} {theirs} in the remote model"
            ));
        }
    }
    let more =
        there.iter().find(|spec| !spec.optional && !here.iter().any(|value| *value.name == *spec.name));
    more.map(|spec| format!("the remote model's {what} \"{}\" is missing in the file", spec.name))
}

fn fits(tensor: &TensorType, spec: &TensorSpec) -> bool {
    let ours = shape(tensor);
    let same_shape = ours.may_fit(&spec.shape) || spec.shape.may_fit(&ours);
    datatype(tensor.element) == Some(spec.datatype) && same_shape
}

fn shape(tensor: &TensorType) -> ShapeSpec {
    let Some(Dimensions { dimensions }) = &tensor.shape else { return ShapeSpec::AnyRank };
    dimensions.iter().map(|dimension| dimension.value.unwrap_or(-1)).collect::<Shape>().into()
}

fn shown(tensor: &TensorType) -> String {
    let datatype = datatype(tensor.element).map_or("of an unknown type", Datatype::as_str);
    format!("{datatype} {}", shape(tensor))
}

/// `TensorProto.DataType`
fn datatype(element: i32) -> Option<Datatype> {
    Some(match element {
        1 => Datatype::Fp32,
        2 => Datatype::Uint8,
        3 => Datatype::Int8,
        4 => Datatype::Uint16,
        5 => Datatype::Int16,
        6 => Datatype::Int32,
        7 => Datatype::Int64,
        8 => Datatype::Bytes,
        9 => Datatype::Bool,
        10 => Datatype::Fp16,
        11 => Datatype::Fp64,
        12 => Datatype::Uint32,
        13 => Datatype::Uint64,
        16 => Datatype::Bf16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct WrittenModel {
        #[prost(message, optional, tag = "7")]
        graph: Option<WrittenGraph>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct WrittenGraph {
        #[prost(message, repeated, tag = "5")]
        initializers: Vec<Named>,
        #[prost(message, repeated, tag = "11")]
        inputs: Vec<Value>,
        #[prost(message, repeated, tag = "12")]
        outputs: Vec<Value>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(string, tag = "8")]
        name: String,
    }

    fn model(element: i32, dimensions: &[Option<i64>]) -> ReferenceFile {
        let dimensions = dimensions.iter().map(|&value| Dimension { value }).collect();
        let tensor = TensorType { element, shape: Some(Dimensions { dimensions }) };
        let value =
            |name: &str| Value { name: name.into(), kind: Some(Type { tensor: Some(tensor.clone()) }) };
        let inputs = vec![value("x"), value("weights")];
        let initializers = vec![Named { name: "weights".into() }];
        let graph = WrittenGraph { initializers, inputs, outputs: vec![value("y")] };
        let bytes = WrittenModel { graph: Some(graph) }.encode_to_vec().into();
        ReferenceFile { path: "m.onnx".into(), bytes }
    }

    fn remote(shape: &[i64]) -> Metadata {
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: shape.into(),
            optional: false,
        };
        Metadata { inputs: vec![spec("x")], outputs: vec![spec("y")], ..Metadata::default() }
    }

    #[test]
    fn equal_models_pass_and_others_are_named() {
        let same = model(1, &[None, Some(18)]);
        assert!(compare(&same, "there", &remote(&[-1, 18])).is_ok());
        assert!(compare(&same, "there", &remote(&[4, -1])).is_ok(), "free dimensions fit");
        for (reference, shape, part) in [
            (
                model(1, &[None, Some(18)]),
                &[-1, 19][..],
                "input \"x\" is FP32 [-1,18] in the file, but FP32 [-1,19] in the remote model",
            ),
            (model(1, &[None]), &[-1, 18], "FP32 [-1] in the file"),
            (model(7, &[None, Some(18)]), &[-1, 18], "INT64 [-1,18] in the file"),
        ] {
            let error = compare(&reference, "the model \"m\"", &remote(shape)).unwrap_err();
            for part in ["the model \"m\" differs from the file m.onnx", part] {
                assert!(error.message().contains(part), "{error}\nlacks {part}");
            }
        }
        let inputs = vec![Value::default(); VALUES_MAX + 1];
        let graph = WrittenGraph { inputs, ..WrittenGraph::default() };
        let many = WrittenModel { graph: Some(graph) }.encode_to_vec().into();
        for bytes in [many, b"hello".as_slice().into(), bytes::Bytes::new()] {
            let error =
                compare(&ReferenceFile { path: "m.onnx".into(), bytes }, "there", &remote(&[1])).unwrap_err();
            assert!(error.message().contains("m.onnx is not an ONNX model"), "{error}");
        }
        let mut more = remote(&[-1, 18]);
        more.outputs[0].name = "z".into();
        let error = compare(&same, "there", &more).unwrap_err();
        assert!(
            error.message().contains("the file's output \"y\" is missing in the remote model"),
            "{error}"
        );
    }
}
