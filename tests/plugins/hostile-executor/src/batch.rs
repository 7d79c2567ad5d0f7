//! Faults of an executor in a batch, selected by the parameter `batch` of the first request.

use hostler_plugin::{Callable, Error, Request, Tensor, answer, models};

type Outcomes = Vec<Result<Vec<Tensor>, Error>>;

pub fn submit(requests: &[Request], inputs: &[Vec<Tensor>], model: &Callable) -> Result<Outcomes, Error> {
    let deed = match requests.first() {
        Some(request) => request.text("batch")?,
        None => None,
    };
    let mut outcomes: Outcomes = inputs.iter().map(|inputs| model.call(inputs)).collect();
    match deed.as_deref() {
        // `submit` handles the parameter `do`.
        None => return Err(Error::unsupported("no batches")),
        Some("ok") => {}
        Some("short") => drop(outcomes.pop()),
        Some("long") => outcomes.push(Err(Error::failed("one too many"))),
        Some("mixed") => outcomes[0] = Err(Error::invalid("x", "the first one fails, as asked")),
        Some("fail") => return Err(Error::failed("the batch fails, as asked")),
        Some("trap") => panic!("the request asked for this panic"),
        Some("answer") => answer(&inputs[0])?,
        Some("swap") => outcomes.reverse(),
        Some("recurse") => {
            let (model, version) = (model.model(), model.version());
            outcomes[0] = models::get(&model, Some(&version)).and_then(|model| model.call(&inputs[0]));
        }
        Some(unknown) => {
            return Err(Error::invalid("parameters.batch", format!("\"{unknown}\" is no misdeed")));
        }
    }
    Ok(outcomes)
}
