//! Inference requests and responses in JSON.

use super::infer::{InferRequest, InferResponse, RequestedOutput};
use crate::error::{Error, Result};
use crate::predict::{self, Datatype, JsonLimits, Parameters, Shape, Tensor, TensorSpec, encode_tensor};
use crate::server::http;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    parameters: Option<serde_json::Map<String, Value>>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(borrow)]
    outputs: Option<Vec<Output<'a>>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Shape,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    parameters: Option<serde_json::Map<String, Value>>,
}

pub(super) fn decode(body: &[u8], limits: JsonLimits) -> Result<InferRequest> {
    let request: Request<'_> = http::parse_object(body, "the body is not an inference request")?;
    let inputs = request.inputs.iter().map(|input| input.decode(limits)).collect::<Result<_>>()?;
    let outputs = request.outputs.into_iter().flatten().map(|output| {
        Ok(RequestedOutput {
            name: output.name.into_owned(),
            parameters: parameters(output.parameters.as_ref())?,
        })
    });
    Ok(InferRequest {
        id: request.id.map(Cow::into_owned),
        parameters: parameters(request.parameters.as_ref())?,
        inputs,
        outputs: outputs.collect::<Result<_>>()?,
    })
}

impl Input<'_> {
    fn decode(&self, limits: JsonLimits) -> Result<Tensor> {
        let name = &*self.name;
        let fault = |message: String| Error::invalid(format!("input \"{name}\": {message}")).field(name);
        let datatype = Datatype::parse(&self.datatype).ok_or_else(|| {
            let known = Datatype::ALL.map(Datatype::as_str);
            let hint = crate::error::did_you_mean(&self.datatype, known);
            fault(format!("no datatype \"{}\"{hint}", self.datatype))
        })?;
        let data = self.data.ok_or_else(|| fault("it has no data".into()))?;
        let spec = TensorSpec { name: name.into(), datatype, shape: self.shape.clone(), optional: false };
        predict::decode_tensor(&spec, data.get(), Some(&self.shape), limits)
    }
}

fn parameters(fields: Option<&serde_json::Map<String, Value>>) -> Result<Parameters> {
    fields
        .into_iter()
        .flatten()
        .map(|(name, value)| Ok((name.clone(), predict::parameter(name, value)?)))
        .collect()
}

pub(super) fn encode(response: &InferResponse) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    text(&mut out, b"{\"model_name\":", &response.route.name.name);
    text(&mut out, b",\"model_version\":", &response.route.name.version);
    if let Some(id) = &response.id {
        text(&mut out, b",\"id\":", id);
    }
    out.extend_from_slice(b",\"outputs\":[");
    for (index, tensor) in response.outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        text(&mut out, b"{\"name\":", tensor.name());
        text(&mut out, b",\"datatype\":", tensor.datatype().as_str());
        out.extend_from_slice(b",\"shape\":");
        serde_json::to_writer(&mut out, tensor.shape()).expect("invariant: writing to memory");
        out.extend_from_slice(b",\"data\":");
        encode_tensor(tensor, true, &mut out)?;
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn text(out: &mut Vec<u8>, before: &[u8], value: &str) {
    out.extend_from_slice(before);
    serde_json::to_writer(out, value).expect("invariant: writing to memory");
}
