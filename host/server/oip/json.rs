//! Inference requests and responses over HTTP: JSON, with tensors in it or behind it.

use super::binary::Tail;
use super::fields::{Dimensions, Fields, FieldsReader, InputParameters, OutputParameters, take_flag};
use super::json_object::parse_with;
use super::parameters::{check_tensor_parameter, request_id};
use super::phrases::InputOf;
use super::request::{InferRequest, InferResponse, RequestedOutput};
use crate::error::{Error, Result};
use crate::predict::walk::{EachItem, Name, ObjectOf, shown};
use crate::predict::{
    self, Datatype, MemoryBudget, Parameter, Parameters, Scalar, ShapeSpec, Tensor, TensorSpec, encode_tensor,
};
use crate::server::http::body_text::BodyText;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;

const BINARY_DATA_OUTPUT: &str = "binary_data_output";
const BINARY_DATA_SIZE: &str = "binary_data_size";

/// A parsed body. The data of its tensors are still text.
#[derive(Default)]
struct Request<'a> {
    id: Option<String>,
    parameters: Parameters,
    inputs: SmallVec<[Input<'a>; 4]>,
    outputs: SmallVec<[Output<'a>; 4]>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Dimensions,
    #[serde(borrow, default)]
    parameters: Fields<InputParameters<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    parameters: Fields<OutputParameters<'a>>,
}

/// Bytes that an input or an output takes besides its data and its texts, both parsed and as a
/// tensor.
const TENSOR_BYTES: usize = 3 * size_of::<Input<'_>>() + 2 * size_of::<Tensor>();

/// Which outputs the client wants as binary data after the JSON.
pub(super) struct BinaryOutputs {
    /// The default.
    binary: bool,
    /// By the names of outputs.
    named: SmallVec<[(BodyText, bool); 4]>,
}

impl BinaryOutputs {
    /// All outputs are binary.
    pub fn all() -> Self {
        BinaryOutputs { binary: true, named: SmallVec::new() }
    }

    /// Creates it from the default and from what was requested by name.
    pub fn of(binary: bool, named: impl Iterator<Item = (String, bool)>) -> Self {
        let named = named.map(|(name, binary)| (BodyText::of(&Bytes::new(), Cow::Owned(name)), binary));
        BinaryOutputs { binary, named: named.collect() }
    }

    /// Returns the default, and what was requested by name.
    pub fn parts(&self) -> (bool, impl Iterator<Item = (&str, bool)>) {
        (self.binary, self.named.iter().map(|(name, binary)| (&**name, *binary)))
    }

    fn contains(&self, output: &str) -> bool {
        let named = self.named.iter().find(|(name, _)| **name == *output);
        named.map_or(self.binary, |(_, binary)| *binary)
    }
}

/// Decodes the JSON of a request for `model`, and its binary tensors in `tail`.
pub(super) fn decode(
    model: &str,
    head: &Bytes,
    mut tail: Tail,
    mut budget: MemoryBudget,
) -> Result<(InferRequest, BinaryOutputs)> {
    let request = read(head, &mut budget)?;
    let decoded = request.inputs.iter().map(|input| input.decode(model, &mut tail, &mut budget));
    let inputs: Vec<Tensor> = decoded.collect::<Result<_>>()?;
    tail.end()?;
    let mut parameters = request.parameters;
    let mut binary_outputs = BinaryOutputs {
        binary: take_flag(&mut parameters, BINARY_DATA_OUTPUT)?.unwrap_or(false),
        named: SmallVec::new(),
    };
    let mut outputs = Vec::with_capacity(request.outputs.len());
    for Output { name, parameters: Fields(parameters) } in request.outputs {
        let (binary, parameters) =
            parameters.read().map_err(|error| error.context(format!("output \"{}\"", shown(&name))))?;
        outputs.push(RequestedOutput { name: (*name).to_owned(), parameters });
        binary_outputs.named.extend(binary.map(|binary| (BodyText::of(head, name), binary)));
    }
    Ok((InferRequest { id: request.id, parameters, inputs, outputs }, binary_outputs))
}

fn read<'a>(head: &'a [u8], budget: &mut MemoryBudget) -> Result<Request<'a>> {
    let mut stopped = None;
    let what = "the body is not an inference request";
    let read = parse_with(head, what, RequestReader { budget, stopped: &mut stopped });
    match stopped {
        Some(error) => Err(error),
        None => read,
    }
}

