//! Faults of an executor in one request, by name. Some of them never return.

use hostler_plugin::{
    Callable, Error, ErrorKind, Request, Tensor, answer, metrics, models, sleep, state, tensor, wait_any,
};
use std::hint::black_box;
use std::mem::forget;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A callable of an earlier request, for `kept`.
static KEPT: Mutex<Option<Callable>> = Mutex::new(None);

pub fn submit(request: &Request, inputs: &[Tensor], model: &Callable) -> Result<Vec<Tensor>, Error> {
    let deed = request.text("do")?.unwrap_or_else(|| "ok".into());
    match deed.as_str() {
        "ok" => {}
        "trap" => panic!("the request asked for this panic"),
        "last-words" => {
            (0..count(request)?).for_each(|line| eprintln!("chatter {line} of {}", request.id()));
            panic!("last words of {}", request.id());
        }
        "spin" => spin(),
        "sleep" => sleep(Duration::from_secs(1 << 40)),
        "leak" => leak(inputs, model, 3)?,
        "unwaited" => {
            model.start(inputs)?;
            return Err(Error::failed("did not wait"));
        }
        // For a model that never ends.
        "forever" => drop(wait_any(&[&model.start(inputs)?], None)),
        "empty-wait" => drop(wait_any(&[], None)),
        "wait-twice" => return wait_twice(inputs, model),
        "cache" => return cache(inputs, model),
        "hold" => return hold(inputs, model),
        "reshape" => return reshape(inputs, model),
        "many" => return many(inputs, model, count(request)?),
        "leak-many" => leak(inputs, model, count(request)?)?,
        "call-many" => call_many(inputs, model, count(request)?)?,
        "answer" => answer(inputs_as_outputs(inputs, model)?.as_slice())?,
        "answer-twice" => answer_twice(inputs, model)?,
        "answer-then-trap" => {
            answer(&model.call(inputs)?)?;
            panic!("the request asked for this panic after its answer");
        }
        "answer-then-spin" => {
            answer(&model.call(inputs)?)?;
            spin();
        }
        "answer-then-fail" => {
            answer(&model.call(inputs)?)?;
            return Err(Error::failed("fails after its answer"));
        }
        "answer-wrong" => answer(&surprise()?)?,
        "wrong-outputs" => return surprise(),
        "wrong-inputs" => return model.call(&surprise()?),
        "recurse" => return models::get(&request.model(), Some(&request.version()))?.call(inputs),
        "unknown-model" => return models::get("nobody", None)?.call(inputs),
        "keep" => *lock() = Some(models::get(&request.model(), Some(&request.version()))?),
        "kept" => return kept(inputs),
        "dropped" => dropped(request)?,
        "fill-state" => fill_state(count(request)?)?,
        "large-state" => state::set("large", &vec![0; 32 << 20], None)?,
        "counters" => {
            for number in 0..count(request)? {
                state::add(&format!("counter {number}"), 1);
            }
        }
        "tally" => return Err(Error::failed(format!("tally {}", state::add("tally", 1)))),
        "bad-metric" => metrics::count("bad name\n# HELP", 1),
        "many-metrics" => {
            for number in 0..count(request)? {
                metrics::set(&format!("metric_{number}"), 1.0);
            }
        }
        "odd-metric" => metrics::set("odd", f64::NAN),
        "labels" => labels(request)?,
        "error" => return Err(error(&request.text("kind")?.unwrap_or_default())),
        unknown => return Err(Error::invalid("parameters.do", format!("\"{unknown}\" is no misdeed"))),
    }
    model.call(inputs)
}

/// Answers from the plugin's state, as a cache does.
fn cache(inputs: &[Tensor], model: &Callable) -> Result<Vec<Tensor>, Error> {
    if let Some(outputs) = state::get_tensors("cache") {
        return Ok(outputs);
    }
    let outputs = model.call(inputs)?;
    state::set_tensors("cache", &outputs, None)?;
    Ok(outputs)
}

