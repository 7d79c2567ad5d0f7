//! The options of a job: in a JSON body, or in the query where the body is the input.

use crate::error::{Error, Result, did_you_mean};
use crate::jobs::RequestedBudgets;
use crate::predict::{self, Parameters, Priority, Scalar};
use crate::server::http;
use std::fmt::Display;
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

/// The options of a job whose body is the input.
pub struct JobOptions {
    pub budgets: RequestedBudgets,
    pub webhook: Option<String>,
    pub priority: Option<Priority>,
    /// Every other name of the query.
    pub parameters: Parameters,
}

/// Reads the options of a job from a query.
///
/// # Errors
/// `invalid_input` for a budget that is no number of at least 1, or an option that is given twice.
pub fn query_options(query: Option<&str>) -> Result<JobOptions> {
    let (mut numbers, mut webhook, mut parameters) = ([None; 5], None, Parameters::new());
    let mut priority = None;
    for pair in http::query_pairs(query, "true") {
        let (name, value) = pair?;
        let twice = || Error::invalid(format!("{name} is given twice")).field(&name);
        if name == "webhook" {
            if webhook.replace(value).is_some() {
                return Err(twice());
            }
            continue;
        }
        if name == "priority" {
            if priority.replace(query_priority(&value)?).is_some() {
                return Err(twice());
            }
            continue;
        }
        let Some(place) = BUDGETS.iter().position(|budget| *budget == name) else {
            check_parameter(&name)?;
            let parameter = predict::parameter(&name, &http::query_value(value))?;
            parameters.push((name, parameter));
            continue;
        };
        let unit = if name == "max_attempts" { "" } else { " of milliseconds" };
        match value.parse() {
            Ok(0) | Err(_) => {
                let shown: String = value.chars().take(80).collect();
                let shown = Scalar::Text(shown.into());
                let message = format!("{name} is {shown}; it must be a whole number{unit}, at least 1");
                return Err(Error::invalid(message).field(&name));
            }
            Ok(_) if numbers[place].is_some() => return Err(twice()),
            Ok(number) => numbers[place] = Some(number),
        }
    }
    Ok(JobOptions { budgets: budgets(numbers)?, webhook, priority, parameters })
}

/// Returns the priority that a client asks for.
///
/// # Errors
/// `invalid_input` if no priority has this number.
pub fn priority(number: u64) -> Result<Priority> {
    let is_one = (1..=u64::from(Priority::LAST.number())).contains(&number);
    is_one.then(|| Priority::asked(number)).ok_or_else(|| no_priority(&number))
}

/// Reads a priority in a query.
///
/// # Errors
/// `invalid_input` if the text is not a priority.
pub fn query_priority(value: &str) -> Result<Priority> {
    let fault = |_| no_priority(&Scalar::Text(value.chars().take(80).collect::<String>().into()));
    value.parse().map_err(fault).and_then(priority)
}

fn no_priority(shown: &impl Display) -> Error {
    let last = Priority::LAST.number();
    let message =
        format!("priority is {shown}; it must be a whole number from 1, which comes first, to {last}");
    Error::invalid(message).field("priority")
}

/// Refuses a parameter that is probably a misspelled option.
fn check_parameter(name: &str) -> Result<()> {
    let options = BUDGETS.into_iter().chain(["webhook", "priority"]);
    let hint = match name {
        "version" => "; name the version in the path, as model:version".to_owned(),
        _ => did_you_mean(name, options),
    };
    if hint.is_empty() {
        return Ok(());
    }
    let name: String = name.chars().take(80).collect();
    Err(Error::invalid(format!(
        "the query \"{name}\" is not an option of a job{hint}; send a parameter of the model with this name to POST \
         /predict/async, in the body"
    ))
    .field(name))
}
