//! An executor that misbehaves on request, to test that the host withstands it. The request's
//! parameter `do` selects the fault; without one, the call is passed on.

mod batch;
mod misdeed;

use hostler_plugin::{Callable, Error, Executor, Request, Tensor};

struct Hostile;

hostler_plugin::export!(Hostile: executor);

impl Executor for Hostile {
    fn submit(request: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error> {
        misdeed::submit(request, &inputs, model)
    }

    fn submit_batch(
        requests: &[Request],
        inputs: Vec<Vec<Tensor>>,
        model: &Callable,
    ) -> Result<Vec<Result<Vec<Tensor>, Error>>, Error> {
        batch::submit(requests, &inputs, model)
    }
}
