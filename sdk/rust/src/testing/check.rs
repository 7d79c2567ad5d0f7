//! The checks that a host makes of tensors that enter and leave a plugin.

use crate::tensor::{described, dimensions};
use crate::{Error, Tensor, TensorSpec};

/// Checks the inputs of a request as a host does before it calls a model: names, datatypes, shapes,
/// and that each input is there once. `optional` are names of inputs that may be missing.
///
/// The error is `invalid-input` with the name of the input as its field.
///
/// ```
/// use hostler_plugin::testing::check_inputs;
/// use hostler_plugin::{Datatype, tensor};
///
/// let specs = [tensor::spec("x", Datatype::Fp32, &[-1, 2])];
/// let x = tensor::fp32("x", &[1, 2], &[0.0, 0.0]).unwrap();
/// assert!(check_inputs(&specs, &[], &[x]).is_ok());
/// let error = check_inputs(&specs, &[], &[]).unwrap_err();
/// assert_eq!(error.message, r#"input "x" (FP32 [-1,2]) is missing"#);
/// ```
pub fn check_inputs(specs: &[TensorSpec], optional: &[String], inputs: &[Tensor]) -> Result<(), Error> {
    for (index, input) in inputs.iter().enumerate() {
        let name = input.name();
        let Some(spec) = specs.iter().find(|spec| spec.name == name) else {
            let known = specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join("\", \"");
            return Err(Error::invalid(name.clone(), format!("no input \"{name}\"; inputs: \"{known}\"")));
        };
        if input.datatype() != spec.datatype {
            let (wanted, got) = (spec.datatype.name(), input.datatype().name());
            return Err(Error::invalid(
                name.clone(),
                format!("input \"{name}\": expected {wanted}, got {got}"),
            ));
        }
        if !accepts(&spec.shape, &input.shape()) {
            let (wanted, got) = (dimensions(&spec.shape), dimensions(&input.shape()));
            let message = format!("input \"{name}\": expected shape {wanted}, got {got}");
            return Err(Error::invalid(name, message));
        }
        if inputs[..index].iter().any(|earlier| earlier.name == name) {
            let message = format!("input '{name}' already exists in request");
            return Err(Error::invalid(name, message));
        }
    }
    let is_missing = |spec: &&TensorSpec| {
        !optional.contains(&spec.name) && !inputs.iter().any(|input| input.name == spec.name)
    };
    match specs.iter().find(is_missing) {
        None => Ok(()),
        Some(TensorSpec { name, datatype, shape }) => {
            let message = format!("input \"{name}\" ({}) is missing", described(*datatype, shape));
            Err(Error::invalid(name.clone(), message))
        }
    }
}

/// Checks what a call returned as a host does: each output must be declared with this datatype and
/// shape. An output that a called model returned and the plugin passes on may have any shape.
/// Outputs may be missing.
///
/// The error is `failed`, as the client of a host would receive it.
///
/// ```
/// use hostler_plugin::testing::check_outputs;
/// use hostler_plugin::{Datatype, tensor};
///
/// let specs = [tensor::spec("y", Datatype::Fp32, &[-1])];
/// let y = tensor::fp64("y", &[1], &[0.5]).unwrap();
/// let error = check_outputs(&specs, &[y]).unwrap_err();
/// assert!(error.message.starts_with(r#"the plugin returned the output "y" (FP64 [1])"#));
/// ```
pub fn check_outputs(specs: &[TensorSpec], outputs: &[Tensor]) -> Result<(), Error> {
    let fits = |output: &Tensor| {
        specs.iter().any(|spec| {
            spec.name == output.name
                && spec.datatype == output.datatype
                && (output.is_from_model || accepts(&spec.shape, &output.shape))
        })
    };
    match outputs.iter().find(|output| !fits(output)) {
        None => Ok(()),
        Some(output) => {
            let declared = specs
                .iter()
                .map(|spec| format!("\"{}\" ({})", spec.name, described(spec.datatype, &spec.shape)));
            Err(Error::failed(format!(
                "the plugin returned the output \"{}\" ({}), which its metadata does not declare; declared: {}",
                output.name,
                output.described(),
                declared.collect::<Vec<_>>().join(", ")
            )))
        }
    }
}

/// Returns whether a tensor of this shape fits. A scalar may also have one element in any number of
/// dimensions.
fn accepts(spec: &[i64], shape: &[i64]) -> bool {
    if spec.is_empty() {
        return shape.iter().all(|&dimension| dimension == 1);
    }
    spec.len() == shape.len() && spec.iter().zip(shape).all(|(&want, &got)| want < 0 || want == got)
}
