//! The parameters of a request.

use crate::error::{Error, Result};

/// The value of a request parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

/// Converts a JSON value to a parameter. Lists, objects and `null` are refused.
pub fn parameter(name: &str, value: &serde_json::Value) -> Result<Parameter> {
    use serde_json::Value;
    let refused = |what: &str| {
        let message = format!(
            "parameter '{name}' has invalid type. It is {what}; a parameter is a string, a number or a boolean"
        );
        Err(Error::invalid(message).field(format!("parameters.{name}")))
    };
    match value {
        Value::Bool(value) => Ok(Parameter::Boolean(*value)),
        Value::String(value) => Ok(Parameter::Text(value.clone())),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Ok(Parameter::Integer(value)),
            (None, Some(_)) if number.is_u64() => refused("an integer over 9223372036854775807"),
            (None, Some(value)) => Ok(Parameter::Number(value)),
            (None, None) => refused("not a number that can be represented"),
        },
        Value::Null => refused("null"),
        Value::Array(_) => refused("a list"),
        Value::Object(_) => refused("an object"),
    }
}

/// Request parameters, in the order sent.
pub type Parameters = Vec<(String, Parameter)>;
