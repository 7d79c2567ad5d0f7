//! Tensor specifications as JSON.

use crate::predict::{ShapeSpec, TensorSpec};
use serde_json::{Value, json};

/// Returns inputs or outputs of a model in the form of the Open Inference Protocol. Its shape is
/// always a list of dimensions, so a shape of unknown rank is an empty one, and has a further
/// member that tells it from a scalar.
pub fn tensor_specs(specs: &[TensorSpec]) -> Vec<Value> {
    let spec = |spec: &TensorSpec| {
        let mut described = json!({
            "name": &*spec.name,
            "datatype": spec.datatype.as_str(),
            "shape": spec.shape.on_wire(),
        });
        if spec.shape == ShapeSpec::AnyRank {
            described["rank"] = "any".into();
        }
        described
    };
    specs.iter().map(spec).collect()
}
