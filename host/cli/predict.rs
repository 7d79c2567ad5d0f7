//! `hostler predict`: one request, without a server.

use super::loaded::Loaded;
use crate::app;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, FileLimits, Progress};
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
    let limit = FileLimits::default().of(FileKind::Request);
    let text = if request == Path::new("-") {
        input_file::read_stream(std::io::stdin().lock(), limit)
    } else {
        input_file::read(request, limit, &Progress::default())
    };
    let text = text.map_err(|error| error.context(format!("cannot read {}", request.display())))?;
    // The fields of POST /predict.
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Request {
        model: String,
        version: Option<Version>,
        data: Box<serde_json::value::RawValue>,
        parameters: Option<serde_json::Map<String, serde_json::Value>>,
        timeout_ms: Option<std::num::NonZeroU64>,
    }
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "version must be a string or a whole number")]
    enum Version {
        Text(String),
        Number(u64),
    }
    // Some editors begin a text with a byte order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let request: Request = serde_json::from_slice(text)
        .map_err(|error| Error::invalid(format!("{} is not a request: {error}", request.display())))?;
    let version = request.version.map(|version| match version {
        Version::Text(text) => text,
        Version::Number(number) => number.to_string(),
    });
    let files = Files::default();
    let plan = Plan::read(&app::absolute(manifest)?, &files).map_err(app::unplanned)?;
    let Loaded { content, runtime } = Loaded::new(plan, &files)?;
    let caller = RouteQuery { request_id: "predict", header: &|_| None };
    let route = Arc::clone(content.resolve(&request.model, version.as_deref(), &caller)?);
    let asked_time = request.timeout_ms.map(|ms| Duration::from_millis(ms.get()));
    let limits = &content.plan.settings.limits;
    let timeout = asked_time.into_iter().chain(route.timeout).min().unwrap_or(limits.default_timeout);
    let parameters = request.parameters.unwrap_or_default();
    let steps = shows_steps.then(Arc::<StepLog>::default);
    let options = CaseOptions {
        parameters: &parameters,
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
