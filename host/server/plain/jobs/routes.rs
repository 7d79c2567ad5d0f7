//! Dispatches requests for jobs to their handlers.

use super::endpoint::JobsEndpoint;
use super::manage;
use super::submit::{self, Form};
use crate::server::http::{self, Reply, RequestBody};
use crate::server::state::Public;
use hyper::Method;
use hyper::http::request::Parts;

pub(in crate::server) async fn answer(
    public: &Public,
    head: &Parts,
    body: RequestBody,
    endpoint: JobsEndpoint<'_>,
) -> Reply {
    let (get, post) = (http::is_get(&head.method), head.method == Method::POST);
    match endpoint {
        JobsEndpoint::Submit if post => return submit::answer(public, head, body, Form::Single).await,
        JobsEndpoint::SubmitBatch if post => return submit::answer(public, head, body, Form::Batch).await,
        JobsEndpoint::SubmitBody(model) if post => {
            return submit::answer(public, head, body, Form::Body(model)).await;
        }
        _ => {}
    }
    let id = http::request_id(&head.headers);
    let query = head.uri.query();
    let requester = &public.requester(head);
    let outcome = match endpoint {
        JobsEndpoint::List if get => manage::list(public, requester, query).await,
        JobsEndpoint::Job(job) if get => manage::read(public, requester, job, query).await,
        JobsEndpoint::Job(job) if head.method == Method::DELETE => {
            manage::delete(public, requester, job, &id).await
        }
        JobsEndpoint::Cancel(job) if post => manage::cancel(public, requester, job, &id).await,
        JobsEndpoint::Result(job) if get => manage::result(public, requester, job, query, &id).await,
        JobsEndpoint::Retry(job) if post => submit::retry(public, head, job, &id).await,
        JobsEndpoint::Submit | JobsEndpoint::SubmitBatch | JobsEndpoint::SubmitBody(_) => {
            return http::method_not_allowed("POST");
        }
        JobsEndpoint::List => return http::method_not_allowed("GET"),
        JobsEndpoint::Job(_) => return http::method_not_allowed("GET, DELETE"),
        JobsEndpoint::Cancel(_) | JobsEndpoint::Retry(_) => return http::method_not_allowed("POST"),
        JobsEndpoint::Result(_) => return http::method_not_allowed("GET"),
        JobsEndpoint::Unknown => return http::no_such_path(&head.method, head.uri.path()),
    };
    let mut reply = outcome.unwrap_or_else(|error| http::error_reply(&error, &id));
    http::sign(&mut reply, &id, public.router.policy().generation);
    reply
}