/// Answers with tensors that the instance has kept since an earlier request.
fn hold(inputs: &[Tensor], model: &Callable) -> Result<Vec<Tensor>, Error> {
    static HELD: Mutex<Vec<Tensor>> = Mutex::new(Vec::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let outputs = model.call(inputs)?;
    let same = outputs.iter().map(|tensor| tensor.renamed(&tensor.name())).collect();
    let before = std::mem::replace(&mut *held, same);
    Ok(if before.is_empty() { outputs } else { before })
}

/// Returns the model's outputs as one row each, in three dimensions.
fn reshape(inputs: &[Tensor], model: &Callable) -> Result<Vec<Tensor>, Error> {
    let outputs = model.call(inputs)?;
    outputs.iter().map(|tensor| tensor.reshaped(&[1, 1, 4])).collect()
}

/// Returns the parameter `count`.
fn count(request: &Request) -> Result<u64, Error> {
    let count = request.integer("count")?.unwrap_or(10_000);
    u64::try_from(count).map_err(|_| Error::invalid("parameters.count", "count is negative"))
}

/// Uses metrics with labels; each case exceeds a limit or is invalid in a different way.
fn labels(request: &Request) -> Result<(), Error> {
    let gauge = |name: &str, labels: &[&str]| metrics::Gauge::new(name, "What it is.", labels);
    match request.text("what")?.unwrap_or_default().as_str() {
        "names" => (0..65).try_for_each(|n| gauge(&format!("name_{n}"), &[]).map(drop)),
        "series" => {
            let gauge = gauge("series", &["n"])?;
            (0..1001).try_for_each(|n| gauge.set(&[&n.to_string()], 1.0))
        }
        "value" => gauge("value", &["n"])?.set(&[&"v".repeat(129)], 1.0),
        "missing" => gauge("value", &["n"])?.set(&[], 1.0),
        "name" => gauge("bad name\n# HELP", &[]).map(drop),
        "twice" => {
            gauge("twice", &[])?.set(&[], 1.0)?;
            metrics::Counter::new("twice", "What it is.", &[]).map(drop)
        }
        "relabelled" => {
            gauge("labelled", &["a"])?.set(&["x"], 1.0)?;
            gauge("labelled", &["b"]).map(drop)
        }
        "buckets" => metrics::Histogram::new("buckets", "What it is.", &[], &[0.0; 33]).map(drop),
        "less" => metrics::Counter::new("less", "What it is.", &[])?.add(&[], -1.0),
        "nan" => gauge("nan", &[])?.set(&[], f64::NAN),
        other => Err(Error::invalid("parameters.what", format!("\"{other}\" is nothing"))),
    }
}

/// Computes forever, without a host call that could stop it.
fn spin() {
    for number in 0_u64.. {
        black_box(number);
    }
}

/// Starts calls that are neither awaited nor dropped.
fn leak(inputs: &[Tensor], model: &Callable, count: u64) -> Result<(), Error> {
    for _ in 0..count {
        forget(model.start(inputs)?);
    }
    Ok(())
}

/// Makes `count` concurrent calls. Returns the answer of the first, or the error of the first one
/// that was not admitted.
fn many(inputs: &[Tensor], model: &Callable, count: u64) -> Result<Vec<Tensor>, Error> {
    let started: Result<Vec<_>, _> = (0..count).map(|_| model.start(inputs)).collect();
    let mut answers = started?.into_iter().map(|call| call.wait());
    answers.next().unwrap_or_else(|| Err(Error::failed("no call was made")))
}

/// Makes `count` calls one after the other, and keeps all answers.
fn call_many(inputs: &[Tensor], model: &Callable, count: u64) -> Result<(), Error> {
    for _ in 0..count {
        forget(model.call(inputs)?);
    }
    Ok(())
}

/// Checks that the outcome of a call is returned once.
fn wait_twice(inputs: &[Tensor], model: &Callable) -> Result<Vec<Tensor>, Error> {
    let call = model.start(inputs)?;
    wait_any(&[&call, &call], None);
    let outcome = call.outcome();
    if wait_any(&[&call], None) != Some(0) || call.outcome().is_some() {
        return Err(Error::failed("a call ended twice"));
    }
    outcome.unwrap_or_else(|| Err(Error::failed("a call that has ended has no outcome")))
}

/// Returns an answer that no model returned.
fn inputs_as_outputs(inputs: &[Tensor], model: &Callable) -> Result<Vec<Tensor>, Error> {
    let outputs = model.call(inputs)?;
    Ok(outputs.iter().zip(inputs).map(|(output, input)| input.renamed(&output.name())).collect())
}

fn answer_twice(inputs: &[Tensor], model: &Callable) -> Result<(), Error> {
    let outputs = model.call(inputs)?;
    answer(&outputs)?;
    if answer(&outputs).is_ok() {
        metrics::count("answered_twice", 1);
    }
    Ok(())
}

fn surprise() -> Result<Vec<Tensor>, Error> {
    Ok(vec![tensor::fp32("surprise", &[1, 3], &[1.0, 2.0, 3.0])?])
}

fn lock() -> std::sync::MutexGuard<'static, Option<Callable>> {
    KEPT.lock().expect("invariant: an instance has one thread")
}

/// Uses the callable that an earlier request of the same instance kept.
fn kept(inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    match &*lock() {
        Some(model) => model.call(inputs),
        None => Err(Error::failed("nothing was kept in this instance")),
    }
}

/// Uses a handle that it has dropped. Only a component has handles.
#[cfg(not(target_arch = "wasm32"))]
fn dropped(_: &Request) -> Result<(), Error> {
    Err(Error::unsupported("there are no handles"))
}

/// Uses a handle that it has dropped.
#[cfg(target_arch = "wasm32")]
fn dropped(request: &Request) -> Result<(), Error> {
    let callable = hostler_plugin::bindings::executor::models::get(&request.model(), None)?;
    let handle = callable.handle();
    drop(callable);
    // SAFETY: there is no memory behind a handle; the host checks its number.
    let callable = unsafe { hostler_plugin::bindings::executor::callables::Callable::from_handle(handle) };
    black_box(callable.model());
    Ok(())
}

/// Sets keys of 16 KB each. They must not occupy more than the state's limit.
fn fill_state(count: u64) -> Result<(), Error> {
    for number in 0..count {
        state::set(&format!("key {number}"), &[0; 16 << 10], None)?;
    }
    let kept = (0..count).filter(|number| state::get(&format!("key {number}")).is_some()).count();
    metrics::set("kept_keys", kept as f64);
    Ok(())
}

fn error(kind: &str) -> Error {
    let kind = match kind {
        "invalid-input" => return Error::invalid("x", "an invalid input, as asked"),
        "unavailable" => ErrorKind::Unavailable,
        "overloaded" => ErrorKind::Overloaded,
        "deadline" => ErrorKind::Deadline,
        "cancelled" => ErrorKind::Cancelled,
        _ => ErrorKind::Failed,
    };
    Error::of(kind, "an error, as asked")
}
