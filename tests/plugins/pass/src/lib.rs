//! The smallest executor: it passes every call on. The time that it adds to a request is the
//! minimum cost of a custom executor.

use hostler_plugin::{Callable, Error, Executor, Request, Tensor};

/// Concurrent calls of one batch.
const AT_ONCE: usize = 16;

struct Pass;

hostler_plugin::export!(Pass: executor);

impl Executor for Pass {
    fn submit(_: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error> {
        model.call(&inputs)
    }

    fn submit_batch(
        _: &[Request],
        inputs: Vec<Vec<Tensor>>,
        model: &Callable,
    ) -> Result<Vec<Result<Vec<Tensor>, Error>>, Error> {
        let mut outcomes = Vec::with_capacity(inputs.len());
        for chunk in inputs.chunks(AT_ONCE) {
            let started: Vec<_> = chunk.iter().map(|inputs| model.start(inputs)).collect();
            outcomes.extend(started.into_iter().map(|call| call.and_then(|call| call.wait())));
        }
        Ok(outcomes)
    }
}
