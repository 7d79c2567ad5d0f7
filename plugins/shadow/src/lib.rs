//! Answers with the requested model, then calls another version with the same inputs and counts
//! where the two answers differ. The client has its answer before the second call starts.

mod compare;
mod lease;
mod settings;

use compare::difference;
use hostler_plugin::{
    Callable, Error, Executor, Request, Tensor, answer, log, metrics, models, random, wait_any,
};
use lease::Lease;
use settings::Settings;

struct Shadow;

hostler_plugin::export!(Shadow: executor);

impl Executor for Shadow {
    fn submit(_: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error> {
        let settings = Settings::get()?;
        let outputs = model.call(&inputs)?;
        if random::fraction() >= settings.share {
            return Ok(outputs);
        }
        // A comparison occupies a worker of the executor, so their number is limited: clients need
        // the others.
        let Some(_lease) = Lease::take(settings.max_in_flight, settings.timeout) else {
            metrics::count("shadow_skipped", 1);
            return Ok(outputs);
        };
        answer(&outputs)?;
        metrics::count("shadow_requests", 1);
        match ask(&inputs, model, settings) {
            Ok(others) => {
                if let Some(difference) = difference(&outputs, &others, settings.tolerance) {
                    metrics::count("shadow_differences", 1);
                    log::debug(&difference);
                }
            }
            Err(error) => {
                metrics::count("shadow_failures", 1);
                log::debug(&error.message);
            }
        }
        // This result is ignored: the request is already answered.
        Ok(Vec::new())
    }
}

/// Returns the answer of the other version.
fn ask(inputs: &[Tensor], model: &Callable, settings: &Settings) -> Result<Vec<Tensor>, Error> {
    let name = settings.model.clone().unwrap_or_else(|| model.model());
    let call = models::get(&name, Some(&settings.version))?.start(inputs)?;
    match wait_any(&[&call], Some(settings.timeout)) {
        Some(_) => call.wait(),
        None => Err(Error::failed(format!("{name}:{} took longer than timeout_ms", settings.version))),
    }
}
