//! `hostler predict`: one request, without a server.

use super::loaded::Loaded;
use super::prepared::{Prepared, Times};
use super::request_file::Request;
use crate::app;
use crate::error::{Error, Result};
use crate::output;
use crate::policy::files::Files;
use crate::policy::plan::Plan;
use crate::predict::{Payload, Response, StepLog, StepRecord};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub struct Predict {
    pub manifest: PathBuf,
    pub request: PredictRequest,
    pub shows_steps: bool,
    /// How often the request runs.
    pub calls: u32,
}

pub enum PredictRequest {
    /// As for `POST /predict`.
    File(PathBuf),
    /// As for `POST /predict/{model}`. Without a model, it is the only one of the manifest.
    Body { file: PathBuf, content_type: Option<String>, model: Option<String> },
}

/// `hostler predict`: prints the result to stdout, and the time and the memory that it took to
/// stderr.
pub fn predict(predict: &Predict) -> Result<bool> {
    let files = Files::default();
    let plan = Plan::read(&app::absolute(&predict.manifest)?, &files).map_err(app::unplanned)?;
    let request = request(&predict.request, &plan)?;
    let prepared = Prepared::new(Loaded::new(plan, &files)?, &request, "predict")?;
    let steps = predict.shows_steps.then(Arc::<StepLog>::default);
    let answer = prepared.call(steps.clone());
    // Shown before the result is checked: they are most useful if the request failed.
    steps.iter().flat_map(|steps| steps.take()).for_each(|step| show_step(&step));
    let (took, responses) = answer.map_err(explained)?;
    let payloads: Vec<Payload> = responses.iter().map(|response| response.payload.clone()).collect();
    match &payloads[..] {
        [Payload::Bytes { content_type, data }] => print_bytes(content_type, data)?,
        _ => output::print_json(String::from_utf8_lossy(&prepared.route.result_of(&payloads)?)),
    }
    let mut further = Vec::new();
    for number in 2..=predict.calls {
        let call = prepared.call(None).map_err(explained);
        further.push(call.map_err(|error| error.context(format!("call {number}")))?.0);
    }
    output::report_lines(&costs(&prepared.loaded, &responses, took, further));
    Ok(true)
}

/// Reports where a plugin was, and returns the error as its author reads it.
fn explained(error: Error) -> Error {
    error.detail().into_iter().for_each(|detail| output::report_lines(&output::quoted_lines(detail)));
    error.for_author()
}

/// Prints an answer as it is. A terminal gets only text, without what could control it.
fn print_bytes(content_type: &str, data: &[u8]) -> Result<()> {
    if !std::io::stdout().is_terminal() {
        output::print_bytes(data);
        return Ok(());
    }
    let text = std::str::from_utf8(data).map_err(|_| {
        Error::unsupported(format!(
            "the answer is {} bytes of {content_type}, which a terminal cannot show; redirect the output to a file",
            data.len()
        ))
    })?;
    output::print_text(format!("{}\n", text.trim_end()));
    Ok(())
}

fn request(request: &PredictRequest, plan: &Plan) -> Result<Request> {
    let (file, content_type, model) = match request {
        PredictRequest::File(path) => return Request::read(path),
        PredictRequest::Body { file, content_type, model } => (file, content_type, model),
    };
    let mut names: Vec<&str> = plan.models.keys().map(|name| &*name.name).collect();
    names.dedup();
    let model = match (model, &names[..]) {
        (Some(model), _) => model,
        (None, [only]) => *only,
        (None, _) => {
            let names = names.join(", ");
            return Err(Error::invalid(format!("name the model of the body with --model: {names}")));
        }
    };
    let ending = file.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    let content_type = match (content_type, ending.as_deref()) {
        (Some(content_type), _) => content_type.as_str(),
        (None, Some("json")) => "application/json",
        (None, Some("jpg" | "jpeg")) => "image/jpeg",
        (None, Some("png")) => "image/png",
        (None, Some("txt")) => "text/plain",
        (None, _) => "application/octet-stream",
    };
    Request::read_body(file, content_type, model)
}

/// Returns lines that say what the calls took: the first one, and those that followed.
fn costs(loaded: &Loaded, responses: &[Response], first: Duration, further: Vec<Duration>) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let mut text = format!("first call: {:.2} ms", ms(first));
    if let [response] = responses {
        let service = &response.service;
        text += &format!(
            " (preprocess {:.2}, model {:.2}, postprocess {:.2})",
            ms(service.input),
            ms(service.infer),
            ms(service.output)
        );
    }
    if !further.is_empty() {
        let (count, times) = (further.len(), Times::new(further));
        let us = |share| times.percentile_us(share).unwrap_or_default();
        text += &format!(
            "\n{count} further calls, microseconds: p50 {:.1}, p99 {:.1}, longest {:.1}",
            us(0.5),
            us(0.99),
            us(1.0)
        );
    }
    for plugin in loaded.content.plan.plugins.keys() {
        let kb = loaded.memory_largest(plugin).div_ceil(1024);
        text += &format!("\nplugin {plugin}: {kb} KB of memory in its largest instance");
    }
    text
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
