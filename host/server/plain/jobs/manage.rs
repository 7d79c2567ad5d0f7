//! Lists, reads, cancels and deletes jobs: the handlers under `/jobs`.

use super::filter;
use super::report::{conflict, full, summary};
use crate::access::{Requester, Verb};
use crate::error::{Error, Result, did_you_mean};
use crate::jobs::{Cursor, Filter, Job, Settled, State, no_such_job};
use crate::predict::Payload;
use crate::server::background::{bytes_reply, promise};
use crate::server::http::{self, Reply};
use crate::server::state::Public;
use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};
use std::time::Duration;

/// The longest that one request may wait for a job: shorter than the timeouts of most proxies.
const WAIT_MAX: Duration = Duration::from_secs(60);

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

/// `GET /jobs/<id>`, which waits for the end of the job for up to `wait_ms`.
pub(super) async fn read(
    public: &Public,
    requester: &Requester,
    id: &str,
    query: Option<&str>,
) -> Result<Reply> {
    check_owner(public, requester, id).await?;
    let job = public.jobs.wait(id, wait_time(query)?).await?;
    // The rules may have changed meanwhile.
    check_owner(public, requester, id).await?;
    show(public, &job).await
}

/// `GET /jobs/<id>/result`: the result alone, or the error as `/predict` would have returned it.
pub(super) async fn result(
    public: &Public,
    requester: &Requester,
    id: &str,
    query: Option<&str>,
    request_id: &str,
) -> Result<Reply> {
    check_owner(public, requester, id).await?;
    let job = public.jobs.wait(id, wait_time(query)?).await?;
    check_owner(public, requester, id).await?;
    let status = &job.status;
    match status.state {
        State::Pending | State::Running => {
            let mut reply = http::json_of(StatusCode::ACCEPTED, &promise(&job.id, Some(status.state)));
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            Ok(reply)
        }
        State::Cancelled => Ok(conflict(id, status.state, "it has no result", request_id)),
        State::Failed | State::Timeout => {
            let unknown = || Error::failed("the job has ended without a result and without an error");
            Err(status.error.clone().unwrap_or_else(unknown))
        }
        State::Succeeded => match public.jobs.result(&job).await? {
            Some(Payload::Json(text)) => Ok(http::json(StatusCode::OK, text.as_bytes().clone())),
            Some(Payload::Bytes { content_type, data }) => Ok(bytes_reply(&content_type, data)),
            Some(Payload::Tensors(_)) | None => Err(Error::not_found(format!(
                "the result of job \"{}\" is not there any more; it has expired, or was deleted",
                cut(id)
            ))),
        },
    }
}

/// Refuses the job of another owner, in the same words as one that does not exist.
pub(super) async fn check_owner(public: &Public, requester: &Requester, id: &str) -> Result<()> {
    if !requester.is_restricted() {
        return Ok(());
    }
    requester.require(Verb::Jobs, None)?;
    match requester.owns(&public.jobs.get(id).await?.spec.owner) {
        true => Ok(()),
        false => Err(no_such_job(id)),
    }
}

/// Reads `wait_ms`, the only parameter of a query.
fn wait_time(query: Option<&str>) -> Result<Duration> {
    let mut wait = Duration::ZERO;
    for (name, value) in pairs(query)? {
        match name.as_str() {
            "wait_ms" => {
                let ms: u64 = value.parse().map_err(|_| {
                    Error::invalid(format!(
                        "wait_ms is \"{}\"; it must be a whole number of milliseconds",
                        cut(&value)
                    ))
                    .field("wait_ms")
                })?;
                wait = Duration::from_millis(ms).min(WAIT_MAX);
            }
            other => return Err(unknown_query(other, &["wait_ms"])),
        }
    }
    Ok(wait)
}

/// Returns everything about a job, with its result.
async fn show(public: &Public, job: &Job) -> Result<Reply> {
    let result = public.jobs.result(job).await?;
    Ok(http::json(StatusCode::OK, full(&public.jobs, job, result.as_ref())))
}

/// `POST /jobs/<id>/cancel`
pub(super) async fn cancel(
    public: &Public,
    requester: &Requester,
    id: &str,
    request_id: &str,
) -> Result<Reply> {
    check_owner(public, requester, id).await?;
    Ok(match public.jobs.cancel(id).await? {
        Settled::Now(job) => show(public, &job).await?,
        Settled::Refused(state) => conflict(id, state, "it has ended already", request_id),
    })
}

/// `DELETE /jobs/<id>`
pub(super) async fn delete(
    public: &Public,
    requester: &Requester,
    id: &str,
    request_id: &str,
) -> Result<Reply> {
    check_owner(public, requester, id).await?;
    Ok(match public.jobs.delete(id).await? {
        Settled::Now(_) => http::empty(StatusCode::NO_CONTENT),
        Settled::Refused(state) => conflict(id, state, "it has not ended; cancel it first", request_id),
    })
}

/// `GET /jobs`
pub(super) async fn list(public: &Public, requester: &Requester, query: Option<&str>) -> Result<Reply> {
    let mut filter = Filter { limit: PAGE_DEFAULT, ..Filter::default() };
    for (name, value) in pairs(query)? {
        match name.as_str() {
            "limit" => filter.limit = page_limit(&value)?,
            _ if filter::set(&mut filter, &name, &value)? => {}
            other => return Err(unknown_query(other, &[&filter::PARAMETERS[..], &["limit"]].concat())),
        }
    }
    filter::check(&filter)?;
    let page = public.jobs.list(&filter).await?;
    // A page of one's own jobs among those of others has fewer of them.
    let own = page.jobs.iter().filter(|job| requester.owns(&job.spec.owner));
    let jobs: Vec<Value> = own.map(|job| summary(&public.jobs, job)).collect();
    let next = page.next.map(|Cursor(next)| next);
    Ok(http::json_of(StatusCode::OK, &json!({"jobs": jobs, "next": next})))
}

fn page_limit(value: &str) -> Result<usize> {
    let limit = value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
    limit.ok_or_else(|| {
        let shown = cut(value);
        let message = format!("limit is \"{shown}\"; it must be a whole number from 1 to {PAGE_MAX}");
        Error::invalid(message).field("limit")
    })
}

/// Decodes the whole query before any of it is applied.
fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>> {
    let pairs: Vec<(String, String)> = http::query_pairs(query, "").collect::<Result<_>>()?;
    filter::check_unique(&pairs)?;
    Ok(pairs)
}

fn unknown_query(name: &str, known: &[&str]) -> Error {
    let name = cut(name);
    let hint = did_you_mean(&name, known.iter().copied());
    Error::invalid(format!("the query \"{name}\" is not known{hint}; known here: {}", known.join(", ")))
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
