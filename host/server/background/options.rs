//! The options of a job: in a JSON body, or in the query where the body is the input.

use crate::error::{Error, Result};
use crate::jobs::RequestedBudgets;
use crate::predict::{self, Parameters, Scalar};
use crate::server::http;
use std::time::Duration;

/// The fields of `budgets`, in order. `timeout_ms` is the name that `/predict` has for
/// `max_runtime_ms`, the time of one attempt.
pub const BUDGETS: [&str; 5] =
    ["timeout_ms", "max_attempts", "max_runtime_ms", "max_total_runtime_ms", "run_after_ms"];

pub fn budgets(numbers: [Option<u64>; 5]) -> Result<RequestedBudgets> {
    let [timeout, max_attempts, max_runtime, max_total_runtime, run_after] = numbers;
    if timeout.is_some() && max_runtime.is_some() {
        let message = "timeout_ms and max_runtime_ms are two names of one limit; send one of them";
        return Err(Error::invalid(message).field("timeout_ms"));
    }
    Ok(RequestedBudgets {
        max_attempts,
        max_runtime: max_runtime.or(timeout).map(Duration::from_millis),
        max_total_runtime: max_total_runtime.map(Duration::from_millis),
        run_after: run_after.map(Duration::from_millis).unwrap_or_default(),
    })
}

/// Reads the budgets and the parameters of a query.
///
/// # Errors
/// `invalid_input` for a budget that is no number of at least 1, or one that is given twice.
pub fn query_options(query: Option<&str>) -> Result<(RequestedBudgets, Parameters)> {
    let (mut numbers, mut parameters) = ([None; 5], Parameters::new());
    for pair in http::query_pairs(query, "true") {
        let (name, value) = pair?;
        let Some(place) = BUDGETS.iter().position(|budget| *budget == name) else {
            let parameter = predict::parameter(&name, &http::query_value(value))?;
            parameters.push((name, parameter));
            continue;
        };
        let unit = if name == "max_attempts" { "" } else { " of milliseconds" };
        let refused = |what: String| Err(Error::invalid(what).field(&name));
        match value.parse() {
            Ok(0) | Err(_) => {
                let shown: String = value.chars().take(80).collect();
                let shown = Scalar::Text(shown.into());
                return refused(format!("{name} is {shown}; it must be a whole number{unit}, at least 1"));
            }
            Ok(_) if numbers[place].is_some() => return refused(format!("{name} is given twice")),
            Ok(number) => numbers[place] = Some(number),
        }
    }
    Ok((budgets(numbers)?, parameters))
}
