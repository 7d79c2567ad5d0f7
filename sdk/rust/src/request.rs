//! Typed access to request parameters. A parameter of another type is the caller's fault: the error
//! is `invalid-input` with the field `parameters.<name>`.

use crate::{Error, Parameter, Request};

impl Request {
    /// Returns a boolean parameter, or false if the request has none with this name.
    pub fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.parameter(name) {
            None => Ok(false),
            Some(Parameter::Boolean(value)) => Ok(value),
            Some(_) => Err(wrong_type(name, "true or false")),
        }
    }

    /// Returns a string parameter.
    pub fn text(&self, name: &str) -> Result<Option<String>, Error> {
        match self.parameter(name) {
            None => Ok(None),
            Some(Parameter::Text(value)) => Ok(Some(value)),
            Some(_) => Err(wrong_type(name, "a text")),
        }
    }

    /// Returns an integer parameter.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        match self.parameter(name) {
            None => Ok(None),
            Some(Parameter::Integer(value)) => Ok(Some(value)),
            Some(_) => Err(wrong_type(name, "a whole number")),
        }
    }

    /// Returns a number parameter; integers are converted.
    pub fn number(&self, name: &str) -> Result<Option<f64>, Error> {
        match self.parameter(name) {
            None => Ok(None),
            Some(Parameter::Number(value)) => Ok(Some(value)),
            Some(Parameter::Integer(value)) => Ok(Some(value as f64)),
            Some(_) => Err(wrong_type(name, "a number")),
        }
    }
}

impl From<bool> for Parameter {
    fn from(value: bool) -> Parameter {
        Parameter::Boolean(value)
    }
}

impl From<i64> for Parameter {
    fn from(value: i64) -> Parameter {
        Parameter::Integer(value)
    }
}

impl From<f64> for Parameter {
    fn from(value: f64) -> Parameter {
        Parameter::Number(value)
    }
}

impl From<&str> for Parameter {
    fn from(value: &str) -> Parameter {
        Parameter::Text(value.into())
    }
}

fn wrong_type(name: &str, expected: &str) -> Error {
    Error::invalid(format!("parameters.{name}"), format!("parameter \"{name}\": expected {expected}"))
}
