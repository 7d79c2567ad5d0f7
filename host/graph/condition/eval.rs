//! Evaluates a condition for one request.

use super::expression::{Arithmetic, Comparison, Expr, Function, Node, TensorRef, Wanted};
use super::{Condition, ELEMENTS_MAX};
use crate::error::{Error, Kind, Result};
use crate::predict::{Datatype, Parameter, Tensor};
use std::borrow::Cow;
use std::cmp::Ordering;

/// The values that a condition may read.
pub trait Environment {
    /// `None` if the tensor is absent.
    fn tensor(&self, of: &TensorRef) -> Option<&Tensor>;

    fn parameter(&self, name: &str) -> Option<&Parameter>;

    /// Returns true if the step's model was called.
    fn ran(&self, step: &str) -> bool;

    /// Returns how the step failed; `None` if it did not.
    fn error(&self, step: &str) -> Option<Kind>;

    /// A number from 0 to 99.
    fn bucket(&self) -> i64;
}

enum Value<'a> {
    /// Makes every comparison false.
    Absent,
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Cow<'a, [u8]>),
}

/// A parameter of the wrong type is the caller's fault, `InvalidInput`. An index outside a tensor,
/// an overflow and a division by zero are `Failed`.
pub fn evaluate(condition: &Condition, environment: &dyn Environment) -> Result<bool> {
    value(&condition.root, environment).map(|value| is_true(&value))
}

fn is_true(value: &Value<'_>) -> bool {
    matches!(value, Value::Bool(true))
}

fn value<'a>(node: &'a Node, environment: &'a dyn Environment) -> Result<Value<'a>> {
    Ok(match &node.expr {
        Expr::Bool(value) => Value::Bool(*value),
        Expr::Int(value) => Value::Int(*value),
        Expr::Float(value) => Value::Float(*value),
        Expr::Text(text) => Value::Text(Cow::Borrowed(text.as_bytes())),
        Expr::Null => Value::Null,
        Expr::Param { name, wanted } => parameter(name, *wanted, environment)?,
        Expr::Bucket => Value::Int(environment.bucket().into()),
        Expr::Ran(step) => Value::Bool(environment.ran(step)),
        Expr::ErrorOf(step) => match environment.error(step) {
            Some(kind) => Value::Text(Cow::Borrowed(kind.as_str().as_bytes())),
            None => Value::Null,
        },
        Expr::Has(of) => Value::Bool(environment.tensor(of).is_some()),
        Expr::Tensor { of, index } => match environment.tensor(of) {
            Some(tensor) => element(of, tensor, index)?,
            None => Value::Absent,
        },
        Expr::Call(function, inner) => match &inner.expr {
            Expr::Tensor { of, .. } => match environment.tensor(of) {
                Some(tensor) => call(*function, of, tensor)?,
                None => Value::Absent,
            },
            _ => unreachable!("checked: functions take tensors"),
        },
        Expr::Not(inner) => Value::Bool(!is_true(&value(inner, environment)?)),
        Expr::Negate(inner) => match value(inner, environment)? {
            Value::Int(number) => Value::Int(-number),
            Value::Float(number) => Value::Float(-number),
            other => other,
        },
        Expr::Or(parts) => {
            for part in parts {
                if is_true(&value(part, environment)?) {
                    return Ok(Value::Bool(true));
                }
            }
            Value::Bool(false)
        }
        Expr::And(parts) => {
            for part in parts {
                if !is_true(&value(part, environment)?) {
                    return Ok(Value::Bool(false));
                }
            }
            Value::Bool(true)
        }
        Expr::Compare(comparison, left, right) => {
            let (left, right) = (value(left, environment)?, value(right, environment)?);
            Value::Bool(compare(*comparison, &left, &right)?)
        }
        Expr::Sum(first, rest) | Expr::Product(first, rest) => {
            let mut total = value(first, environment)?;
            for (arithmetic, part) in rest {
                total = apply(*arithmetic, &total, &value(part, environment)?)?;
            }
            total
        }
    })
}

