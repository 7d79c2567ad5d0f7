//! `hostler jobs purge`

use super::arguments::Purge;
use super::pages::{Query, counted};
use crate::error::{Error, Result};
use crate::output;
use serde::Deserialize;

/// Deletes jobs with as many requests as it takes: each one deletes for about a second.
pub async fn run(purge: Purge) -> Result<bool> {
    #[derive(Deserialize)]
    struct Purged {
        purged: u64,
        next: Option<String>,
    }
    let Purge { which, older_than, all, dry_run, host } = purge;
    let mut query = Query::of(&which);
    if let Some(time) = older_than {
        query.add("older_than_s", &time.as_secs().to_string());
    }
    if query.is_empty() && !all {
        return Err(Error::invalid(
            "no filter given; select the jobs with --state, --model, --older-than and the like, or all of them with --all",
        ));
    }
    if all {
        query.add("all", "true");
    }
    if dry_run {
        query.add("dry_run", "true");
    }
    let mut client = host.client()?;
    let (mut jobs, mut after) = (0, None::<String>);
    loop {
        let mut page = query.clone();
        if let Some(after) = &after {
            page.add("after", after);
        }
        let purged = client.post_json::<Purged>(&page.on("/admin/jobs/purge")).await;
        let Purged { purged, next } = purged.map_err(|error| match jobs {
            0 => error.context("cannot purge the jobs"),
            _ => error.context(format!("cannot purge all of the jobs; {jobs} are done")),
        })?;
        jobs += purged;
        if next.is_none() {
            break;
        }
        if next == after {
            let address = client.address();
            return Err(Error::failed(format!(
                "cannot purge all of the jobs; {jobs} are done: {address} makes no progress"
            )));
        }
        after = next;
    }
    let verb = match (dry_run, jobs) {
        (true, _) => "would be",
        (false, 1) => "was",
        (false, _) => "were",
    };
    output::print(format_args!("{} {verb} deleted", counted(jobs)));
    Ok(true)
}
