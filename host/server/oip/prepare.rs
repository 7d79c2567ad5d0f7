//! Checks an inference request against its model, and makes its responses.

use super::classification;
use super::parameters::{call_options, check_tensor_parameter};
use super::request::{InferRequest, InferResponse, RequestedOutput};
use crate::error::{Error, Result};
use crate::policy::Route;
use crate::predict::{self, Metadata, Parameters, Payload, Response, Shape, Tensor};
use crate::router::CallOptions;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A request that was checked.
pub(super) struct PreparedRequest {
    pub options: CallOptions,
    pub input: Payload,
    pub template: ResponseTemplate,
}

/// What all responses to a request have in common.
pub(super) struct ResponseTemplate {
    pub route: Arc<Route>,
    pub id: Option<String>,
    /// Empty for all.
    pub outputs: Vec<SelectedOutput>,
}

/// A requested output that the model has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SelectedOutput {
    pub name: String,
    /// Only this many top classes of each row, instead of all elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// The model may leave it out.
    #[serde(default)]
    pub is_optional: bool,
}

/// The most bytes of a request's id, which each response of a stream repeats.
const ID_BYTES_MAX: usize = 4 << 10;

/// Checks a request against the inputs and outputs of its model.
pub(super) fn prepare(route: &Arc<Route>, request: InferRequest) -> Result<PreparedRequest> {
    if let Some(length) = request.id.as_ref().map(String::len).filter(|length| *length > ID_BYTES_MAX) {
        let message =
            format!("the request's id has {length} bytes; at most {ID_BYTES_MAX} are repeated in responses");
        return Err(Error::too_large(message).field("id"));
    }
    route.check_available()?;
    let metadata = route.metadata();
    // Before the inputs: a request of a kind that is not supported need not have them all.
    let mut options = call_options(request.parameters)?;
    predict::check_inputs(metadata, &request.inputs)
        .map_err(|error| missing(&route.name.name, metadata, &request.inputs, error))?;
    // The outputs of a transformer are not those of its model.
    if !request.outputs.is_empty() && route.transformer.is_none() {
        options.outputs = Some(request.outputs.iter().map(|output| output.name.clone()).collect());
    }
    Ok(PreparedRequest {
        options,
        input: Payload::Tensors(request.inputs),
        template: ResponseTemplate {
            route: Arc::clone(route),
            id: request.id,
            outputs: selected(metadata, request.outputs)?,
        },
    })
}

/// Adds the other missing inputs to the error for one, in the words that the protocol's clients
/// know.
fn missing(model: &str, metadata: &Metadata, inputs: &[Tensor], error: Error) -> Error {
    let given = |name: &str| inputs.iter().any(|tensor| tensor.name() == name);
    let required = metadata.inputs.iter().filter(|spec| !spec.optional);
    let absent: Vec<&str> = required.clone().map(|spec| &*spec.name).filter(|name| !given(name)).collect();
    if error.field_name().is_none_or(|field| !absent.contains(&field)) {
        return error;
    }
    let quoted = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        format!("[{}]", names.join(","))
    };
    let got: Vec<&str> = inputs.iter().map(Tensor::name).collect();
    let expected = match (required.count(), metadata.inputs.len()) {
        (least, most) if least == most => format!("expected {most} inputs"),
        (least, most) => format!("expected number of inputs between {least} and {most}"),
    };
    let message = format!(
        "{}: {expected} but got {} inputs for model '{model}'. Got input(s) {}, but missing required input(s) {}. \
         Please provide all required input(s).",
        error.message(),
        got.len(),
        quoted(&got),
        quoted(&absent),
    );
    Error::invalid(message).field(absent[0])
}

fn selected(metadata: &Metadata, outputs: Vec<RequestedOutput>) -> Result<Vec<SelectedOutput>> {
    let mut all: Vec<SelectedOutput> = Vec::with_capacity(outputs.len());
    for RequestedOutput { name, parameters } in outputs {
        let Some(spec) = metadata.outputs.iter().find(|spec| *spec.name == *name) else {
            let hint = crate::error::did_you_mean(&name, metadata.outputs.iter().map(|spec| &*spec.name));
            return Err(Error::invalid(format!("no output \"{name}\"{hint}")).field(name));
        };
        if all.iter().any(|earlier| earlier.name == name) {
            return Err(Error::invalid(format!(
                "Duplicate output name '{name}' is not allowed in a request"
            ))
            .field(name));
        }
        let mut classes = None;
        for (parameter, value) in &parameters {
            check_tensor_parameter(format_args!("output \"{name}\""), parameter)?;
            if parameter == "classification" {
                classes = classification::classes(spec, value)?;
            }
        }
        all.push(SelectedOutput { name, classes, is_optional: spec.optional });
    }
    Ok(all)
}

impl ResponseTemplate {
    pub fn response(&self, response: Response) -> Result<InferResponse> {
        Ok(InferResponse {
            route: Arc::clone(&self.route),
            id: self.id.clone(),
            parameters: Parameters::new(),
            outputs: self.outputs(response.payload)?,
        })
    }

    /// Returns the selected outputs. The JSON or bytes of a transformer are one BYTES output.
    fn outputs(&self, payload: Payload) -> Result<Vec<Tensor>> {
        let one = |element: &[u8]| {
            Tensor::from_elements("result", Shape::from_slice(&[1]), [element]).map(|tensor| vec![tensor])
        };
        match payload {
            Payload::Tensors(mut tensors) => {
                if self.outputs.is_empty() {
                    return Ok(tensors);
                }
                tensors.retain(|tensor| self.outputs.iter().any(|selected| selected.name == tensor.name()));
                for selected in &self.outputs {
                    let tensor = tensors.iter_mut().find(|tensor| tensor.name() == selected.name);
                    if tensor.is_none() && selected.is_optional {
                        continue;
                    }
                    let tensor = tensor.ok_or_else(|| {
                        Error::failed(format!("the model did not return output \"{}\"", selected.name))
                    })?;
                    if let Some(classes) = selected.classes {
                        *tensor = classification::top_classes(&self.route, tensor, classes)?;
                    }
                }
                Ok(tensors)
            }
            Payload::Json(text) => one(text.as_bytes()),
            Payload::Bytes { data, .. } => one(&data),
        }
    }
}
