//! JSON values that are neither lists nor objects, such as the parameters of a request.

use super::budget::MemoryBudget;
use super::parameter::{Parameter, Parameters};
use super::walk::{Stopped, each_field, shown};
use crate::error::{Error, Result};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// A JSON value. Of a list or an object, only the type is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    /// An integer above the largest `i64`.
    Unsigned(u64),
    Number(f64),
    Text(Cow<'a, str>),
    List,
    Object,
}

impl<'a> Scalar<'a> {
    pub fn of(text: &'a RawValue) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text.get())
    }

    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Scalar::Integer(value) => u64::try_from(*value).ok(),
            Scalar::Unsigned(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns true if the value is valid for a parameter.
    pub fn is_parameter(&self) -> bool {
        !matches!(self, Scalar::Null | Scalar::Unsigned(_) | Scalar::List | Scalar::Object)
    }

    /// Returns the value for serde's "invalid type" errors.
    pub fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Scalar::Null => Unexpected::Unit,
            Scalar::Boolean(value) => Unexpected::Bool(*value),
            Scalar::Integer(value) => Unexpected::Signed(*value),
            Scalar::Unsigned(value) => Unexpected::Unsigned(*value),
            Scalar::Number(value) => Unexpected::Float(*value),
            Scalar::Text(text) => Unexpected::Str(shown(text)),
            Scalar::List => Unexpected::Seq,
            Scalar::Object => Unexpected::Map,
        }
    }

    /// Returns the bytes that the value takes on the heap.
    pub fn text_bytes(&self) -> usize {
        if let Scalar::Text(text) = self { text.len() } else { 0 }
    }

    /// Converts to the value of the parameter `name`. Refuses lists, objects and `null`.
    pub fn parameter(self, name: &str) -> Result<Parameter> {
        let refused = |what: &str| {
            let name = shown(name);
            let message = format!(
                "parameter '{name}' has invalid type. It is {what}; a parameter is a string, a number or a boolean"
            );
            Err(Error::invalid(message).field(format!("parameters.{name}")))
        };
        match self {
            Scalar::Boolean(value) => Ok(Parameter::Boolean(value)),
            Scalar::Integer(value) => Ok(Parameter::Integer(value)),
            Scalar::Number(value) => Ok(Parameter::Number(value)),
            Scalar::Text(value) => Ok(Parameter::Text(value.into_owned())),
            Scalar::Unsigned(_) => refused("an integer over 9223372036854775807"),
            Scalar::Null => refused("null"),
            Scalar::List => refused("a list"),
            Scalar::Object => refused("an object"),
        }
    }
}

/// A list or an object becomes an empty one.
impl From<Scalar<'_>> for serde_json::Value {
    fn from(scalar: Scalar<'_>) -> Self {
        match scalar {
            Scalar::Null => serde_json::Value::Null,
            Scalar::Boolean(value) => value.into(),
            Scalar::Integer(value) => value.into(),
            Scalar::Unsigned(value) => value.into(),
            Scalar::Number(value) => value.into(),
            Scalar::Text(text) => text.into_owned().into(),
            Scalar::List => serde_json::Value::Array(Vec::new()),
            Scalar::Object => serde_json::Value::Object(serde_json::Map::new()),
        }
    }
}

/// Formats as JSON; a long text is cut.
impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Null => f.write_str("null"),
            Scalar::Boolean(value) => value.fmt(f),
            Scalar::Integer(value) => value.fmt(f),
            Scalar::Unsigned(value) => value.fmt(f),
            Scalar::Number(value) => serde_json::Value::from(*value).fmt(f),
            Scalar::Text(text) => serde_json::Value::from(shown(text)).fmt(f),
            Scalar::List => f.write_str("a list"),
            Scalar::Object => f.write_str("an object"),
        }
    }
}

impl<'de: 'a, 'a> serde::Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Boolean(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Integer(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
                Ok(i64::try_from(value).map_or(Scalar::Unsigned(value), Scalar::Integer))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Number(value))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Object)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// Bytes that a parameter takes besides its texts: in a tree while parameters are read, and in the
/// list.
const PARAMETER_BYTES: usize = 4 * size_of::<(String, Parameter)>();

/// Charges the budget for one parameter.
pub fn charge_parameter(budget: &mut MemoryBudget, name: &str, value: &Scalar<'_>) -> Result<()> {
    budget.charge(PARAMETER_BYTES + name.len() + value.text_bytes(), "parameters")
}

/// Returns the bytes that a copy of the parameters takes.
pub fn parameters_bytes(parameters: &Parameters) -> usize {
    let texts = parameters.iter().map(|(name, value)| match value {
        Parameter::Text(text) => name.len() + text.len(),
        _ => name.len(),
    });
    parameters.len() * size_of::<(String, Parameter)>() + texts.sum::<usize>()
}

/// Reads parameters from an object, sorted by name. If a name is repeated, the last value is used.
/// The JSON value must be an object or `null`.
pub fn parameters(fields: Option<&RawValue>, budget: &mut MemoryBudget) -> Result<Parameters, Stopped> {
    let Some(fields) = fields else { return Ok(Parameters::new()) };
    let mut found = BTreeMap::new();
    each_field(fields.get(), |name, value| {
        let value = Scalar::of(value)
            .map_err(|error| Error::invalid(format!("parameter \"{}\": {error}", shown(&name))))?;
        charge_parameter(budget, &name, &value)?;
        let value = value.parameter(&name)?;
        found.insert(name.into_owned(), value);
        Ok(())
    })?;
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn read(text: &str, budget: &mut MemoryBudget) -> Result<Parameters> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        parameters(Some(raw), budget)
            .map_err(|stopped| stopped.into_error(|error| Error::invalid(error.to_string())))
    }

    #[test]
    fn parameters_are_scalars_by_their_names() {
        let text = r#"{"b": true, "n": 1.5, "i": -3, "t": "x\"y", "b": false}"#;
        let expected = [
            ("b", Parameter::Boolean(false)),
            ("i", Parameter::Integer(-3)),
            ("n", Parameter::Number(1.5)),
            ("t", Parameter::Text("x\"y".into())),
        ];
        let expected: Parameters = expected.map(|(name, value)| (name.to_owned(), value)).into();
        assert_eq!(read(text, &mut MemoryBudget::new(1 << 20)).unwrap(), expected);
        for (bad, part) in [
            ("null", "It is null"),
            ("[[[]]]", "It is a list"),
            ("{}", "It is an object"),
            ("9223372036854775808", "It is an integer over 9223372036854775807"),
            ("1e999", "number out of range"),
        ] {
            let error = read(&format!("{{\"p\": {bad}}}"), &mut MemoryBudget::new(1 << 20)).unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn parameters_beyond_the_budget_are_refused() {
        let many: Vec<String> = (0..100_000).map(|index| format!("\"{index}\":0")).collect();
        let error = read(&format!("{{{}}}", many.join(",")), &mut MemoryBudget::new(1 << 20)).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        assert!(error.message().contains("parameters would take over 4 MB"), "{error}");
    }

    #[test]
    fn values_are_shown_as_json() {
        for (text, expected) in [
            ("1e30", "1e+30"),
            ("\"x\"", "\"x\""),
            ("18446744073709551615", "18446744073709551615"),
            ("[1]", "a list"),
        ] {
            assert_eq!(serde_json::from_str::<Scalar<'_>>(text).unwrap().to_string(), expected);
        }
        let long = format!("\"{}\"", "a".repeat(1 << 20));
        assert!(serde_json::from_str::<Scalar<'_>>(&long).unwrap().to_string().len() < 100);
    }
}