/// Parses a request and charges its parts as they are read. If the budget is exceeded, the error is
/// left in `stopped`.
struct RequestReader<'b> {
    budget: &'b mut MemoryBudget,
    stopped: &'b mut Option<Error>,
}

impl<'de> DeserializeSeed<'de> for RequestReader<'_> {
    type Value = Request<'de>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Request<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RequestReader<'_> {
    type Value = Request<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Request<'de>, A::Error> {
        let RequestReader { budget, stopped } = self;
        let mut request = Request::default();
        let mut seen = [false; 4];
        while let Some(Name(name)) = map.next_key()? {
            let Some(index) = FIELDS.iter().position(|field| *field == name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if std::mem::replace(&mut seen[index], true) {
                return Err(A::Error::duplicate_field(FIELDS[index]));
            }
            match FIELDS[index] {
                // `null` counts as a missing field.
                "id" => match map.next_value::<Option<Scalar<'_>>>()?.map(request_id) {
                    Some(Err(error)) => {
                        *stopped = Some(error);
                        return Err(A::Error::custom("stopped"));
                    }
                    id => request.id = id.and_then(Result::ok).flatten(),
                },
                "parameters" => {
                    let fields = FieldsReader { budget: &mut *budget, stopped: &mut *stopped };
                    request.parameters = map.next_value_seed(fields)?;
                }
                "inputs" => {
                    let take = |ObjectOf(input): ObjectOf<Input<'de>>| {
                        let texts = input.name.len() + input.datatype.len();
                        budget.charge(TENSOR_BYTES + 2 * texts, "inputs")?;
                        request.inputs.push(input);
                        Ok(())
                    };
                    map.next_value_seed(EachItem::new(stopped, take))?;
                }
                _ => {
                    let take = |ObjectOf(output): ObjectOf<Output<'de>>| {
                        budget.charge(TENSOR_BYTES + 2 * output.name.len(), "outputs")?;
                        request.outputs.push(output);
                        Ok(())
                    };
                    // `null` counts as a missing field.
                    map.next_value_seed(EachItem::new(stopped, take).or_null())?;
                }
            }
        }
        if seen[INPUTS] { Ok(request) } else { Err(A::Error::missing_field(FIELDS[INPUTS])) }
    }
}

const FIELDS: [&str; 4] = ["id", "parameters", "inputs", "outputs"];
const INPUTS: usize = 2;

impl Input<'_> {
    fn decode(&self, model: &str, tail: &mut Tail, budget: &mut MemoryBudget) -> Result<Tensor> {
        let name = &*self.name;
        let fault =
            |message: String| Error::invalid(format!("input \"{}\": {message}", shown(name))).field(name);
        let datatype = Datatype::parse(&self.datatype).ok_or_else(|| {
            let known = Datatype::ALL.map(Datatype::as_str);
            let hint = crate::error::did_you_mean(&self.datatype, known);
            fault(format!("no datatype \"{}\"{hint}", shown(&self.datatype)))
        })?;
        let shape =
            self.shape.checked().map_err(|error| error.context(format!("input \"{name}\"")).field(name))?;
        let Fields(InputParameters { binary_data_size, shared_memory }) = &self.parameters;
        if let Some(parameter) = shared_memory {
            check_tensor_parameter(format_args!("input \"{}\"", shown(name)), parameter)?;
        }
        let size = match binary_data_size {
            None => None,
            Some(value) => {
                let bytes = value.as_u64().and_then(|bytes| usize::try_from(bytes).ok());
                Some(bytes.ok_or_else(|| {
                    fault(format!("{BINARY_DATA_SIZE} is {value}; it is a number of bytes"))
                })?)
            }
        };
        match (size, self.data) {
            (Some(size), None) => {
                let data = tail.take(size).map_err(|error| error.context(format!("input \"{name}\"")))?;
                let facts = InputOf::facts(datatype, &data);
                let tensor = Tensor::new(name, datatype, shape, data);
                tensor.map(|tensor| tensor.part_of(tail.body)).map_err(|error| {
                    let shape = self.shape.checked().unwrap_or_default();
                    InputOf { model, name, datatype, shape: &shape }.wrong_data(error.field(name), &facts)
                })
            }
            (Some(_), Some(_)) => Err(fault(format!("it has both data and {BINARY_DATA_SIZE}"))),
            (None, Some(data)) => {
                let rank = ShapeSpec::AnyRank;
                let spec = TensorSpec { name: name.into(), datatype, shape: rank, optional: false };
                let decoded = predict::decode_tensor(&spec, data.get(), Some(&shape), budget);
                decoded.map_err(|error| match datatype {
                    // Read again without the shape, to say how many texts there are.
                    Datatype::Bytes => match predict::decode_tensor(&spec, data.get(), None, budget) {
                        Ok(tensor) => InputOf { model, name, datatype, shape: &shape }
                            .wrong_elements(error, tensor.count()),
                        Err(_) => error,
                    },
                    _ => error,
                })
            }
            (None, None) => Err(fault("it has no data".into())),
        }
    }
}

