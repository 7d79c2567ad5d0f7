//! The classification extension: of each row of an output the best elements, as texts `value:index` or
//! `value:index:label`. Labels come with the route.

use crate::error::{Error, Result};
use crate::policy::Route;
use crate::predict::{Datatype, Parameter, Shape, Tensor, TensorSpec};
use std::cmp::Ordering;

/// How many a caller wants; none for 0, which is how callers say that they want all elements as they are.
pub(super) fn classes(spec: &TensorSpec, value: &Parameter) -> Result<Option<usize>> {
    let fault = |message: String| {
        let message = format!("output \"{}\": {message}", spec.name);
        Err(Error::invalid(message).field(&*spec.name))
    };
    let count = match value {
        Parameter::Integer(count) => usize::try_from(*count).ok(),
        _ => None,
    };
    match (count, spec.datatype) {
        (None, _) => fault("classification is a whole number, at least 0".into()),
        (Some(0), _) => Ok(None),
        (_, Datatype::Bytes | Datatype::Bool) => {
            let datatype = spec.datatype.as_str();
            fault(format!("classification is for numbers, and this output is {datatype}"))
        }
        (count, _) => Ok(count),
    }
}

/// A tensor of texts in place of one of numbers.
pub(super) fn best(route: &Route, tensor: &Tensor, count: usize) -> Result<Tensor> {
    let numbers = Numbers::of(tensor)?;
    let rows = if has_rows(route, tensor) { tensor.shape()[0] as usize } else { 1 };
    let width = numbers.len().checked_div(rows).unwrap_or(0);
    let count = count.min(width);
    let labels = route.labels.get(tensor.name());
    let mut texts = Vec::with_capacity(rows * count);
    let mut indices: Vec<usize> = Vec::with_capacity(width);
    for start in (0..rows).map(|row| row * width) {
        indices.clear();
        indices.extend(0..width);
        let best_first = |a: &usize, b: &usize| numbers.descending(start + a, start + b).then(a.cmp(b));
        if 0 < count && count < width {
            indices.select_nth_unstable_by(count - 1, best_first);
            indices.truncate(count);
        }
        indices.sort_unstable_by(best_first);
        texts.extend(indices.iter().map(|&index| {
            let value = numbers.text(start + index);
            match labels.and_then(|labels| labels.get(index)) {
                Some(label) => format!("{value}:{index}:{label}"),
                None => format!("{value}:{index}"),
            }
        }));
    }
    let shape = match has_rows(route, tensor) {
        true => Shape::from_slice(&[rows as i64, count as i64]),
        false => Shape::from_slice(&[count as i64]),
    };
    Tensor::from_elements(tensor.name(), shape, texts)
}

/// Whether the first dimension is that of a batch: a free one, with others behind it or with batching on.
fn has_rows(route: &Route, tensor: &Tensor) -> bool {
    let spec = route.metadata().outputs.iter().find(|spec| *spec.name == *tensor.name());
    spec.is_some_and(|spec| match &spec.shape[..] {
        [-1] => route.batching.is_some() && tensor.shape().len() == 1,
        [-1, ..] => !tensor.shape().is_empty(),
        _ => false,
    })
}

/// Elements that can be compared. Integers of 64 bits do not fit a float.
enum Numbers {
    Floats(Vec<f64>),
    Integers(Vec<i128>),
}

impl Numbers {
    fn of(tensor: &Tensor) -> Result<Self> {
        let data = tensor.data();
        macro_rules! read {
            ($into:ident, $rust:ty, $value:ident => $wide:expr) => {{
                let values = data.chunks_exact(size_of::<$rust>()).map(|bytes| {
                    let $value =
                        <$rust>::from_le_bytes(bytes.try_into().expect("invariant: chunks have this size"));
                    $wide
                });
                Numbers::$into(values.collect())
            }};
        }
        Ok(match tensor.datatype() {
            Datatype::Uint8 => read!(Integers, u8, value => value.into()),
            Datatype::Uint16 => read!(Integers, u16, value => value.into()),
            Datatype::Uint32 => read!(Integers, u32, value => value.into()),
            Datatype::Uint64 => read!(Integers, u64, value => value.into()),
            Datatype::Int8 => read!(Integers, i8, value => value.into()),
            Datatype::Int16 => read!(Integers, i16, value => value.into()),
            Datatype::Int32 => read!(Integers, i32, value => value.into()),
            Datatype::Int64 => read!(Integers, i64, value => value.into()),
            Datatype::Fp16 => read!(Floats, half::f16, value => value.to_f64()),
            Datatype::Bf16 => read!(Floats, half::bf16, value => value.to_f64()),
            Datatype::Fp32 => read!(Floats, f32, value => value.into()),
            Datatype::Fp64 => read!(Floats, f64, value => value),
            Datatype::Bool | Datatype::Bytes => {
                let message = format!("output \"{}\" is not of numbers this time", tensor.name());
                return Err(Error::failed(message));
            }
        })
    }

    fn len(&self) -> usize {
        match self {
            Numbers::Floats(values) => values.len(),
            Numbers::Integers(values) => values.len(),
        }
    }

    /// NaN comes last.
    fn descending(&self, a: usize, b: usize) -> Ordering {
        match self {
            Numbers::Floats(values) => {
                let (a, b) = (values[a], values[b]);
                b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            }
            Numbers::Integers(values) => values[b].cmp(&values[a]),
        }
    }

    fn text(&self, index: usize) -> String {
        match self {
            Numbers::Floats(values) => format!("{:.6}", values[index]),
            Numbers::Integers(values) => values[index].to_string(),
        }
    }
}
