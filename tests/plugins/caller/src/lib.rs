//! Calls another model while it answers, to test such calls. The models that it calls take `x` and
//! return `y`, both `FP32 [-1]`. A parameter of the request controls it or, if it is not set, the
//! plugin's config.
//!
//! | key | |
//! |---|---|
//! | `to`, `version` | as a model it returns what that model returns for `x`; without `to` it is a leaf: `y` is `x` plus the parameter `offset` |
//! | `elements` | the number of elements of `x` that a leaf returns, all by default |
//! | `before`, `after` | as a transformer it calls that model with the input, and with the output; both optional |
//! | `within_us` | the timeout of a call |
//! | `do` | `call`, the default; `twice`: both answers; `start`: two concurrent calls, and the first answer; `stream`: all responses of a model like `repeat`, with `x` as the elements; `catch`: -1 instead of an error, of such a model too; `keep`: the outputs are never dropped; `unread`: `count` concurrent calls, which have all answered before one is read |

use hostler_plugin::{
    Callable, Datatype, Error, Model, ModelMetadata, Payload, Request, Tensor, Transformer, config, json,
    log, models, tensor, wait_any,
};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

struct Caller;

hostler_plugin::export!(Caller: transformer, model);

impl Model for Caller {
    fn metadata() -> ModelMetadata {
        let spec = |name| tensor::spec(name, Datatype::Fp32, &[-1]);
        ModelMetadata { inputs: vec![spec("x")], outputs: vec![spec("y")] }
    }

    fn predict(request: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let settings = Settings::of(request);
        let Some(to) = settings.text("to")? else { return leaf(&settings, &inputs[0]) };
        let (version, deed) = (settings.text("version")?, settings.text("do")?);
        let ask = || ask(&settings, deed.as_deref(), &models::get(&to, version.as_deref())?, &inputs);
        Ok(vec![match deed.as_deref() {
            Some("twice") => joined(&[ask()?, ask()?])?,
            Some("catch") => ask().or_else(|error| {
                log::info(&format!("caught: {}", error.message));
                tensor::fp32("y", &[1], &[-1.0])
            })?,
            _ => ask()?,
        }])
    }
}

impl Transformer for Caller {
    fn preprocess(request: &Request, input: Payload) -> Result<Vec<Tensor>, Error> {
        let Payload::Json(text) = input else { return Err(Error::unsupported("send JSON")) };
        let numbers = match json::parse(&text) {
            Ok(json::Value::Array(values)) => values,
            _ => return Err(Error::invalid_input("expected numbers")),
        };
        let number = |value: &json::Value| match value {
            json::Value::Number(number) => Ok(*number as f32),
            _ => Err(Error::invalid_input("expected numbers")),
        };
        let x = numbers.iter().map(number).collect::<Result<Vec<_>, _>>()?;
        around(request, "before", tensor::fp32("x", &[x.len() as i64], &x)?)
    }

    fn postprocess(request: &Request, outputs: Vec<Tensor>) -> Result<Payload, Error> {
        let y = around(request, "after", tensor::named(&outputs, "y")?.renamed("x"))?;
        let y: Vec<String> = y[0].to_f32()?.iter().map(|y| format!("{y:.1}")).collect();
        Ok(Payload::Json(format!("[{}]", y.join(","))))
    }
}

/// Calls the model that `key` names with `x`, and returns its answer as `x`.
fn around(request: &Request, key: &'static str, x: Tensor) -> Result<Vec<Tensor>, Error> {
    let settings = Settings::of(request);
    let Some(to) = settings.text(key)? else { return Ok(vec![x]) };
    let deed = settings.text("do")?;
    Ok(vec![ask(&settings, deed.as_deref(), &models::get(&to, None)?, &[x])?.renamed("x")])
}

