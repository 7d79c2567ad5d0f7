//! Calls the model, and calls it again if it fails. The config key `attempts` is how often at most.

use hostler_plugin::{Callable, Error, ErrorKind, Executor, Request, Tensor, config, metrics};

struct Retry;

hostler_plugin::export!(Retry: executor);

impl Executor for Retry {
    fn submit(_: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error> {
        let attempts = config::get("attempts")?.and_then(|text| text.parse().ok()).unwrap_or(2);
        for _ in 1..attempts {
            match model.call(&inputs) {
                Err(error) if error.kind != ErrorKind::InvalidInput => metrics::count("again", 1),
                outcome => return outcome,
            }
        }
        model.call(&inputs)
    }
}
