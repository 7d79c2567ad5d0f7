//! The requests of a drill and their expected answers: the samples of the manifest's checks, or
//! else inputs generated from a model's metadata, whose first answer is taken as correct.

use super::client::Client;
use crate::error::{Error, Result};
use crate::policy::files::Files;
use crate::policy::plan::{ModelName, ModelPlan, Plan};
use crate::policy::{Case, CaseRequest, Expected, difference, parse_check};
use bytes::Bytes;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::OnceLock;

/// One request and its expected answer.
pub struct Sample {
    pub model: String,
    pub executor: String,
    pub body: Bytes,
    expect: Value,
    tolerance: f64,
    /// An answer that was checked. Equal bytes need no second check.
    right: OnceLock<Bytes>,
}

/// Where the samples of a model come from, or why there are none.
#[derive(serde::Serialize)]
pub struct Source {
    pub model: String,
    pub samples: usize,
    pub from: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_sample: Option<String>,
}

impl Sample {
    /// Returns what is wrong with the body of an answer with status 200; `None` if it is correct.
    pub fn judge(&self, body: &Bytes) -> Option<String> {
        if self.right.get() == Some(body) {
            return None;
        }
        let answer: Value = match serde_json::from_slice(body) {
            Ok(answer) => answer,
            Err(error) => return Some(format!("model \"{}\": not JSON: {error}", self.model)),
        };
        let wrong = difference(&self.expect, &answer["result"], self.tolerance, String::new());
        if wrong.is_none() {
            let _ = self.right.set(body.clone());
        }
        wrong.map(|wrong| format!("model \"{}\": {wrong}", self.model))
    }
}

/// Returns the samples of all models, and where they come from.
pub async fn gather(plan: &Plan, files: &Files, http: SocketAddr) -> Result<(Vec<Sample>, Vec<Source>)> {
    let mut client = Client::new(http);
    let lost = |lost: super::client::RequestError| Error::failed(format!("GET /models: {lost}"));
    let answer = client.get("/models").await.map_err(lost)?;
    let served: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let (mut samples, mut sources) = (Vec::new(), Vec::new());
    for (name, model) in &plan.models {
        let metadata = served["models"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|served| served["name"] == *name.name && served["version"] == *name.version);
        let checked = from_checks(name, model, files)?;
        let from = if checked.is_empty() { "metadata" } else { "checks" };
        let found = match metadata {
            _ if !checked.is_empty() => Ok(checked),
            Some(_) if model.transformer.is_some() => {
                Err("no sample: add checks, because only the transformer knows its input format".to_owned())
            }
            Some(metadata) => {
                from_metadata(name, &metadata["inputs"], &mut client).await.map(|sample| vec![sample])
            }
            None => Err("no sample: /models does not list it".to_owned()),
        };
        let (mut found, no_sample) = match found {
            Ok(found) => (found, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        found.iter_mut().for_each(|sample| sample.executor = model.executor.to_string());
        sources.push(Source { model: name.to_string(), samples: found.len(), from, no_sample });
        samples.extend(found);
    }
    Ok((samples, sources))
}

fn sample(name: &ModelName, data: Value, parameters: Value, expect: Value, tolerance: f64) -> Sample {
    let mut body = json!({"model": &*name.name, "version": &*name.version, "data": data});
    if parameters.as_object().is_some_and(|parameters| !parameters.is_empty()) {
        body["parameters"] = parameters;
    }
    let body = Bytes::from(body.to_string());
    let (model, executor) = (name.to_string(), String::new());
    Sample { model, executor, body, expect, tolerance, right: OnceLock::new() }
}

fn from_checks(name: &ModelName, model: &ModelPlan, files: &Files) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for check in &model.checks {
        let path = check.file.path.display();
        let parsed = parse_check(&files.read(&check.file)?);
        for case in parsed.map_err(|error| error.context(format!("check {path}")))? {
            // The load is sent to POST /predict, which has only this form.
            if let Case {
                request: CaseRequest::Data(data), expected: Some(Expected::Result(expect)), ..
            } = case
            {
                let data = serde_json::from_str(data.get()).expect("invariant: it was parsed");
                samples.push(sample(name, data, Value::Object(case.parameters), expect, check.tolerance));
            }
        }
    }
    Ok(samples)
}

/// Generates an input of ones, or else of zeros, in the smallest shape. The model's first answer
/// becomes the expected one.
async fn from_metadata(name: &ModelName, inputs: &Value, client: &mut Client) -> Result<Sample, String> {
    let mut why = String::new();
    for number in [1, 0] {
        let data: serde_json::Map<String, Value> = inputs
            .as_array()
            .into_iter()
            .flatten()
            .map(|input| (input["name"].as_str().unwrap_or_default().to_owned(), tensor(input, number)))
            .collect();
        let mut sample = sample(name, Value::Object(data), Value::Null, Value::Null, 0.0);
        let answer = match client.post("/predict", "drill", sample.body.clone()).await {
            Ok(answer) => answer,
            Err(lost) => return Err(format!("no sample: {lost}")),
        };
        let mut body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status == 200 {
            sample.expect = body["result"].take();
            // The model may run on another device during the drill.
            sample.tolerance = 1e-5 * largest(&sample.expect).max(1.0);
            return Ok(sample);
        }
        let said = body["error"]["message"].as_str().unwrap_or("no reason given");
        why = format!(
            "no sample: add checks; an input generated from its metadata returned {}: {said}",
            answer.status
        );
    }
    Err(why)
}

/// Generates a tensor that repeats one number; free dimensions become 1.
fn tensor(input: &Value, number: i64) -> Value {
    let element = match input["datatype"].as_str() {
        Some("BOOL") => json!(number == 1),
        Some("BYTES") => json!(number.to_string()),
        _ => json!(number),
    };
    let shape = input["shape"].as_array().into_iter().flatten().filter_map(Value::as_i64);
    shape.rev().fold(element, |inner, dimension| {
        let length = if dimension < 0 { 1 } else { dimension as usize };
        Value::Array(vec![inner; length])
    })
}

fn largest(value: &Value) -> f64 {
    match value {
        Value::Number(number) => number.as_f64().map_or(0.0, f64::abs),
        Value::Array(values) => values.iter().map(largest).fold(0.0, f64::max),
        Value::Object(values) => values.values().map(largest).fold(0.0, f64::max),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_made_in_the_smallest_shape() {
        let made = |datatype: &str, shape: Value| tensor(&json!({"datatype": datatype, "shape": shape}), 1);
        assert_eq!(made("FP32", json!([-1, 3])), json!([[1, 1, 1]]));
        assert_eq!(made("BOOL", json!([])), json!(true));
        assert_eq!(made("BYTES", json!([2])), json!(["1", "1"]));
        assert_eq!(largest(&json!({"a": [-3.5, 2], "b": "9"})), 3.5);
    }
}
