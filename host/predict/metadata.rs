//! The metadata of a model, and the check of tensors against it.

use super::datatype::Datatype;
use super::origin::Origin;
use super::shape::{Shape, format_shape};
use super::shape_spec::ShapeSpec;
use super::tensor::Tensor;
use crate::error::{Error, Result, did_you_mean};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    pub name: Arc<str>,
    pub datatype: Datatype,
    pub shape: ShapeSpec,
    /// An input with a default, which a request may omit.
    pub optional: bool,
}

impl TensorSpec {
    /// Returns a tensor with no rows. Other free dimensions are 0 as well.
    pub fn without_rows(&self) -> Result<Tensor> {
        let rest = self.shape.on_wire().iter().skip(1).map(|&dimension| dimension.max(0));
        let shape: Shape = std::iter::once(0).chain(rest).collect();
        Tensor::new(Arc::clone(&self.name), self.datatype, shape, bytes::Bytes::new())
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// A request has 0..n responses instead of one.
    pub streaming: bool,
}

impl Metadata {
    /// Returns the input that a request without names means: the only one, or the only one that is
    /// required.
    pub fn only_input(&self) -> Option<&TensorSpec> {
        let mut required = self.inputs.iter().filter(|spec| !spec.optional);
        match (&self.inputs[..], required.next(), required.next()) {
            ([only], ..) | (_, Some(only), None) => Some(only),
            _ => None,
        }
    }

    pub fn input(&self, name: &str) -> Result<&TensorSpec> {
        self.inputs.iter().find(|spec| &*spec.name == name).ok_or_else(|| {
            let known = self.inputs.iter().map(|spec| &*spec.name);
            let hint = did_you_mean(name, known.clone());
            let known = known.collect::<Vec<_>>().join("\", \"");
            Error::invalid(format!("no input \"{name}\"{hint}; inputs: \"{known}\"")).field(name)
        })
    }
}

/// Checks the inputs of a request against the metadata: names, datatypes, shapes.
pub fn check_inputs(metadata: &Metadata, inputs: &[Tensor]) -> Result<()> {
    for (index, tensor) in inputs.iter().enumerate() {
        check_input(metadata.input(tensor.name())?, tensor)?;
        refuse_duplicate(&inputs[..index], tensor.name())?;
    }
    for spec in metadata.inputs.iter().filter(|spec| !spec.optional) {
        if !inputs.iter().any(|tensor| tensor.name() == &*spec.name) {
            let message =
                format!("input \"{}\" ({} {}) is missing", spec.name, spec.datatype.as_str(), spec.shape);
            return Err(Error::invalid(message).field(&*spec.name));
        }
    }
    Ok(())
}

/// Refuses a second tensor of the same name.
pub fn refuse_duplicate(earlier: &[Tensor], name: &str) -> Result<()> {
    if earlier.iter().any(|tensor| tensor.name() == name) {
        return Err(Error::invalid(format!("input '{name}' already exists in request")).field(name));
    }
    Ok(())
}

fn check_input(spec: &TensorSpec, tensor: &Tensor) -> Result<()> {
    let fault = if tensor.datatype() != spec.datatype {
        format!("expected {}, got {}", spec.datatype.as_str(), tensor.datatype().as_str())
    } else if !spec.shape.accepts(tensor.shape()) {
        shape_fault(&spec.shape, tensor.shape())
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("input \"{}\": {fault}", spec.name)).field(&*spec.name))
}

/// Whose metadata declares the outputs of a plugin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    ByPlugin,
    /// The model that the plugin calls.
    ByModel,
}

/// Checks that a plugin returns only declared outputs. A tensor that a model made and the plugin
/// passes on need not match the declared shape: models may return other shapes than they declare,
/// and the plugin has made no claim about it.
pub fn check_outputs(plugin: &str, by: Announced, metadata: &Metadata, outputs: &[Tensor]) -> Result<()> {
    let is_passed_on = |tensor: &Tensor| matches!(tensor.origin(), Origin::Model);
    let fits = |tensor: &Tensor| {
        metadata.outputs.iter().any(|spec| {
            *spec.name == *tensor.name()
                && spec.datatype == tensor.datatype()
                && (is_passed_on(tensor) || spec.shape.accepts(tensor.shape()))
        })
    };
    let whose = if by == Announced::ByModel { "the model's" } else { "its" };
    match outputs.iter().find(|tensor| !fits(tensor)) {
        None => Ok(()),
        Some(tensor) => Err(Error::failed(format!(
            "plugin \"{plugin}\" returned the output \"{}\" ({} {}), which {whose} metadata does not declare",
            tensor.name(),
            tensor.datatype().as_str(),
            format_shape(tensor.shape())
        ))
        .plugin(plugin)),
    }
}

fn shape_fault(spec: &ShapeSpec, shape: &[i64]) -> String {
    let mut fault = format!("expected shape {spec}, got {}", format_shape(shape));
    let accepts = |dimensions: &[i64], shape: &[i64]| ShapeSpec::from(dimensions).accepts(shape);
    match spec.dimensions() {
        Some(dimensions)
            if shape.last() == Some(&0)
                && shape.len() < dimensions.len()
                && accepts(&dimensions[..shape.len()], shape) =>
        {
            fault.push_str(
                ": empty lists do not show the free dimensions after them; send the input with its shape, over the Open \
                 Inference Protocol",
            );
        }
        // One element in any number of dimensions fits a scalar.
        None | Some([]) => {}
        Some([_, inner @ ..]) if inner.len() == shape.len() && accepts(inner, shape) => {
            fault.push_str(": wrap the value in one more list");
        }
        Some(all) if all.len() + 1 == shape.len() && accepts(all, &shape[1..]) => {
            fault.push_str(": there is one list too many around the value");
        }
        Some(_) => {}
    }
    fault
}