fn parameter<'a>(name: &str, wanted: Option<Wanted>, environment: &'a dyn Environment) -> Result<Value<'a>> {
    let Some(parameter) = environment.parameter(name) else { return Ok(Value::Absent) };
    let value = match parameter {
        Parameter::Boolean(value) => Value::Bool(*value),
        Parameter::Integer(value) => Value::Int((*value).into()),
        Parameter::Number(value) => Value::Float(*value),
        Parameter::Text(value) => Value::Text(Cow::Borrowed(value.as_bytes())),
    };
    let (fits, what) = match wanted {
        None => (true, ""),
        Some(Wanted::Boolean) => (matches!(value, Value::Bool(_)), "a boolean"),
        Some(Wanted::Number) => (matches!(value, Value::Int(_) | Value::Float(_)), "a number"),
        Some(Wanted::Text) => (matches!(value, Value::Text(_)), "a string"),
    };
    if fits {
        return Ok(value);
    }
    let got = match parameter {
        Parameter::Boolean(_) => "a boolean",
        Parameter::Integer(_) | Parameter::Number(_) => "a number",
        Parameter::Text(_) => "a string",
    };
    let message = format!("parameter \"{name}\": expected {what}, got {got}");
    Err(Error::invalid(message).field(format!("parameters.{name}")))
}

fn element<'a>(of: &TensorRef, tensor: &'a Tensor, index: &[u64]) -> Result<Value<'a>> {
    let shape = tensor.shape();
    // A scalar may come as one element in any number of dimensions.
    let is_scalar = index.is_empty() && tensor.count() == 1;
    let inside = index.len() == shape.len()
        && index.iter().zip(shape).all(|(&at, &size)| i64::try_from(at).is_ok_and(|at| at < size));
    if !inside && !is_scalar {
        let shape = crate::predict::format_shape(shape);
        let message = format!("{of} has shape {shape}, and there is no element {index:?}");
        return Err(match of {
            TensorRef::Input(name) => Error::invalid(message).field(&**name),
            _ => Error::failed(message),
        });
    }
    let at = index.iter().zip(shape).fold(0, |at, (&index, &size)| at * size as usize + index as usize);
    if tensor.datatype() == Datatype::Bytes {
        let element = tensor.elements().nth(at).unwrap_or_default();
        return Ok(Value::Text(Cow::Borrowed(element)));
    }
    Ok(scalar(tensor, at))
}

/// Returns the element at an index, for any datatype except `BYTES`.
fn scalar(tensor: &Tensor, at: usize) -> Value<'static> {
    fn bytes<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
        data[at * N..].first_chunk().copied().unwrap_or([0; N])
    }
    let data = tensor.data();
    match tensor.datatype() {
        Datatype::Bool => Value::Bool(data[at] != 0),
        Datatype::Uint8 => Value::Int(data[at].into()),
        Datatype::Int8 => Value::Int((data[at] as i8).into()),
        Datatype::Uint16 => Value::Int(u16::from_le_bytes(bytes(data, at)).into()),
        Datatype::Uint32 => Value::Int(u32::from_le_bytes(bytes(data, at)).into()),
        Datatype::Uint64 => Value::Int(u64::from_le_bytes(bytes(data, at)).into()),
        Datatype::Int16 => Value::Int(i16::from_le_bytes(bytes(data, at)).into()),
        Datatype::Int32 => Value::Int(i32::from_le_bytes(bytes(data, at)).into()),
        Datatype::Int64 => Value::Int(i64::from_le_bytes(bytes(data, at)).into()),
        Datatype::Fp16 => Value::Float(half::f16::from_le_bytes(bytes(data, at)).to_f64()),
        Datatype::Bf16 => Value::Float(half::bf16::from_le_bytes(bytes(data, at)).to_f64()),
        Datatype::Fp32 => Value::Float(f32::from_le_bytes(bytes(data, at)).into()),
        Datatype::Fp64 => Value::Float(f64::from_le_bytes(bytes(data, at))),
        Datatype::Bytes => Value::Absent,
    }
}

