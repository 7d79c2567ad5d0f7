//! Inputs whose sender gives their elements but not their shape: a raw body, or a flat list.

use super::datatype::Datatype;
use super::metadata::TensorSpec;
use super::shape::{Shape, element_count};
use super::shape_spec::ShapeSpec;
use super::tensor::Tensor;
use crate::error::{Error, Result};
use bytes::Bytes;

/// Returns the input whose elements are all of `body`. A BYTES input has one element.
///
/// If `rows` is set, a free first dimension counts rows, and a further free dimension is deduced.
pub fn raw_input(spec: &TensorSpec, rows: bool, body: Bytes) -> Result<Tensor> {
    let (name, datatype, shape) = (&spec.name, spec.datatype, &spec.shape);
    let fault = |message: String| Error::invalid(format!("input \"{name}\": {message}")).field(&**name);
    let announced = shape.on_wire();
    let dimensions = &announced[usize::from(rows && announced.first() == Some(&-1))..];
    if dimensions.iter().filter(|&&dimension| dimension < 0).count() > 1 {
        return Err(fault(format!(
            "The shape of the raw input '{name}' can not be deduced because there are more than one variable-sized \
             dimension in {shape}"
        )));
    }
    if datatype == Datatype::Bytes && dimensions.iter().any(|&dimension| dimension != 1) {
        return Err(fault(format!(
            "For BYTE datatype raw input '{name}', the model must have input shape [1]; it has {shape}"
        )));
    }
    let count = match datatype.size() {
        Some(size) => body.len().is_multiple_of(size).then_some(body.len() / size),
        None => Some(1),
    };
    let filled = count.and_then(|count| filled_shape(shape, count)).ok_or_else(|| {
        let (bytes, datatype) = (body.len(), datatype.as_str());
        fault(format!("{bytes} bytes without JSON do not say which {datatype} of shape {shape} they are"))
    })?;
    let tensor = match datatype {
        Datatype::Bytes => Tensor::from_elements(name.clone(), filled, [&body]),
        datatype => Tensor::new(name.clone(), datatype, filled, body),
    };
    tensor.map_err(|error| error.field(&**name))
}

/// Returns the shape of `count` elements of an input. Free dimensions are 1, except for the last,
/// which has the remaining elements; of an unknown rank, there is one dimension. `None` if the
/// elements do not fill the shape.
pub fn filled_shape(spec: &ShapeSpec, count: usize) -> Option<Shape> {
    let Some(dimensions) = spec.dimensions() else {
        return Some(Shape::from_slice(&[i64::try_from(count).ok()?]));
    };
    let mut shape: Shape =
        dimensions.iter().map(|&dimension| if dimension < 0 { 1 } else { dimension }).collect();
    let others = element_count(&shape).ok()?;
    if let Some(last) = dimensions.iter().rposition(|&dimension| dimension < 0) {
        shape[last] = i64::try_from(count.checked_div(others)?).ok()?;
    }
    (element_count(&shape).ok()? == count).then_some(shape)
}