fn ask(
    settings: &Settings,
    deed: Option<&str>,
    model: &Callable,
    inputs: &[Tensor],
) -> Result<Tensor, Error> {
    let timeout = settings.text("within_us")?.and_then(|text| text.parse().ok()).map(Duration::from_micros);
    let start = |inputs: &[Tensor]| match timeout {
        Some(timeout) => model.start_within(inputs, timeout),
        None => model.start(inputs),
    };
    let outputs = match (deed, timeout) {
        (Some("stream"), _) if !model.is_streaming() => {
            return Err(Error::unsupported("it gives one response"));
        }
        (Some("stream" | "catch"), _) if model.is_streaming() => {
            return everything(start(&stream_inputs(&inputs[0])?)?.responses());
        }
        (Some("keep"), _) => {
            let outputs = model.call(inputs)?;
            outputs.iter().for_each(|output| std::mem::forget(output.renamed("kept")));
            outputs
        }
        (Some("unread"), _) => {
            let count = settings.number("count")?.unwrap_or(2.0) as usize;
            let calls = (0..count).map(|_| start(inputs)).collect::<Result<Vec<_>, _>>()?;
            // For an executor with one worker: the others have ended when the last one has.
            if let Some(last) = calls.last() {
                wait_any(&[last], None);
            }
            let outputs = calls.into_iter().map(|call| call.wait()).collect::<Result<Vec<_>, _>>();
            outputs.map_err(|error| Error::failed(format!("refused: {}", error.message)))?.remove(0)
        }
        (Some("start"), _) => {
            let calls = [start(inputs)?, start(inputs)?];
            let first = wait_any(&[&calls[0], &calls[1]], None);
            let [left, right] = calls;
            if first == Some(0) { left.wait()? } else { right.wait()? }
        }
        (_, Some(timeout)) => model.call_within(inputs, timeout)?,
        _ => model.call(inputs)?,
    };
    Ok(tensor::named(&outputs, "y")?.renamed("y"))
}

fn stream_inputs(x: &Tensor) -> Result<Vec<Tensor>, Error> {
    let elements: Vec<i32> = x.to_f32()?.iter().map(|x| *x as i32).collect();
    let count = elements.len() as i64;
    Ok(vec![
        tensor::int32("IN", &[count], &elements)?,
        tensor::uint32("DELAY", &[count], &vec![1; elements.len()])?,
        tensor::uint32("WAIT", &[1], &[0])?,
    ])
}

fn everything(responses: impl Iterator<Item = Result<Vec<Tensor>, Error>>) -> Result<Tensor, Error> {
    let mut y = Vec::new();
    for outputs in responses {
        y.extend(tensor::named(&outputs?, "OUT")?.to_i32()?.into_iter().map(|element| element as f32));
    }
    tensor::fp32("y", &[y.len() as i64], &y)
}

fn joined(parts: &[Tensor]) -> Result<Tensor, Error> {
    let mut y = Vec::new();
    for part in parts {
        y.extend(part.to_f32()?);
    }
    tensor::fp32("y", &[y.len() as i64], &y)
}

fn leaf(settings: &Settings, x: &Tensor) -> Result<Vec<Tensor>, Error> {
    if let Some(elements) = settings.text("elements")?.and_then(|text| text.parse::<u32>().ok()) {
        return Ok(vec![Tensor::create(
            "y",
            Datatype::Fp32,
            &[elements.into()],
            &x.read(0, 4 * u64::from(elements)),
        )?]);
    }
    let request = settings.request;
    let Some(offset) = settings.number("offset")? else { return Ok(vec![x.renamed("y")]) };
    log::info(&format!("leaf {} {}", request.model(), request.id()));
    let y: Vec<f32> = x.to_f32()?.iter().map(|x| x + offset as f32).collect();
    Ok(vec![tensor::fp32("y", &x.shape(), &y)?])
}

/// The parameters of the request and, for those that are not set, the config.
struct Settings<'a> {
    request: &'a Request,
    has_parameters: bool,
}

impl<'a> Settings<'a> {
    fn of(request: &'a Request) -> Self {
        Settings { request, has_parameters: !request.parameter_names().is_empty() }
    }

    fn text(&self, key: &'static str) -> Result<Option<String>, Error> {
        let text = if self.has_parameters { self.request.text(key)? } else { None };
        if text.is_some() { Ok(text) } else { configured(key) }
    }

    /// Returns a number from the request.
    fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        if self.has_parameters { self.request.number(key) } else { Ok(None) }
    }
}

/// The config is constant during the life of an instance, so each key is read once.
fn configured(key: &'static str) -> Result<Option<String>, Error> {
    static KNOWN: Mutex<BTreeMap<&'static str, Option<String>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("one thread");
    if !known.contains_key(key) {
        known.insert(key, config::get(key)?);
    }
    Ok(known[key].clone())
}
