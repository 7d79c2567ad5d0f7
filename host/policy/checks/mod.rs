//! Checks: sample requests that a model must answer as expected before it goes live.
//!
//! A check file is a JSON array of `{"data": …, "parameters": …, "expect": …}`, or one such object.
//! Numbers may differ by the check's tolerance; everything else is compared exactly. An answer may
//! have more keys than `expect`. For a model with 0..n responses, the answer is a list of them.

use super::content::PolicyContent;
use super::plan::CheckPlan;
use super::route::Route;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::executor::{Call, Priority};
use crate::predict::{self, CallContext, JsonText, MemoryBudget, Parameters, Payload, StepLog};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most responses of one sample.
const RESPONSES_MAX: usize = 10_000;

/// One request and its expected result.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    pub data: Box<RawValue>,
    #[serde(default)]
    pub parameters: serde_json::Map<String, Value>,
    pub expect: Value,
}

/// Runs every sample of one file through preprocess, model and postprocess.
pub(super) async fn run(
    policy: &Arc<PolicyContent>,
    route: &Route,
    check: &CheckPlan,
    content: &[u8],
    timeout: Duration,
    cancel: &Cancel,
) -> Result<()> {
    let path = check.file.path.display();
    let samples = parse(content)
        .map_err(|error| Error::invalid(format!("check {path} is not a list of samples: {error}")))?;
    for (index, sample) in samples.into_iter().enumerate() {
        let answer = route
            .sample(policy, &sample.data, &sample.parameters, timeout, cancel, None)
            .await
            .map_err(|error| error.context(format!("check {path}[{index}] failed")))?;
        let answer = serde_json::from_slice(&answer).expect("invariant: results are JSON");
        if let Some(difference) = difference(&sample.expect, &answer, check.tolerance, String::new()) {
            return Err(Error::failed(format!("check {path}[{index}]: {difference}")));
        }
    }
    Ok(())
}

/// Parses the samples of a check file.
pub fn parse(content: &[u8]) -> serde_json::Result<Vec<Sample>> {
    let is_list = content.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if is_list { serde_json::from_slice(content) } else { Ok(vec![serde_json::from_slice(content)?]) }
}

impl Route {
    /// Runs one plain request on the calling thread, and outside of any queue if the executor can.
    /// Returns the result as JSON; for a model with 0..n responses, a list of them. `policy` is the
    /// one that the route belongs to. `cancel` stops the request as if its client had disconnected.
    /// `steps` logs the steps of a pipeline.
    pub async fn sample(
        &self,
        policy: &Arc<PolicyContent>,
        data: &RawValue,
        parameters: &serde_json::Map<String, Value>,
        timeout: Duration,
        cancel: &Cancel,
        steps: Option<Arc<StepLog>>,
    ) -> Result<Vec<u8>> {
        let (name, version) = (Arc::clone(&self.name.name), Arc::clone(&self.name.version));
        let mut context = CallContext::new("sample".into(), name, version, Some(Instant::now() + timeout));
        context.parameters = self::parameters(parameters)?;
        context.models = Some(Arc::clone(policy) as _);
        context.steps = steps.map(|steps| steps as _);
        let data = JsonText::from_checked(Bytes::from(String::from(data.get())));
        let input = match &self.transformer {
            Some(_) => Payload::Json(data),
            None => {
                let mut budget = MemoryBudget::unlimited();
                Payload::Tensors(predict::decode_inputs(&data, self.callable.metadata(), &mut budget)?)
            }
        };
        let context = Arc::new(context);
        let stopped = Arc::clone(&context);
        let _registered = cancel.on_cancel(move || stopped.cancellation.cancel());
        let call = Call {
            context,
            input: input.from_caller(),
            transformer: self.transformer.clone(),
            callable: Arc::clone(&self.callable),
            runs: None,
            batching: None,
            priority: Priority::New,
        };
        let mut json = Vec::new();
        if !self.is_streaming() {
            let response = self.executor.run_alone(call).await?;
            predict::encode_result(&response.payload, &mut json)?;
            return Ok(json);
        }
        let mut responses = self.executor.submit(call)?;
        json.push(b'[');
        for count in 0.. {
            let Some(response) = responses.next().await.transpose()? else { break };
            if count >= RESPONSES_MAX {
                return Err(Error::too_large(format!("it has more than {RESPONSES_MAX} responses")));
            }
            if count > 0 {
                json.push(b',');
            }
            predict::encode_result(&response.payload, &mut json)?;
        }
        json.push(b']');
        Ok(json)
    }
}

fn parameters(written: &serde_json::Map<String, Value>) -> Result<Parameters> {
    written.iter().map(|(name, value)| Ok((name.clone(), predict::parameter(name, value)?))).collect()
}

/// Returns the first difference between `expect` and `got`, with its place.
pub fn difference(expect: &Value, got: &Value, tolerance: f64, place: String) -> Option<String> {
    let differs = || Some(format!("result{place}: expected {expect}, got {got}"));
    match (expect, got) {
        (Value::Number(a), Value::Number(b)) => {
            // FP64 cannot distinguish large whole numbers.
            let far = match (a.as_i128(), b.as_i128()) {
                (Some(a), Some(b)) => (a - b).unsigned_abs() as f64 > tolerance,
                _ => (a.as_f64()? - b.as_f64()?).abs() > tolerance,
            };
            far.then(differs).flatten()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(index, (a, b))| difference(a, b, tolerance, format!("{place}[{index}]"))),
        // An answer may have more keys than a check expects.
        (Value::Object(a), Value::Object(b)) => a.iter().find_map(|(key, a)| match b.get(key) {
            Some(b) => difference(a, b, tolerance, format!("{place}.{key}")),
            None => Some(format!("result{place}.{key}: expected {a}, got nothing")),
        }),
        _ if expect == got => None,
        _ => differs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_name_their_place_and_respect_the_tolerance() {
        let expect = json!({"p": [0.5, 1.0], "label": "x"});
        let diff = |got: Value, tolerance| difference(&expect, &got, tolerance, String::new());
        assert_eq!(diff(json!({"p": [0.5, 1.0], "label": "x"}), 0.0), None);
        assert_eq!(diff(json!({"p": [0.50001, 1.0], "label": "x"}), 1e-4), None);
        let far = diff(json!({"p": [0.6, 1.0], "label": "x"}), 1e-4).unwrap();
        assert_eq!(far, "result.p[0]: expected 0.5, got 0.6");
        assert_eq!(diff(json!({"p": [0.5, 1.0], "label": "x", "more": 1}), 0.0), None);
        assert_eq!(diff(json!({"p": [0.5, 1.0]}), 0.0).unwrap(), "result.label: expected \"x\", got nothing");
        assert!(diff(json!({"p": [0.5], "label": "x"}), 1.0).unwrap().starts_with("result.p:"));
        assert!(diff(json!({"p": [0.5, 1.0], "label": "y"}), 1.0).unwrap().starts_with("result.label:"));
    }
}
