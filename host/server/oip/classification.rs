//! The classification extension: the largest elements of each row of an output, as texts
//! `value:index` or `value:index:label`. Labels are those of the route.

use crate::error::{Error, Result};
use crate::policy::Route;
use crate::predict::{Datatype, Parameter, Shape, Tensor, TensorSpec};
use std::cmp::Ordering;

/// The most texts of one response.
const TEXTS_MAX: usize = 100_000;

/// Returns how many classes the client requests. `None` for 0, by which clients request all
/// elements unchanged.
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

/// Returns the texts of the top classes of a tensor of numbers.
pub(super) fn top_classes(route: &Route, tensor: &Tensor, count: usize) -> Result<Tensor> {
    let has_rows = has_rows(route, tensor);
    let rows = if has_rows { tensor.shape()[0] as usize } else { 1 };
    let width = tensor.count().checked_div(rows).unwrap_or(0);
    let count = count.min(width);
    if rows.saturating_mul(count) > TEXTS_MAX {
        return Err(Error::invalid(format!(
            "output \"{}\": {count} classes of each of {rows} rows are more than {TEXTS_MAX} texts",
            tensor.name()
        ))
        .field(tensor.name()));
    }
    let ranking =
        Ranking { rows, width, count, labels: route.labels.get(tensor.name()).map(|labels| &**labels) };
    let data = tensor.data();
    let texts = match tensor.datatype() {
        Datatype::Uint8 => ranking.texts::<u8>(data),
        Datatype::Uint16 => ranking.texts::<u16>(data),
        Datatype::Uint32 => ranking.texts::<u32>(data),
        Datatype::Uint64 => ranking.texts::<u64>(data),
        Datatype::Int8 => ranking.texts::<i8>(data),
        Datatype::Int16 => ranking.texts::<i16>(data),
        Datatype::Int32 => ranking.texts::<i32>(data),
        Datatype::Int64 => ranking.texts::<i64>(data),
        Datatype::Fp16 => ranking.texts::<half::f16>(data),
        Datatype::Bf16 => ranking.texts::<half::bf16>(data),
        Datatype::Fp32 => ranking.texts::<f32>(data),
        Datatype::Fp64 => ranking.texts::<f64>(data),
        Datatype::Bool | Datatype::Bytes => {
            let (name, datatype) = (tensor.name(), tensor.datatype().as_str());
            let message = format!(
                "output \"{name}\": classification is for numbers, and the model returned {datatype}"
            );
            return Err(Error::failed(message));
        }
    };
    let shape = [rows as i64, count as i64];
    Tensor::from_elements(
        tensor.name(),
        Shape::from_slice(if has_rows { &shape } else { &shape[1..] }),
        texts,
    )
}

/// Whether the first dimension is that of a batch: it is free, and either others follow it or
/// batching is on. Of an unknown rank, the tensor's own dimensions decide.
fn has_rows(route: &Route, tensor: &Tensor) -> bool {
    let spec = route.metadata().outputs.iter().find(|spec| *spec.name == *tensor.name());
    spec.is_some_and(|spec| match (spec.shape.dimensions(), tensor.shape()) {
        (_, []) => false,
        (Some([-1]) | None, [_]) => route.batching.is_some(),
        (Some([-1]), _) => false,
        (Some([-1, ..]) | None, _) => true,
        (Some(_), _) => false,
    })
}

/// The elements to rank, and how many of each row to return.
struct Ranking<'a> {
    rows: usize,
    width: usize,
    count: usize,
    labels: Option<&'a [String]>,
}

impl Ranking<'_> {
    /// Returns the texts row by row, the largest element first. Of equal elements, the first in the
    /// row comes first.
    fn texts<E: Element>(&self, data: &[u8]) -> Vec<String> {
        let mut texts = Vec::with_capacity(self.rows.saturating_mul(self.count));
        let mut best = Vec::new();
        // Rows without elements take no bytes, so they can be any number. They have no chunks.
        for row in data.chunks_exact((self.width * E::SIZE).max(1)) {
            let element = |index: usize| E::read(&row[index * E::SIZE..]);
            let descending = |a: &usize, b: &usize| order(element(*a), element(*b)).then(a.cmp(b));
            best.clear();
            for index in 0..self.width {
                best.push(index);
                // The smaller half is dropped from time to time, so that the list stays short for
                // long rows.
                if best.len() >= 2 * self.count {
                    best.select_nth_unstable_by(self.count - 1, descending);
                    best.truncate(self.count);
                }
            }
            best.sort_unstable_by(descending);
            best.truncate(self.count);
            texts.extend(best.iter().map(|&index| {
                let value = element(index).text();
                match self.labels.and_then(|labels| labels.get(index)) {
                    Some(label) => format!("{value}:{index}:{label}"),
                    None => format!("{value}:{index}"),
                }
            }));
        }
        texts
    }
}

/// Orders the larger first, and NaN last.
fn order<E: Element>(a: E, b: E) -> Ordering {
    let is_number = |value: &E| value.partial_cmp(value).is_some();
    b.partial_cmp(&a).unwrap_or_else(|| is_number(&b).cmp(&is_number(&a)))
}

trait Element: Copy + PartialOrd {
    const SIZE: usize;
    /// Reads an element from the first bytes.
    fn read(bytes: &[u8]) -> Self;
    fn text(self) -> String;
}

macro_rules! elements {
    ($($rust:ty => $format:literal),*) => {
        $(impl Element for $rust {
            const SIZE: usize = size_of::<Self>();

            fn read(bytes: &[u8]) -> Self {
                let bytes = bytes.first_chunk().expect("invariant: rows are of whole elements");
                Self::from_le_bytes(*bytes)
            }

            fn text(self) -> String {
                format!($format, self)
            }
        })*
    };
}

elements!(u8 => "{}", u16 => "{}", u32 => "{}", u64 => "{}", i8 => "{}", i16 => "{}", i32 => "{}", i64 => "{}");
elements!(half::f16 => "{:.6}", half::bf16 => "{:.6}", f32 => "{:.6}", f64 => "{:.6}");
