//! A model that doubles its input.

use hostler_plugin::{Datatype, Error, Model, ModelMetadata, Request, Tensor, tensor};

struct Double;

hostler_plugin::export!(Double: model);

impl Model for Double {
    fn metadata() -> ModelMetadata {
        ModelMetadata {
            inputs: vec![tensor::spec("x", Datatype::Fp32, &[-1])],
            outputs: vec![tensor::spec("y", Datatype::Fp32, &[-1])],
        }
    }

    fn predict(_: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let x = tensor::named(&inputs, "x")?;
        let doubled: Vec<f32> = x.to_f32()?.iter().map(|element| 2.0 * element).collect();
        Ok(vec![tensor::fp32("y", &x.shape(), &doubled)?])
    }
}
