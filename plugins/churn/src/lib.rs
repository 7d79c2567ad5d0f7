//! The transformer of `examples/bankchurn`: turns a customer's record into the model's 18 features,
//! and the model's probabilities into an answer. `plugins/churn-py` and `plugins/churn-js` are the
//! same transformer in other languages. All three return the same bytes, which
//! `tests/data/churn_cases.json` verifies.

mod answer;
#[cfg(test)]
mod cases;
mod features;
mod record;
mod value;

use hostler_plugin::{Blob, Datatype, Error, Payload, Request, Tensor, Transformer, assets, tensor};
use std::sync::OnceLock;

use features::{FEATURES, Scaling};
use record::Record;

/// A customer with at least this probability counts as lost.
const CHURN: f64 = 0.5;
/// With at least this probability, the risk is `high`.
const HIGH_RISK: f64 = 0.7;
/// With at least this probability, the risk is `medium`; below it, `low`.
const MEDIUM_RISK: f64 = 0.4;

/// The notes that preprocess leaves for postprocess. A plain record, the usual case, needs no note.
const RECORD: &[u8] = b"";
const EXPLAIN: &[u8] = b"explain";
const TENSORS: &[u8] = b"tensors";

struct Churn;

hostler_plugin::export!(Churn: transformer);

impl Transformer for Churn {
    fn preprocess(request: &Request, input: Payload) -> Result<Vec<Tensor>, Error> {
        match input {
            Payload::Json(text) => preprocess_record(request, &text),
            Payload::Bytes(blob) => preprocess_record(request, json_text(&blob)?),
            Payload::Tensors(tensors) => pass_on(request, tensors),
        }
    }

    fn postprocess(request: &Request, outputs: Vec<Tensor>) -> Result<Payload, Error> {
        match request.note().as_slice() {
            RECORD => answer(&outputs, 1),
            EXPLAIN => answer(&outputs, 1 + record::FIELDS),
            TENSORS => Ok(Payload::Tensors(outputs)),
            _ => Err(Error::failed("the note is not one that preprocess leaves")),
        }
    }
}

fn preprocess_record(request: &Request, text: &str) -> Result<Vec<Tensor>, Error> {
    let record = Record::parse(text)?;
    let explain = request.flag("explain")?;
    let row = features::row(&record, scaling()?);
    let mut rows = vec![row];
    if explain {
        request.set_note(EXPLAIN);
        rows.extend((0..record::FIELDS).map(|field| features::occluded(&row, field)));
    }
    let shape = [rows.len() as i64, FEATURES as i64];
    Ok(vec![tensor::fp32("input", &shape, rows.as_flattened())?])
}

/// Passes tensors on: callers of the Open Inference Protocol call the model directly.
fn pass_on(request: &Request, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    if request.flag("explain")? {
        return Err(Error::unsupported("\"explain\" needs a record: tensors are passed on as they are"));
    }
    request.set_note(TENSORS);
    Ok(tensors)
}

fn json_text(blob: &Blob) -> Result<&str, Error> {
    let media_type = blob.content_type.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
    if !media_type.eq_ignore_ascii_case("application/json") {
        let got = value::quoted(&blob.content_type);
        return Err(Error::unsupported(format!("content type {got}: expected application/json")));
    }
    str::from_utf8(&blob.data).map_err(|_| value::not_json())
}

/// Parsed once per instance.
fn scaling() -> Result<&'static Scaling, Error> {
    static SCALING: OnceLock<Scaling> = OnceLock::new();
    match SCALING.get() {
        Some(scaling) => Ok(scaling),
        None => {
            let scaling = Scaling::parse(&assets::read("scaling")?)?;
            Ok(SCALING.get_or_init(|| scaling))
        }
    }
}

fn answer(outputs: &[Tensor], rows: usize) -> Result<Payload, Error> {
    let probabilities = tensor::named(outputs, "probabilities")?;
    let (expected, got) = (tensor::described(Datatype::Fp32, &[rows as i64, 2]), probabilities.described());
    if expected != got {
        return Err(Error::failed(format!("tensor \"probabilities\": expected {expected}, got {got}")));
    }
    answer::json(&probabilities.to_f32()?).map(Payload::Json)
}
