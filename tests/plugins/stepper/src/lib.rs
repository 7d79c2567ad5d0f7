//! A pipeline step for tests: `y` is the sum of its inputs, element by element. The plugin's config
//! adds the following effects, in this order.
//!
//! | key | default | |
//! |---|---|---|
//! | `inputs` | `a` | names of its inputs, FP32[-1] each; those after the first may be shorter |
//! | `optional` | none | the inputs that a request may omit |
//! | `sleep_ms` | 0 | time of a call |
//! | `flaky` | 0 | this many calls with the same first element fail before one succeeds |
//! | `fail_below`, `fail_kind` | none, `failed` | a call fails if its first element is below |
//! | `omit_below` | none | `y` is omitted if the first element is below |
//! | `add` | 0 | is added to each element |
//! | `names` | none | a list of steps; the bits of the first element, as a whole number, select those in `to` |
//! | `numbers` | false | `to` has their indices instead of their names |
//! | `int32` | false | its tensors are INT32 instead |
//! | `pass`, `first` | false | instead of all this, `y` is the unchanged first input, or its first element |
//! | `param` | none | a request parameter, a number, that is added as well |
//!
//! It counts `calls` when they start and `finished` when they end.

use hostler_plugin::{
    Datatype, Error, ErrorKind, Model, ModelMetadata, OptionalInputs, Request, Tensor, config, metrics,
    state, tensor,
};
use std::sync::OnceLock;
use std::time::Duration;

struct Stepper;

hostler_plugin::export!(Stepper: model, optional_inputs);

impl OptionalInputs for Stepper {
    fn names() -> Vec<String> {
        text("optional").map(|names| names.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }
}

/// The shortcut that replaces the effects of the other config keys.
#[derive(Clone, Copy)]
enum Short {
    No,
    Pass,
    First,
}

/// Constant during the life of an instance, so it is read only once: later calls need no host call.
static SHORT: OnceLock<Short> = OnceLock::new();

fn short() -> Short {
    match (text("pass"), text("first")) {
        (Some(_), _) => Short::Pass,
        (None, Some(_)) => Short::First,
        (None, None) => Short::No,
    }
}

fn text(key: &str) -> Option<String> {
    config::get(key).ok().flatten()
}

fn names() -> Vec<String> {
    text("names").map(|names| names.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

fn gives_numbers() -> bool {
    text("numbers").is_some_and(|value| value == "true")
}

fn is_int32() -> bool {
    text("int32").is_some_and(|value| value == "true")
}

fn read(tensor: &Tensor) -> Result<Vec<f32>, Error> {
    if !is_int32() {
        return tensor.to_f32();
    }
    Ok(tensor.to_i32()?.into_iter().map(|element| element as f32).collect())
}

impl Model for Stepper {
    fn metadata() -> ModelMetadata {
        let inputs = text("inputs").unwrap_or_else(|| "a".into());
        let datatype = if is_int32() { Datatype::Int32 } else { Datatype::Fp32 };
        let spec = |name: &str| tensor::spec(name, datatype, &[-1]);
        let mut outputs = vec![spec("y")];
        if !names().is_empty() {
            let datatype = if gives_numbers() { Datatype::Int64 } else { Datatype::Bytes };
            outputs.push(tensor::spec("to", datatype, &[-1]));
        }
        ModelMetadata { inputs: inputs.split(',').map(spec).collect(), outputs }
    }

    fn predict(request: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        match *SHORT.get_or_init(short) {
            Short::Pass => return Ok(vec![inputs[0].renamed("y")]),
            Short::First => {
                return Ok(vec![Tensor::create("y", Datatype::Fp32, &[1], &inputs[0].read(0, 4))?]);
            }
            Short::No => {}
        }
        metrics::count("calls", 1);
        let mut y = read(&inputs[0])?;
        let first = y.first().copied().unwrap_or(0.0);
        let time = config::number("sleep_ms", 0, 0..=u64::MAX)?;
        if time > 0 {
            std::thread::sleep(Duration::from_millis(time));
        }
        let flaky = config::number("flaky", 0, 0..=100_u8)?;
        if flaky > 0 {
            let key = format!("{:x}", first.to_bits());
            let tried = state::get(&key).and_then(|value| value.first().copied()).unwrap_or(0);
            let _ = state::set(&key, &[if tried < flaky { tried + 1 } else { 0 }], None);
            if tried < flaky {
                return Err(Error::of(
                    ErrorKind::Unavailable,
                    format!("attempt {} fails, as its config says", tried + 1),
                ));
            }
        }
        if first < config::number("fail_below", f32::MIN, f32::MIN..=f32::MAX)? {
            return Err(Error::of(fail_kind()?, format!("{first} is too small, as its config says")));
        }
        let add = config::number("add", 0.0, f32::MIN..=f32::MAX)?;
        for other in &inputs[1..] {
            y.iter_mut().zip(read(other)?).for_each(|(y, other)| *y += other);
        }
        let param = match text("param") {
            Some(name) => request.number(&name)?.unwrap_or(0.0) as f32,
            None => 0.0,
        };
        y.iter_mut().for_each(|y| *y += add + param);
        let mut outputs = Vec::new();
        if first >= config::number("omit_below", f32::MIN, f32::MIN..=f32::MAX)? {
            let whole: Vec<i32> = y.iter().map(|element| *element as i32).collect();
            let shape = inputs[0].shape();
            outputs.push(if is_int32() {
                tensor::int32("y", &shape, &whole)?
            } else {
                tensor::fp32("y", &shape, &y)?
            });
        }
        let names = names();
        if !names.is_empty() {
            let bits = first as i64;
            let chosen: Vec<usize> = (0..names.len()).filter(|at| bits >> at & 1 == 1).collect();
            outputs.push(if gives_numbers() {
                let numbers: Vec<i64> = chosen.iter().map(|at| *at as i64).collect();
                tensor::int64("to", &[numbers.len() as i64], &numbers)?
            } else {
                let chosen: Vec<&str> = chosen.iter().map(|at| names[*at].as_str()).collect();
                tensor::bytes("to", &[chosen.len() as i64], &chosen)?
            });
        }
        metrics::count("finished", 1);
        Ok(outputs)
    }
}

fn fail_kind() -> Result<ErrorKind, Error> {
    let kind = config::get("fail_kind")?;
    Ok(match kind.as_deref().unwrap_or("failed") {
        "failed" => ErrorKind::Failed,
        "unavailable" => ErrorKind::Unavailable,
        "overloaded" => ErrorKind::Overloaded,
        "invalid-input" => ErrorKind::InvalidInput,
        other => {
            return Err(config::bad("fail_kind", other, "failed, unavailable, overloaded or invalid-input"));
        }
    })
}