fn call(function: Function, of: &TensorRef, tensor: &Tensor) -> Result<Value<'static>> {
    let count = tensor.count();
    if function == Function::Size {
        return Ok(Value::Int(count as i128));
    }
    if count > ELEMENTS_MAX {
        let message = format!("{of} has {count} elements; a condition looks at up to {ELEMENTS_MAX}");
        return Err(Error::failed(message));
    }
    let mut elements = (0..count).map(|at| scalar(tensor, at));
    Ok(match function {
        Function::Any => Value::Bool(elements.any(|value| is_true(&value))),
        Function::All => Value::Bool(elements.all(|value| is_true(&value))),
        Function::Min => extreme(elements, Ordering::Less),
        _ => extreme(elements, Ordering::Greater),
    })
}

/// `Absent` without elements; NaN if any element is NaN.
fn extreme(elements: impl Iterator<Item = Value<'static>>, wanted: Ordering) -> Value<'static> {
    let mut best = Value::Absent;
    for value in elements {
        if matches!(value, Value::Float(number) if number.is_nan()) {
            return value;
        }
        if matches!(best, Value::Absent) || order(&value, &best) == Some(wanted) {
            best = value;
        }
    }
    best
}

fn compare(comparison: Comparison, left: &Value<'_>, right: &Value<'_>) -> Result<bool> {
    if matches!(left, Value::Absent) || matches!(right, Value::Absent) {
        return Ok(false);
    }
    let is_equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
    let order = match (left, right) {
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::Bool(a), Value::Bool(b)) if is_equality => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => order(left, right),
        // Two parameters: their types are not known before the request.
        _ => return Err(Error::invalid("two parameters of a condition have types that cannot be compared")),
    };
    Ok(match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => order.is_some_and(Ordering::is_le),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
    })
}

/// Compares by value, whatever the types; NaN has no order.
fn order(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Float(b)) => int_with_float(*a, *b),
        (Value::Float(a), Value::Int(b)) => int_with_float(*b, *a).map(Ordering::reverse),
        _ => None,
    }
}

fn int_with_float(int: i128, float: f64) -> Option<Ordering> {
    let order = (int as f64).partial_cmp(&float)?;
    // If only rounding makes them equal, the integers decide.
    Some(if order == Ordering::Equal { int.cmp(&(float as i128)) } else { order })
}

fn apply<'a>(arithmetic: Arithmetic, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'a>> {
    let overflow = || Error::failed("a whole number in a condition is out of range");
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => {
            let result = match arithmetic {
                Arithmetic::Add => a.checked_add(*b),
                Arithmetic::Subtract => a.checked_sub(*b),
                Arithmetic::Multiply => a.checked_mul(*b),
                Arithmetic::Divide | Arithmetic::Remainder if *b == 0 => {
                    return Err(Error::failed("a condition divides by zero"));
                }
                Arithmetic::Divide => a.checked_div(*b),
                Arithmetic::Remainder => a.checked_rem(*b),
            };
            let in_range = |value: &i128| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(value);
            result.filter(in_range).map(Value::Int).ok_or_else(overflow)
        }
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            let float = |value: &Value<'_>| match value {
                Value::Int(value) => *value as f64,
                Value::Float(value) => *value,
                _ => 0.0,
            };
            let (a, b) = (float(left), float(right));
            Ok(Value::Float(match arithmetic {
                Arithmetic::Add => a + b,
                Arithmetic::Subtract => a - b,
                Arithmetic::Multiply => a * b,
                Arithmetic::Divide => a / b,
                Arithmetic::Remainder => a % b,
            }))
        }
        _ => Ok(Value::Absent),
    }
}
