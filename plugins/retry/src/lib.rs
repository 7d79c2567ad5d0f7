//! Repeats a call after an error that may be temporary. Pauses grow and are partly random, the
//! request's deadline applies, and a budget over all requests prevents retries from overloading a
//! model that is down.

mod settings;

use hostler_plugin::{Callable, Error, Executor, Request, Tensor, metrics, random, sleep};
use settings::Settings;
use std::time::Duration;

struct Retry;

hostler_plugin::export!(Retry: executor);

impl Executor for Retry {
    fn submit(request: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error> {
        let settings = Settings::get()?;
        settings.budget.earn();
        for attempt in 1.. {
            let error = match model.call(&inputs) {
                Err(error) if settings.kinds.contains(&error.kind) => error,
                outcome => return outcome,
            };
            if attempt >= settings.attempts {
                metrics::count("retries_exhausted", 1);
                return Err(error);
            }
            let pause = settings.pause(attempt, random::fraction());
            if request.time_left().is_some_and(|left| pause >= Duration::from_millis(left)) {
                metrics::count("retries_out_of_time", 1);
                return Err(error);
            }
            if !settings.budget.take() {
                metrics::count("budget_denied", 1);
                return Err(error);
            }
            metrics::count("retries", 1);
            sleep(pause);
        }
        unreachable!("invariant: the loop ends at the last attempt")
    }
}
