//! Tensor specifications as JSON.

use crate::predict::TensorSpec;
use serde_json::{Value, json};

/// Returns inputs or outputs of a model in the form of the Open Inference Protocol.
pub fn tensor_specs(specs: &[TensorSpec]) -> Vec<Value> {
    let spec = |spec: &TensorSpec| json!({"name": &*spec.name, "datatype": spec.datatype.as_str(), "shape": &spec.shape[..]});
    specs.iter().map(spec).collect()
}
