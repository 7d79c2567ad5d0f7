//! Makes a second call when the first takes longer than 95 of 100 calls do. The first good answer
//! wins, and the other call is cancelled. Second calls are limited to a share of all requests, so
//! that a model that has become slow does not get twice the work.

mod settings;

use hostler_plugin::latency::Latencies;
use hostler_plugin::{Callable, Error, Executor, Invocation, Request, Tensor, metrics, wait_any};
use settings::{Delay, Settings};
use std::time::{Duration, Instant};

type Outcome = Result<Vec<Tensor>, Error>;

struct Hedge;

hostler_plugin::export!(Hedge: executor);

impl Executor for Hedge {
    fn submit(_: &Request, inputs: Vec<Tensor>, model: &Callable) -> Outcome {
        let settings = Settings::get()?;
        settings.budget.earn();
        match settings.delay {
            Delay::Fixed(delay) => race(&inputs, model, Some(delay), settings).0,
            Delay::Learned { at_least } => {
                let latencies = Latencies::new(format!("{}:{}", model.model(), model.version()), 0.95);
                let delay = latencies.estimate().map(|p95| p95.max(at_least));
                let (outcome, latency) = race(&inputs, model, delay, settings);
                if let Some(latency) = latency {
                    latencies.record(latency);
                }
                outcome
            }
        }
    }
}

/// Returns the answer and the latency of the first call, until it succeeded or was abandoned.
/// `None` if the first call failed, because that says nothing about its latency.
fn race(
    inputs: &[Tensor],
    model: &Callable,
    delay: Option<Duration>,
    settings: &Settings,
) -> (Outcome, Option<Duration>) {
    let started = Instant::now();
    let first = match model.start(inputs) {
        Ok(first) => first,
        Err(error) => return (Err(error), None),
    };
    let ended = wait_any(&[&first], delay).is_some();
    let second = if ended || !settings.budget.take() { None } else { model.start(inputs).ok() };
    let Some(second) = second else {
        let outcome = first.wait();
        let latency = outcome.is_ok().then(|| started.elapsed());
        return (outcome, latency);
    };
    metrics::count("hedges", 1);
    if wait_any(&[&first, &second], None) == Some(0) {
        match first.wait() {
            Ok(outputs) => (Ok(outputs), Some(started.elapsed())),
            Err(error) => (second_or(second, error), None),
        }
    } else {
        match second.wait() {
            Ok(outputs) => {
                metrics::count("hedge_wins", 1);
                (Ok(outputs), Some(started.elapsed()))
            }
            Err(_) => {
                let outcome = first.wait();
                let latency = outcome.is_ok().then(|| started.elapsed());
                (outcome, latency)
            }
        }
    }
}

/// Returns the answer of the second call after the first has failed. If both fail, returns the
/// first error.
fn second_or(second: Invocation, error: Error) -> Outcome {
    let outputs = second.wait().map_err(|_| error)?;
    metrics::count("hedge_wins", 1);
    Ok(outputs)
}