/// Estimates the bytes of the JSON of a response.
pub(super) fn text_bytes(response: &InferResponse, binary_outputs: &BinaryOutputs) -> usize {
    let written = response.outputs.iter().filter(|tensor| !binary_outputs.contains(tensor.name()));
    // A number has about ten digits in place of four bytes.
    written.map(|tensor| 3 * tensor.data().len()).sum()
}

/// Encodes a response. Returns its JSON and the tensors that follow it.
pub(super) fn encode(
    response: &InferResponse,
    binary_outputs: &BinaryOutputs,
) -> Result<(Vec<u8>, SmallVec<[Bytes; 4]>)> {
    let mut out = Vec::with_capacity(256);
    let mut tail = SmallVec::new();
    begin(&mut out, response);
    out.extend_from_slice(b",\"outputs\":[");
    for (index, tensor) in response.outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        text(&mut out, b"{\"name\":", tensor.name());
        text(&mut out, b",\"datatype\":", tensor.datatype().as_str());
        out.extend_from_slice(b",\"shape\":");
        serde_json::to_writer(&mut out, tensor.shape()).expect("invariant: writing to memory");
        if binary_outputs.contains(tensor.name()) {
            out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            serde_json::to_writer(&mut out, &tensor.data().len()).expect("invariant: writing to memory");
            out.extend_from_slice(b"}}");
            tail.push(tensor.data().clone());
        } else {
            out.extend_from_slice(b",\"data\":");
            encode_tensor(tensor, true, &mut out).map_err(not_encodable)?;
            out.push(b'}');
        }
    }
    out.extend_from_slice(b"]}");
    Ok((out, tail))
}

/// Writes `{"model_name", "model_version", "id", "parameters"`, without the end of the object.
pub(super) fn begin(out: &mut Vec<u8>, response: &InferResponse) {
    text(out, b"{\"model_name\":", &response.route.name.name);
    text(out, b",\"model_version\":", &response.route.name.version);
    if let Some(id) = &response.id {
        text(out, b",\"id\":", id);
    }
    for (index, (name, value)) in response.parameters.iter().enumerate() {
        text(out, if index == 0 { b",\"parameters\":{" } else { b"," }, name);
        out.push(b':');
        let value = match value {
            Parameter::Boolean(value) => Value::from(*value),
            Parameter::Integer(value) => Value::from(*value),
            Parameter::Number(value) => Value::from(*value),
            Parameter::Text(value) => Value::from(value.as_str()),
        };
        serde_json::to_writer(&mut *out, &value).expect("invariant: writing to memory");
    }
    if !response.parameters.is_empty() {
        out.push(b'}');
    }
}

/// Adds a hint to an error: the client chose a form that cannot hold this response, and can choose
/// the other.
fn not_encodable(error: Error) -> Error {
    let hint = "ask for this output with the parameter \"binary_data\": true";
    Error::new(error.kind(), format!("{}; {hint}", error.message()))
}

/// Writes `before` and a JSON string.
pub(super) fn text(out: &mut Vec<u8>, before: &[u8], value: &str) {
    out.extend_from_slice(before);
    serde_json::to_writer(out, value).expect("invariant: writing to memory");
}
