//! The steps of a pipeline that a prediction of the page has run, as JSON.

use crate::lock::LockUnpoisoned;
use crate::predict::{self, StepObserver, StepRecord, Tensor};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::time::Duration;

/// The most steps that are shown.
const STEPS_MAX: usize = 500;

/// The most characters of a tensor's values that are shown.
const VALUES_MAX: usize = 160;

/// Values of tensors with more bytes are not shown: they would have to be encoded whole.
const TENSOR_BYTES_MAX: usize = 16 << 10;

/// Steps in the order in which they ended.
#[derive(Default)]
pub(super) struct ShownSteps(Mutex<Steps>);

#[derive(Default)]
struct Steps {
    shown: Vec<Value>,
    more: usize,
}

impl ShownSteps {
    /// Returns the steps, and how many more there were.
    pub fn take(&self) -> (Vec<Value>, usize) {
        let Steps { shown, more } = std::mem::take(&mut *self.0.lock_unpoisoned());
        (shown, more)
    }
}

impl StepObserver for ShownSteps {
    fn expected(&self, _: &str) {}

    fn begun(&self, _: &str) {}

    fn ended(&self, _: &str, record: StepRecord) {
        if self.0.lock_unpoisoned().shown.len() >= STEPS_MAX {
            self.0.lock_unpoisoned().more += 1;
            return;
        }
        // Not under the lock, which other steps need as well.
        let entry = entry(&record);
        let mut steps = self.0.lock_unpoisoned();
        steps.shown.push(entry);
    }

    fn wants_tensors(&self) -> bool {
        true
    }
}

fn entry(record: &StepRecord) -> Value {
    let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let StepRecord { step, model, outcome, why, inputs, outputs, time, queue } = record;
    let tensors = |tensors: &[Tensor]| tensors.iter().map(tensor).collect::<Vec<_>>();
    json!({
        "step": step,
        "model": model,
        "outcome": outcome,
        "why": why,
        "ms": ms(*time),
        "queue_ms": ms(*queue),
        "inputs": tensors(inputs),
        "outputs": tensors(outputs),
    })
}

fn tensor(tensor: &Tensor) -> Value {
    let mut values = String::from("too large to show");
    if Tensor::bytes_kept(std::slice::from_ref(tensor)) <= TENSOR_BYTES_MAX {
        let mut encoded = Vec::new();
        values = match predict::encode_tensor(tensor, false, &mut encoded) {
            Ok(()) => String::from_utf8_lossy(&encoded).into_owned(),
            Err(_) => "has values that JSON cannot represent, such as NaN".into(),
        };
        if values.chars().count() > VALUES_MAX {
            values = values.chars().take(VALUES_MAX).chain(['…']).collect();
        }
    }
    json!({
        "name": tensor.name(),
        "datatype": tensor.datatype().as_str(),
        "shape": tensor.shape(),
        "values": values,
    })
}
