//! A model that is occasionally slow or fails, to test executors: `y` is `x`, and the plugin's
//! config selects the faults. Calls are counted over all instances, so one in 20 is every 20th.
//!
//! | key | default | |
//! |---|---|---|
//! | `fast_ms` | 0 | time of a call |
//! | `slow_every`, `slow_ms` | 0 (never), 0 | every n-th call takes this long instead |
//! | `fail_every`, `fail_kind` | 0 (never), `unavailable` | every n-th call fails, after its time |
//! | `offset` | 0 | is added to each element |
//!
//! It counts `calls` when they start and `finished` when they end, so the difference is the number
//! of calls that were stopped.

use hostler_plugin::{
    Datatype, Error, ErrorKind, Model, ModelMetadata, Request, Tensor, config, metrics, state, tensor,
};
use std::time::Duration;

struct Faulty;

hostler_plugin::export!(Faulty: model);

impl Model for Faulty {
    fn metadata() -> ModelMetadata {
        let spec = |name| tensor::spec(name, Datatype::Fp32, &[-1]);
        ModelMetadata { inputs: vec![spec("x")], outputs: vec![spec("y")] }
    }

    fn predict(_: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let call = state::add("calls", 1);
        metrics::count("calls", 1);
        let slow = is_due(call, "slow_every")?;
        let time = config::number(if slow { "slow_ms" } else { "fast_ms" }, 0, 0..=u64::MAX)?;
        if time > 0 {
            std::thread::sleep(Duration::from_millis(time));
        }
        metrics::count("finished", 1);
        if is_due(call, "fail_every")? {
            return Err(Error::of(fail_kind()?, format!("call {call} fails, as its config says")));
        }
        let offset = config::number("offset", 0.0, f32::MIN..=f32::MAX)?;
        if offset == 0.0 {
            return Ok(vec![inputs[0].renamed("y")]);
        }
        let y: Vec<f32> = inputs[0].to_f32()?.iter().map(|x| x + offset).collect();
        Ok(vec![tensor::fp32("y", &inputs[0].shape(), &y)?])
    }
}

fn is_due(call: i64, key: &str) -> Result<bool, Error> {
    let every = config::number(key, 0, 0..=i64::MAX)?;
    Ok(every > 0 && call % every == 0)
}

fn fail_kind() -> Result<ErrorKind, Error> {
    let kind = config::get("fail_kind")?;
    Ok(match kind.as_deref().unwrap_or("unavailable") {
        "unavailable" => ErrorKind::Unavailable,
        "overloaded" => ErrorKind::Overloaded,
        "failed" => ErrorKind::Failed,
        "invalid-input" => ErrorKind::InvalidInput,
        other => {
            return Err(config::bad("fail_kind", other, "unavailable, overloaded, failed or invalid-input"));
        }
    })
}
