//! `/admin/jobs`: what operators do with all jobs at once.

use super::query::{self, flag, unknown};
use crate::error::{Error, Result};
use crate::jobs::{Filter, Jobs, Purged};
use crate::server::audit::{Actor, Auditor};
use crate::server::http::{self, Reply};
use crate::server::plain::jobs::filter;
use hyper::StatusCode;
use serde_json::json;
use std::time::{Duration, SystemTime};

/// `POST /admin/jobs/reset`: begins with an empty store instead of a damaged one.
pub(super) async fn reset(jobs: &Jobs) -> Result<Reply> {
    let place = jobs.reset().await?;
    Ok(http::json_of(StatusCode::OK, &json!({"set_aside": place})))
}

/// `POST /admin/jobs/purge`: deletes jobs that have ended. One request deletes for about a second;
/// `next` is the `after` of the request that goes on.
pub(super) async fn purge(
    jobs: &Jobs,
    query: Option<&str>,
    operator: &str,
    auditor: &Auditor,
    actor: Actor,
) -> Result<Reply> {
    let Purge { filter, is_dry_run } = Purge::parse(query)?;
    if !is_dry_run {
        let target = query.unwrap_or_default().chars().take(1000).collect();
        auditor.record(actor, "purge_jobs", target).await?;
    }
    let Purged { jobs, next } = jobs.purge(filter, is_dry_run).await?;
    if jobs > 0 && !is_dry_run {
        tracing::info!(jobs, operator, "jobs purged");
    }
    let answer = json!({"purged": jobs, "dry_run": is_dry_run, "next": next.map(|next| next.0)});
    Ok(http::json_of(StatusCode::OK, &answer))
}

struct Purge {
    filter: Filter,
    is_dry_run: bool,
}

impl Purge {
    fn parse(query: Option<&str>) -> Result<Self> {
        const MORE: [&str; 3] = ["older_than_s", "all", "dry_run"];
        let (mut filter, mut is_dry_run, mut is_all, mut is_filtered) =
            (Filter::default(), false, false, false);
        let mut older_than = None;
        let pairs: Vec<(String, String)> = http::query_pairs(query, "true").collect::<Result<_>>()?;
        filter::check_unique(&pairs)?;
        for (name, value) in pairs {
            match name.as_str() {
                "all" => is_all = flag(&name, &value)?,
                "dry_run" => is_dry_run = flag(&name, &value)?,
                "older_than_s" => {
                    older_than = Some(age(&value)?);
                    is_filtered = true;
                }
                _ if filter::set(&mut filter, &name, &value)? => is_filtered |= name != "after",
                _ => return Err(unknown(&name, &[&filter::PARAMETERS[..], &MORE].concat())),
            }
        }
        filter::check(&filter)?;
        if let Some(open) = filter.states.iter().find(|state| !state.is_final()) {
            return Err(Error::invalid(format!(
                "cannot purge jobs that are {}: only jobs that have ended are deleted; cancel them first",
                open.as_str()
            ))
            .field("state"));
        }
        if is_filtered == is_all {
            let message = match is_all {
                true => "all=true and a filter contradict each other; send one of them",
                false => {
                    "no filter given; send one such as state=failed or older_than_s=3600, or \
                     all=true for every job that has ended"
                }
            };
            return Err(Error::invalid(message));
        }
        if let Some(before) = older_than {
            filter.ended_before = Some(filter.ended_before.map_or(before, |earlier| earlier.min(before)));
        }
        Ok(Purge { filter, is_dry_run })
    }
}

/// Reads how long ago jobs must have ended. Returns the time before which they have.
fn age(value: &str) -> Result<SystemTime> {
    let seconds: u64 =
        value.parse().map_err(|_| query::refused("older_than_s", value, "a whole number of seconds"))?;
    let time = SystemTime::now().checked_sub(Duration::from_secs(seconds));
    // Nothing has ended before 1970.
    Ok(time.unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::State;

    fn refusal(query: &str) -> String {
        let error = Purge::parse(Some(query)).err().unwrap_or_else(|| panic!("{query} is accepted"));
        error.message().to_owned()
    }

    #[test]
    fn a_purge_says_which_jobs_it_means() {
        let purge =
            Purge::parse(Some("state=failed,timeout&model=m&version=1&older_than_s=60&dry_run")).unwrap();
        let Purge { filter, is_dry_run } = purge;
        assert!(is_dry_run);
        assert_eq!(filter.states, [State::Failed, State::Timeout]);
        assert_eq!((filter.model.as_deref(), filter.version.as_deref()), (Some("m"), Some("1")));
        let age = SystemTime::now().duration_since(filter.ended_before.unwrap()).unwrap();
        assert!(age >= Duration::from_secs(60) && age < Duration::from_secs(600), "{age:?}");
        assert!(!Purge::parse(Some("all&after=7")).unwrap().is_dry_run);
        let ancient = Purge::parse(Some("older_than_s=18446744073709551615")).unwrap();
        assert_eq!(ancient.filter.ended_before, Some(SystemTime::UNIX_EPOCH));
        for query in ["", "after=7", "dry_run=true", "all=false"] {
            assert!(refusal(query).contains("no filter given"), "{query}");
        }
        for (query, part) in [
            ("all=true&state=failed", "contradict"),
            ("all=yes", "all is \"yes\""),
            ("older_than_s=7d", "older_than_s is \"7d\""),
            ("state=failed,running", "cannot purge jobs that are running"),
            ("version=1", "version needs model"),
            ("model=a&model=b", "model is given twice"),
            ("sate=failed", "did you mean \"state\"?"),
            ("state", "no state \"true\""),
        ] {
            assert!(refusal(query).contains(part), "{query}: {}", refusal(query));
        }
    }
}
