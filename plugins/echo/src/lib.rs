//! The smallest plugin that is a model: it returns its input. If the manifest sets the config key
//! `prefix`, each element starts with it.

use hostler_plugin::{Datatype, Error, Model, ModelMetadata, Request, Tensor, config, tensor};

struct Echo;

hostler_plugin::export!(Echo: model);

impl Model for Echo {
    fn metadata() -> ModelMetadata {
        let message = || tensor::spec("message", Datatype::Bytes, &[-1]);
        ModelMetadata { inputs: vec![message()], outputs: vec![message()] }
    }

    fn predict(_: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        match config::get("prefix")? {
            // Passing a tensor on copies nothing.
            None => Ok(inputs),
            Some(prefix) => inputs.iter().map(|input| prefixed(input, &prefix)).collect(),
        }
    }
}

fn prefixed(input: &Tensor, prefix: &str) -> Result<Tensor, Error> {
    let elements: Vec<_> =
        input.to_bytes()?.iter().map(|element| [prefix.as_bytes(), element].concat()).collect();
    tensor::bytes(&input.name(), &input.shape(), &elements)
}
