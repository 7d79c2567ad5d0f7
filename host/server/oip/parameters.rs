//! Parameters of an inference request: those that the protocol defines, and those for the plugin.

use crate::error::{Error, Result};
use crate::predict::{Parameter, Parameters, Priority, Scalar};
use crate::router::CallOptions;
use std::time::Duration;

/// A parameter that requests a mark on the last response of a stream; if necessary, an empty
/// response is added to carry it.
pub(in crate::server) const ENABLE_EMPTY_FINAL: &str = "triton_enable_empty_final_response";

/// Refuses a parameter of an input or output that places its bytes in shared memory.
pub(in crate::server) fn check_tensor_parameter(tensor: impl std::fmt::Display, name: &str) -> Result<()> {
    if !name.starts_with("shared_memory_") {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "{tensor}: shared memory is not supported; send and receive tensors in the message itself"
    ))
    .field(format!("parameters.{name}")))
}

/// Reads the id of a request. An empty one counts as none.
///
/// # Errors
/// `invalid_input` if it is not a text.
pub(super) fn request_id(value: Scalar<'_>) -> Result<Option<String>> {
    let fix = match value {
        Scalar::Text(id) => return Ok(Some(id.into_owned()).filter(|id| !id.is_empty())),
        Scalar::Null | Scalar::List | Scalar::Object => "send a text, or leave it out".to_owned(),
        _ => format!("send \"id\": \"{value}\""),
    };
    let kind = match value {
        Scalar::Integer(_) | Scalar::Unsigned(_) | Scalar::Number(_) => "the number ",
        _ => "",
    };
    let message = format!(
        "the request's id: got {kind}{value}, expected a string; {fix}: Unable to parse 'id': attempt to access JSON \
         non-string as string"
    );
    Err(Error::invalid(message).field("id"))
}

/// Applies the protocol's own parameters, such as `timeout` (microseconds). The others are for the
/// plugin.
pub(super) fn call_options(mut parameters: Parameters) -> Result<CallOptions> {
    let mut options = CallOptions::default();
    let mut fault = None;
    parameters.retain(|(name, value)| {
        let is_reserved = reserved(name, value, &mut options);
        fault = fault.take().or_else(|| is_reserved.as_ref().err().cloned());
        matches!(is_reserved, Ok(false))
    });
    fault.map_or(Ok(CallOptions { parameters, ..options }), Err)
}

/// Returns whether a parameter is one of the protocol's own, and applies it if it is.
fn reserved(name: &str, value: &Parameter, options: &mut CallOptions) -> Result<bool> {
    let fault = |wanted: &str| {
        let message = format!("parameter \"{name}\" is {}; it is {wanted}", shown(value));
        Err(Error::invalid(message).field(format!("parameters.{name}")))
    };
    match (name, value) {
        // Clients send 0 for no timeout.
        ("timeout", Parameter::Integer(us)) if *us >= 0 => {
            let timeout = Some(Duration::from_micros(*us as u64));
            options.timeout = timeout.filter(|timeout| !timeout.is_zero());
        }
        ("timeout", _) => return fault("a number of microseconds, at least 1, or 0 for none"),
        ("priority", Parameter::Integer(number)) if *number >= 0 => {
            options.priority = Priority::asked(*number as u64);
        }
        ("priority", _) => return fault("a whole number, at least 0"),
        ("sequence_id", Parameter::Integer(0)) => {}
        ("sequence_start" | "sequence_end", Parameter::Boolean(false)) => {}
        ("sequence_id", Parameter::Text(id)) if id.is_empty() => {}
        ("sequence_id" | "sequence_start" | "sequence_end", _) => {
            return Err(Error::unsupported(format!(
                "parameter \"{name}\": sequences are not supported; each request stands for itself"
            ))
            .field(format!("parameters.{name}")));
        }
        // Only used by streams over gRPC.
        (ENABLE_EMPTY_FINAL, Parameter::Boolean(_)) => {}
        (ENABLE_EMPTY_FINAL, _) => return fault("true or false"),
        (name, _) if name.starts_with("triton_") => {
            return Err(Error::invalid(format!(
                "parameter \"{name}\": parameter keys starting with 'triton_' are reserved for Triton usage. Only the \
                 following keys starting with 'triton_' are allowed: {ENABLE_EMPTY_FINAL}"
            ))
            .field(format!("parameters.{name}")));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Returns a value in the form of error messages.
pub(super) fn shown(value: &Parameter) -> String {
    match value {
        Parameter::Boolean(value) => value.to_string(),
        Parameter::Integer(value) => value.to_string(),
        Parameter::Number(value) => format!("{value:?}"),
        Parameter::Text(value) => format!("{value:?}"),
    }
}
