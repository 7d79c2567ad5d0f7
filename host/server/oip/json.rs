//! Inference requests and responses over HTTP: JSON, with tensors in it or behind it.

use super::binary::Tail;
use super::infer::{self, InferRequest, InferResponse, RequestedOutput, check_tensor_parameter};
use crate::error::{Error, Result};
use crate::predict::{
    self, Datatype, JsonLimits, Parameter, Parameters, Shape, Tensor, TensorSpec, encode_tensor,
};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

const BINARY_DATA: &str = "binary_data";
const BINARY_DATA_OUTPUT: &str = "binary_data_output";
const BINARY_DATA_SIZE: &str = "binary_data_size";

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    parameters: Fields<'a>,
    #[serde(borrow)]
    inputs: SmallVec<[Input<'a>; 4]>,
    #[serde(borrow)]
    outputs: Option<SmallVec<[Output<'a>; 4]>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Shape,
    #[serde(borrow, default)]
    parameters: Fields<'a>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    parameters: Fields<'a>,
}

/// Which outputs a caller wants behind the JSON.
pub(super) struct Form<'a> {
    binary: bool,
    named: SmallVec<[(Cow<'a, str>, bool); 4]>,
}

impl Form<'_> {
    /// All outputs behind the JSON.
    pub fn binary() -> Self {
        Form { binary: true, named: SmallVec::new() }
    }

    fn is_binary(&self, output: &str) -> bool {
        let named = self.named.iter().find(|(name, _)| name == output);
        named.map_or(self.binary, |(_, binary)| *binary)
    }
}

/// Reads the JSON of a request, and its tensors in `tail`.
pub(super) fn decode(head: &[u8], mut tail: Tail, limits: JsonLimits) -> Result<(InferRequest, Form<'_>)> {
    let request: Request<'_> = super::parse_object(head, "the body is not an inference request")?;
    let inputs = request.inputs.iter().map(|input| input.decode(&mut tail, limits)).collect::<Result<_>>()?;
    tail.end()?;
    let mut parameters = request.parameters.into_parameters()?;
    let mut form = Form {
        binary: take_flag(&mut parameters, BINARY_DATA_OUTPUT)?.unwrap_or(false),
        named: SmallVec::new(),
    };
    let mut outputs = Vec::with_capacity(request.outputs.as_ref().map_or(0, |outputs| outputs.len()));
    for output in request.outputs.into_iter().flatten() {
        let mut parameters = output.parameters.into_parameters()?;
        let binary = take_flag(&mut parameters, BINARY_DATA)
            .map_err(|error| error.context(format!("output \"{}\"", output.name)))?;
        outputs.push(RequestedOutput { name: (*output.name).to_owned(), parameters });
        form.named.extend(binary.map(|binary| (output.name, binary)));
    }
    let id = request.id.map(Cow::into_owned);
    Ok((InferRequest { id, parameters, inputs, outputs }, form))
}

impl Input<'_> {
    fn decode(&self, tail: &mut Tail, limits: JsonLimits) -> Result<Tensor> {
        let name = &*self.name;
        let fault = |message: String| Error::invalid(format!("input \"{name}\": {message}")).field(name);
        let datatype = Datatype::parse(&self.datatype).ok_or_else(|| {
            let known = Datatype::ALL.map(Datatype::as_str);
            let hint = crate::error::did_you_mean(&self.datatype, known);
            fault(format!("no datatype \"{}\"{hint}", self.datatype))
        })?;
        let mut size = None;
        for (parameter, value) in &self.parameters.0 {
            check_tensor_parameter(format_args!("input \"{name}\""), parameter)?;
            if parameter == BINARY_DATA_SIZE {
                let bytes = value.as_u64().and_then(|bytes| usize::try_from(bytes).ok());
                size = Some(bytes.ok_or_else(|| {
                    fault(format!("{BINARY_DATA_SIZE} is {value}; it is a number of bytes"))
                })?);
            }
        }
        match (size, self.data) {
            (Some(size), None) => {
                let data = tail.take(size).map_err(|error| error.context(format!("input \"{name}\"")))?;
                Tensor::new(name, datatype, self.shape.clone(), data).map_err(|error| error.field(name))
            }
            (Some(_), Some(_)) => Err(fault(format!("it has both data and {BINARY_DATA_SIZE}"))),
            (None, Some(data)) => {
                let spec =
                    TensorSpec { name: name.into(), datatype, shape: self.shape.clone(), optional: false };
                predict::decode_tensor(&spec, data.get(), Some(&self.shape), limits)
            }
            (None, None) => Err(fault("it has no data".into())),
        }
    }
}

/// Takes a parameter that says yes or no.
fn take_flag(parameters: &mut Parameters, wanted: &str) -> Result<Option<bool>> {
    let Some(place) = parameters.iter().position(|(name, _)| name == wanted) else { return Ok(None) };
    match parameters.remove(place).1 {
        Parameter::Boolean(value) => Ok(Some(value)),
        value => {
            let value = infer::shown(&value);
            Err(Error::invalid(format!("parameter \"{wanted}\" is {value}; it is true or false"))
                .field(format!("parameters.{wanted}")))
        }
    }
}

/// Parameters in the order sent.
#[derive(Default)]
pub(super) struct Fields<'a>(SmallVec<[(Cow<'a, str>, Value); 1]>);

impl Fields<'_> {
    pub fn into_parameters(self) -> Result<Parameters> {
        let fields = self.0.into_iter();
        fields
            .map(|(name, value)| {
                let value = predict::parameter(&name, &value)?;
                Ok((name.into_owned(), value))
            })
            .collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Reader<'a> {
            type Value = Fields<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }

            fn visit_unit<E>(self) -> std::result::Result<Fields<'a>, E> {
                Ok(Fields::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Fields<'a>, A::Error> {
                let mut fields = Fields::default();
                while let Some((Name(name), value)) = map.next_entry()? {
                    fields.0.push((name, value));
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_any(Reader(PhantomData))
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The JSON of a response, and the tensors that go behind it.
pub(super) fn encode(response: &InferResponse, form: &Form<'_>) -> Result<(Vec<u8>, SmallVec<[Bytes; 4]>)> {
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
        if form.is_binary(tensor.name()) {
            out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            serde_json::to_writer(&mut out, &tensor.data().len()).expect("invariant: writing to memory");
            out.extend_from_slice(b"}}");
            tail.push(tensor.data().clone());
        } else {
            out.extend_from_slice(b",\"data\":");
            encode_tensor(tensor, true, &mut out).map_err(unsayable)?;
            out.push(b'}');
        }
    }
    out.extend_from_slice(b"]}");
    Ok((out, tail))
}

/// `{"model_name", "model_version", "id", "parameters"`
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

/// The caller chose a form that this answer does not fit, and can choose the other.
fn unsayable(error: Error) -> Error {
    let mend = "ask for this output with the parameter \"binary_data\": true";
    Error::new(error.kind(), format!("{}; {mend}", error.message()))
}

pub(super) fn text(out: &mut Vec<u8>, before: &[u8], value: &str) {
    out.extend_from_slice(before);
    serde_json::to_writer(out, value).expect("invariant: writing to memory");
}
