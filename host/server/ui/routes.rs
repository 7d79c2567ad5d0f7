//! Answers the requests of the page.

use super::endpoint::PageEndpoint;
use super::sessions::SignedIn;
use super::{page, predict, session};
use crate::access::{Requester, Verb};
use crate::error::{Error, Kind, Result};
use crate::server::admin::administration;
use crate::server::admin::state::Admin;
use crate::server::http::{self, Reply, RequestBody};
use crate::server::plain::{info, jobs};
use hyper::Method;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::http::request::Parts;

/// The header with the token of the session, in requests that change something.
const CSRF: &str = "x-hostler-csrf";

pub(in crate::server) async fn answer(
    admin: &Admin,
    mut head: Parts,
    body: RequestBody,
    endpoint: PageEndpoint<'_>,
) -> Reply {
    match endpoint {
        PageEndpoint::File(_) if !http::is_get(&head.method) => http::method_not_allowed("GET"),
        PageEndpoint::File(path) => page::reply(path, &head.headers),
        PageEndpoint::Api(path) => {
            let answered = api(admin, &mut head, body, path).await;
            let mut reply = answered.unwrap_or_else(|error| {
                admin.public.metrics.requests.errors.with_label_values(&[error.kind().as_str()]).inc();
                http::error_reply(&error, "")
            });
            reply.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            http::sandbox(&mut reply);
            reply
        }
    }
}

async fn api(admin: &Admin, head: &mut Parts, body: RequestBody, path: &str) -> Result<Reply> {
    let (get, post) = (http::is_get(&head.method), head.method == Method::POST);
    if path == "/session" && post {
        return session::sign_in(admin, head, body).await;
    }
    let signed_in = identify(admin, head, &body);
    if path == "/session" && get {
        // Somebody who has not signed in may ask whether that is necessary.
        return Ok(session::show(admin, signed_in.ok().as_ref()));
    }
    let SignedIn { requester, token, .. } = signed_in?;
    let sent = http::header(&head.headers, CSRF).unwrap_or_default();
    if !get && !token.is(sent.as_bytes()) {
        let message = "the act was refused: the request lacks the token of this session in X-Hostler-CSRF; reload the page";
        return Err(Error::forbidden(message).field(CSRF));
    }
    head.extensions.insert(requester);
    let _call = body.connection().operator_call();
    dispatch(admin, head, body, path).await
}

async fn dispatch(admin: &Admin, head: &Parts, body: RequestBody, path: &str) -> Result<Reply> {
    let public = &admin.public;
    let get = http::is_get(&head.method);
    if path.starts_with("/admin/") {
        return Ok(administration::answer(admin, head, body.connection(), path).await);
    }
    let begins = head.method == Method::POST && (path == "/predict" || path.starts_with("/jobs/"));
    if let Some(why) = public.readiness.refusal().filter(|_| begins) {
        // The end of the host waits for the work of the public listeners alone.
        return Err(Error::unavailable(why));
    }
    if let Some(endpoint) = jobs::endpoint::JobsEndpoint::parse(path) {
        public.requester(head).require(Verb::Jobs, None)?;
        return Ok(jobs::routes::answer(public, head, body, endpoint).await);
    }
    match path {
        "/session" if head.method == Method::DELETE => Ok(session::sign_out(admin, head)),
        "/session" => Ok(http::method_not_allowed("GET, POST, DELETE")),
        // An operator sees all models in the policy as well.
        "/models" if get => Ok(info::list(public, |_| true)),
        "/models" => Ok(http::method_not_allowed("GET")),
        "/predict" if head.method == Method::POST => Ok(predict::answer(public, head, body).await),
        "/predict" => Ok(http::method_not_allowed("POST")),
        _ => Err(Error::not_found(format!("the page has no route {} {}", head.method, shortened(path)))),
    }
}

/// Returns who uses the page: by the session, or by what the request or its connection shows.
fn identify(admin: &Admin, head: &mut Parts, body: &RequestBody) -> Result<SignedIn> {
    if !admin.callers.must_admit() {
        return Ok(admin.sessions.without(Requester::unrestricted()));
    }
    let Some(signed_in) = admin.sessions.find(&head.headers) else {
        admin.callers.admit(Verb::Admin, &head.headers, &mut head.extensions, body.connection())?;
        return Ok(admin.sessions.without(admin.callers.requester(&head.extensions)));
    };
    match signed_in.requester.require(Verb::Admin, None) {
        Ok(()) => Ok(signed_in),
        Err(error) => {
            // The key is gone or has ended, and so has the session.
            if error.kind() == Kind::Unauthenticated {
                let _ = admin.sessions.end(&head.headers);
            }
            Err(error)
        }
    }
}

fn shortened(path: &str) -> String {
    path.chars().take(200).collect()
}
