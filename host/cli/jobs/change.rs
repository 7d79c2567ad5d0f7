//! `hostler jobs cancel` and `hostler jobs retry`

use super::arguments::Change;
use super::pages::encoded;
use crate::error::{Error, Kind, Result};
use crate::output;
use serde::Deserialize;

/// Cancels each job. Returns false if one was not cancelled.
pub async fn cancel(change: Change) -> Result<bool> {
    #[derive(Deserialize)]
    struct Cancelled {
        state: String,
    }
    let mut client = change.host.client()?;
    let mut is_done = true;
    for id in &change.ids {
        match client.post_json::<Cancelled>(&format!("/jobs/{}/cancel", encoded(id))).await {
            Ok(Cancelled { state }) => output::print(format_args!("{id}: {state}")),
            Err(error) => {
                report("cancel", id, error)?;
                is_done = false;
            }
        }
    }
    Ok(is_done)
}

/// Submits the input of each job again. Returns false if one was not submitted.
pub async fn retry(change: Change) -> Result<bool> {
    #[derive(Deserialize)]
    struct Submitted {
        job_id: String,
    }
    let mut client = change.host.client()?;
    let mut is_done = true;
    for id in &change.ids {
        match client.post_json::<Submitted>(&format!("/jobs/{}/retry", encoded(id))).await {
            Ok(Submitted { job_id }) => output::print(format_args!("{id}: submitted again as {job_id}")),
            Err(error) => {
                report("retry", id, error)?;
                is_done = false;
            }
        }
    }
    Ok(is_done)
}

/// Reports why one job was not changed. Fails if the other jobs cannot be changed either.
fn report(what: &str, id: &str, error: Error) -> Result<()> {
    let error = error.context(format!("cannot {what} job \"{id}\""));
    if matches!(error.kind(), Kind::Unavailable | Kind::Deadline) {
        return Err(error);
    }
    output::report(error.message());
    Ok(())
}
