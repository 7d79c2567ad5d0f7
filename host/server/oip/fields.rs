//! The small parts of an inference request in JSON: shapes and parameters. They are read as a
//! stream, and values that are not needed are not kept.

use super::parameters;
use crate::error::{Error, Result};
use crate::predict::walk::{Name, shown};
use crate::predict::{self, MAX_RANK, MemoryBudget, Parameter, Parameters, Scalar, Shape};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A shape. It keeps at most as many dimensions as a tensor can have, and counts all of them.
pub(super) struct Dimensions {
    shape: Shape,
    count: usize,
}

impl Dimensions {
    pub fn checked(&self) -> Result<Shape> {
        match self.count {
            count if count > MAX_RANK => {
                Err(Error::invalid(format!("{count} dimensions; at most {MAX_RANK} are supported")))
            }
            _ => Ok(self.shape.clone()),
        }
    }
}

impl<'de> Deserialize<'de> for Dimensions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Dimensions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Dimensions, A::Error> {
                let mut dimensions = Dimensions { shape: Shape::new(), count: 0 };
                while let Some(dimension) = seq.next_element::<Scalar<'_>>()? {
                    let Scalar::Integer(dimension) = dimension else {
                        return Err(A::Error::invalid_type(dimension.unexpected(), &"i64"));
                    };
                    dimensions.count += 1;
                    if dimensions.count <= MAX_RANK {
                        dimensions.shape.push(dimension);
                    }
                }
                Ok(dimensions)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Dimensions, E> {
                Err(E::invalid_type(Unexpected::Str(shown(text)), &self))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// Collects the known parameters of a tensor.
pub(super) trait Take<'a>: Default {
    fn take(&mut self, name: Cow<'a, str>, value: Scalar<'a>);
}

/// A tensor's parameters. `null` counts as no parameters.
#[derive(Default)]
pub(super) struct Fields<T>(pub T);

impl<'de: 'a, 'a, T: Take<'a>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader<'a, T>(PhantomData<(&'a (), T)>);

        impl<'de: 'a, 'a, T: Take<'a>> Visitor<'de> for Reader<'a, T> {
            type Value = Fields<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }

            fn visit_unit<E>(self) -> std::result::Result<Fields<T>, E> {
                Ok(Fields(T::default()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Fields<T>, A::Error> {
                let mut fields = T::default();
                while let Some((Name(name), value)) = map.next_entry()? {
                    fields.take(name, value);
                }
                Ok(Fields(fields))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Fields<T>, E> {
                Err(E::invalid_type(Unexpected::Str(shown(text)), &self))
            }
        }

        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// Whether a parameter requests shared memory, which is not supported.
fn is_shared_memory(name: &str) -> bool {
    name.starts_with("shared_memory_")
}

#[derive(Default)]
pub(super) struct InputParameters<'a> {
    pub binary_data_size: Option<Scalar<'a>>,
    /// The name of the first parameter of shared memory.
    pub shared_memory: Option<Cow<'a, str>>,
}

impl<'a> Take<'a> for InputParameters<'a> {
    fn take(&mut self, name: Cow<'a, str>, value: Scalar<'a>) {
        match &*name {
            "binary_data_size" => self.binary_data_size = Some(value),
            other if is_shared_memory(other) => self.shared_memory = self.shared_memory.take().or(Some(name)),
            _ => {}
        }
    }
}

#[derive(Default)]
pub(super) struct OutputParameters<'a> {
    binary_data: Option<Scalar<'a>>,
    classification: Option<Scalar<'a>>,
    shared_memory: Option<Cow<'a, str>>,
    /// The first field whose value cannot be a parameter.
    fault: Option<(Cow<'a, str>, Scalar<'a>)>,
}

impl<'a> Take<'a> for OutputParameters<'a> {
    fn take(&mut self, name: Cow<'a, str>, value: Scalar<'a>) {
        if !value.is_parameter() {
            self.fault = self.fault.take().or(Some((name, value)));
            return;
        }
        match &*name {
            "binary_data" => self.binary_data = self.binary_data.take().or(Some(value)),
            "classification" => self.classification = Some(value),
            other if is_shared_memory(other) => self.shared_memory = self.shared_memory.take().or(Some(name)),
            _ => {}
        }
    }
}

impl OutputParameters<'_> {
    /// Returns whether the output is binary, if the client says so, and its other parameters.
    pub fn read(self) -> Result<(Option<bool>, Parameters)> {
        if let Some((name, value)) = self.fault {
            value.parameter(&name)?;
        }
        let mut parameters = Parameters::new();
        for (name, value) in [("binary_data", self.binary_data), ("classification", self.classification)] {
            if let Some(value) = value {
                parameters.push((name.to_owned(), value.parameter(name)?));
            }
        }
        parameters.extend(self.shared_memory.map(|name| (name.into_owned(), Parameter::Boolean(true))));
        let binary = take_flag(&mut parameters, "binary_data")?;
        Ok((binary, parameters))
    }
}

/// Reads the parameters of a request in the order sent and charges them. If one exceeds the budget
/// or is invalid, the error is left in `stopped`.
pub(super) struct FieldsReader<'b> {
    pub budget: &'b mut MemoryBudget,
    pub stopped: &'b mut Option<Error>,
}

impl<'de> DeserializeSeed<'de> for FieldsReader<'_> {
    type Value = Parameters;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Parameters, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldsReader<'_> {
    type Value = Parameters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }

    fn visit_unit<E>(self) -> std::result::Result<Parameters, E> {
        Ok(Parameters::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Parameters, A::Error> {
        let mut parameters = Parameters::new();
        while let Some((Name(name), value)) = map.next_entry::<Name<'de>, Scalar<'de>>()? {
            let charged = predict::charge_parameter(self.budget, &name, &value);
            match charged.and_then(|()| value.parameter(&name)) {
                Ok(value) => parameters.push((name.into_owned(), value)),
                Err(error) => {
                    *self.stopped = Some(error);
                    return Err(A::Error::custom("stopped"));
                }
            }
        }
        Ok(parameters)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Parameters, E> {
        Err(E::invalid_type(Unexpected::Str(shown(text)), &self))
    }
}

/// Removes a boolean parameter and returns its value.
pub(super) fn take_flag(parameters: &mut Parameters, wanted: &str) -> Result<Option<bool>> {
    let Some(index) = parameters.iter().position(|(name, _)| name == wanted) else { return Ok(None) };
    match parameters.remove(index).1 {
        Parameter::Boolean(value) => Ok(Some(value)),
        value => {
            let value = parameters::shown(&value);
            Err(Error::invalid(format!("parameter \"{wanted}\" is {value}; it is true or false"))
                .field(format!("parameters.{wanted}")))
        }
    }
}
