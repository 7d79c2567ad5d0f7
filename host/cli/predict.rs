//! `hostler predict`: one request, without a server.

use super::loaded::Loaded;
use super::request_file::RequestFile;
use crate::app;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::output;
use crate::policy::files::Files;
use crate::policy::plan::Plan;
use crate::policy::{CaseOptions, CaseRequest, RouteQuery};
use crate::predict::{StepLog, StepRecord};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// `hostler predict REQUEST`: prints the result.
pub fn predict(manifest: &Path, request: &Path, shows_steps: bool) -> Result<bool> {
    let request = RequestFile::read(request)?;
    let files = Files::default();
    let plan = Plan::read(&app::absolute(manifest)?, &files).map_err(app::unplanned)?;
    let Loaded { content, runtime } = Loaded::new(plan, &files)?;
    let caller = RouteQuery { request_id: "predict", header: &|_| None };
    let route = Arc::clone(content.resolve(&request.model, request.version.as_deref(), &caller)?);
    let limits = &content.plan.settings.limits;
    let timeout = request.timeout.into_iter().chain(route.timeout).min().unwrap_or(limits.default_timeout);
    let steps = shows_steps.then(Arc::<StepLog>::default);
    let options = CaseOptions {
        parameters: &request.parameters,
        timeout: timeout.min(limits.max_timeout),
        cancel: &Cancel::default(),
        steps: steps.clone(),
    };
    let data = CaseRequest::Data(request.data);
    let answer = runtime.block_on(route.answer(&content, &data, options));
    let result = answer.and_then(|payloads| route.result_of(&payloads));
    // Shown before the result is checked: they are most useful if the request failed.
    steps.iter().flat_map(|steps| steps.take()).for_each(|step| show_step(&step));
    output::print_json(String::from_utf8_lossy(&result?));
    Ok(true)
}

/// The most characters of a tensor's values that are shown.
const VALUES_SHOWN: usize = 160;

fn show_step(step: &StepRecord) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let StepRecord { step: name, model, outcome, why, inputs, outputs, time, queue } = step;
    let time = match *outcome {
        "skipped" => String::new(),
        _ => format!(" in {:.2} ms after {:.2} ms in the queue", ms(*time), ms(*queue)),
    };
    let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    output::print(format_args!("step {name} ({model}) {outcome}{time}{why}"));
    for (sign, tensors) in [("<-", inputs), ("->", outputs)] {
        for tensor in tensors {
            let mut values = Vec::new();
            // Values that JSON cannot represent are not shown.
            let _ = crate::predict::encode_tensor(tensor, false, &mut values);
            let values = String::from_utf8_lossy(&values);
            let shown: String = values.chars().take(VALUES_SHOWN).collect();
            let more = if shown.len() < values.len() { "…" } else { "" };
            let (datatype, shape) =
                (tensor.datatype().as_str(), crate::predict::format_shape(tensor.shape()));
            output::print(format_args!("  {sign} {} {datatype}{shape} {shown}{more}", tensor.name()));
        }
    }
}
