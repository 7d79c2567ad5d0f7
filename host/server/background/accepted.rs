//! The reply to a submission, which promises a result.

use crate::error::Result;
use crate::jobs::{IdempotencyKey, Jobs, State, Submitted};
use crate::server::http::{self, Reply};
use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use serde_json::{Value, json};
use std::sync::Arc;

/// The path of a job.
pub fn url(id: &str) -> String {
    format!("/jobs/{id}")
}

/// A job as the reply to its submission shows it.
pub fn promise(id: &str, state: Option<State>) -> Value {
    json!({"job_id": id, "state": state.map(State::as_str), "url": url(id)})
}

/// The jobs of a submission, with their states; `None` for one that is not in the store any more.
pub struct Accepted {
    jobs: Vec<(Arc<str>, Option<State>)>,
    /// An earlier submission has created them.
    is_replay: bool,
}

pub async fn accepted(jobs: &Jobs, submitted: Submitted) -> Accepted {
    match submitted {
        Submitted::New(jobs) => {
            let jobs = jobs.into_iter().map(|job| (job.id, Some(job.status.state))).collect();
            Accepted { jobs, is_replay: false }
        }
        Submitted::Existing(ids) => {
            let mut known = Vec::with_capacity(ids.len());
            for id in ids {
                let state = jobs.get(&id).await.ok().map(|job| job.status.state);
                known.push((id, state));
            }
            Accepted { jobs: known, is_replay: true }
        }
    }
}

/// Returns the jobs of an earlier submission with this key. Asked before a submission is checked:
/// what was accepted once may not be acceptable any more.
pub async fn replayed(jobs: &Jobs, key: Option<&IdempotencyKey>) -> Result<Option<Accepted>> {
    match jobs.submitted(key).await? {
        Some(submitted) => Ok(Some(accepted(jobs, submitted).await)),
        None => Ok(None),
    }
}

impl Accepted {
    /// Returns 202 for a submission of one job.
    pub fn single(&self) -> Reply {
        let (id, state) = self.jobs.first().expect("invariant: a submission has a job");
        let mut reply = http::json_of(StatusCode::ACCEPTED, &promise(id, *state));
        if let Ok(location) = HeaderValue::from_str(&url(id)) {
            reply.headers_mut().insert(LOCATION, location);
        }
        self.marked(reply)
    }

    /// Returns 202 for a submission of several jobs.
    pub fn list(&self) -> Reply {
        let promises: Vec<Value> = self.jobs.iter().map(|(id, state)| promise(id, *state)).collect();
        self.marked(http::json_of(StatusCode::ACCEPTED, &json!({"jobs": promises})))
    }

    fn marked(&self, mut reply: Reply) -> Reply {
        if self.is_replay {
            reply.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
        reply
    }
}
