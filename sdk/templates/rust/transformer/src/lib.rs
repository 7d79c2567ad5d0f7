//! Turns `{"value": 41}` into the input of the model, and its output into `{"answer": 42}`.

use hostler_plugin::json::{self, Value};
use hostler_plugin::{Error, Payload, Request, Tensor, Transformer, tensor};

struct Number;

hostler_plugin::export!(Number: transformer);

impl Transformer for Number {
    fn preprocess(_: &Request, input: Payload) -> Result<Vec<Tensor>, Error> {
        let Payload::Json(text) = input else { return Err(Error::unsupported("send JSON")) };
        let value = match json::parse(&text) {
            Ok(Value::Object(fields)) => fields.into_iter().find(|(name, _)| name == "value"),
            _ => None,
        };
        let Some((_, Value::Number(value))) = value else {
            return Err(Error::invalid("value", "expected a number"));
        };
        Ok(vec![tensor::fp32("x", &[1], &[value as f32])?])
    }

    fn postprocess(_: &Request, outputs: Vec<Tensor>) -> Result<Payload, Error> {
        let answer = tensor::named(&outputs, "y")?.to_f32()?;
        Ok(Payload::Json(format!("{{\"answer\":{}}}", answer[0])))
    }
}
