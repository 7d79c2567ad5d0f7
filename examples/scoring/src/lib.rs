//! The two plugins of the example in one component. The config key `role` selects one:
//!
//! - `validate` returns `x` if every feature is a finite number from `low` to `high`; otherwise the
//!   error names the first invalid one.
//! - `gate` is a router: it names the step `big` if the probability is from `low` to `high`. If the
//!   small model is sure, it names no step.

use hostler_plugin::{Datatype, Error, Model, ModelMetadata, Request, Tensor, config, tensor};

struct Scoring;

hostler_plugin::export!(Scoring: model);

const FEATURES: i64 = 8;

fn is_gate() -> bool {
    matches!(config::get("role"), Ok(Some(role)) if role == "gate")
}

impl Model for Scoring {
    fn metadata() -> ModelMetadata {
        if is_gate() {
            return ModelMetadata {
                inputs: vec![tensor::spec("probability", Datatype::Fp32, &[1, 1])],
                outputs: vec![tensor::spec("to", Datatype::Bytes, &[-1])],
            };
        }
        let x = || tensor::spec("x", Datatype::Fp32, &[1, FEATURES]);
        ModelMetadata { inputs: vec![x()], outputs: vec![x()] }
    }

    fn predict(_: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let low = config::number("low", f32::MIN, f32::MIN..=f32::MAX)?;
        let high = config::number("high", f32::MAX, f32::MIN..=f32::MAX)?;
        let values = inputs[0].to_f32()?;
        if is_gate() {
            let to: &[&str] = if (low..=high).contains(&values[0]) { &["big"] } else { &[] };
            return Ok(vec![tensor::bytes("to", &[to.len() as i64], to)?]);
        }
        match values.iter().position(|value| !(low..=high).contains(value)) {
            None => Ok(inputs),
            Some(at) => {
                let message = format!("feature {at} is {}; it must be from {low} to {high}", values[at]);
                Err(Error::invalid(format!("x[0][{at}]"), message))
            }
        }
    }
}
