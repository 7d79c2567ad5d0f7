//! Conversion of values that enter or leave an instance: tensors, errors, metadata.

use super::bindings::types;
use super::instance_pool::RunningInstance;
use crate::error::Error;
use crate::predict::{Metadata, Shape, Tensor, TensorSpec};
use wasmtime::component::Resource;

/// Takes a guest's result out of its instance. An error that the guest returned is the inner error,
/// distinct from errors of the host, which are the outer one.
pub(super) fn in_plugin<E, T, R>(
    instance: &mut RunningInstance<E>,
    outcome: std::result::Result<T, types::Error>,
    take: impl FnOnce(&mut RunningInstance<E>, T) -> wasmtime::Result<R>,
) -> wasmtime::Result<std::result::Result<R, Error>> {
    match outcome {
        Ok(value) => take(instance, value).map(Ok),
        Err(error) => {
            let state = instance.store.data();
            Ok(Err(state.host_errors.returned(error, &state.spec.name)))
        }
    }
}

pub(super) fn push_inputs<E>(
    instance: &mut RunningInstance<E>,
    tensors: Vec<Tensor>,
) -> wasmtime::Result<Vec<Resource<Tensor>>> {
    instance.store.data_mut().push_inputs(tensors)
}

pub(super) fn take_tensors<E>(
    instance: &mut RunningInstance<E>,
    tensors: Vec<Resource<Tensor>>,
) -> wasmtime::Result<Vec<Tensor>> {
    Ok(instance.store.data_mut().handles.take_all(tensors)?)
}

pub(super) fn tensor_specs(specs: Vec<types::TensorSpec>) -> Vec<TensorSpec> {
    let spec = |spec: types::TensorSpec| TensorSpec {
        name: spec.name.into(),
        datatype: spec.datatype.into(),
        shape: spec.shape.iter().map(|&dimension| dimension.max(-1)).collect::<Shape>().into(),
        optional: false,
    };
    specs.into_iter().map(spec).collect()
}

impl From<types::ModelMetadata> for Metadata {
    fn from(metadata: types::ModelMetadata) -> Self {
        let (inputs, outputs) = (tensor_specs(metadata.inputs), tensor_specs(metadata.outputs));
        Metadata { inputs, outputs, streaming: false }
    }
}
