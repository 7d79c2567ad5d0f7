//! `/ui/api/session`: who uses the page, and how operators sign in and out.

use super::sessions::SignedIn;
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::server::admin::state::Admin;
use crate::server::http::{self, Reply, RequestBody};
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue, SET_COOKIE};
use hyper::http::request::Parts;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// Bytes of a request to sign in. Tokens have some kilobytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The time in which it must arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// `GET`: whether an operator must sign in, and who has.
pub(super) fn show(admin: &Admin, signed_in: Option<&SignedIn>) -> Reply {
    let caller = signed_in.map(|signed_in| signed_in.requester.owner()).filter(|name| !name.is_empty());
    let mut reply = http::json_of(
        StatusCode::OK,
        &json!({
            "required": admin.callers.are_identified(),
            "caller": caller.as_deref(),
            "session": signed_in.is_some_and(|signed_in| signed_in.by_session),
            "csrf": signed_in.map(|signed_in| signed_in.token.as_str()),
            "version": env!("CARGO_PKG_VERSION"),
        }),
    );
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// `POST`: signs an operator in by a key or token.
pub(super) async fn sign_in(admin: &Admin, head: &Parts, body: RequestBody) -> Result<Reply> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Credentials {
        key: String,
    }

    let address = admin.public.auditor.address(body.connection(), &head.headers);
    let body = read(body).await?;
    let Credentials { key } = serde_json::from_slice(&body).map_err(|_| {
        Error::invalid(
            "the body is not what this path takes; send {\"key\": \"KEY\"}, with an API key or a token",
        )
    })?;
    let signed_in = admin.callers.sign_in(&key);
    let allowed = signed_in.and_then(|requester| requester.require(Verb::Admin, None).map(|()| requester));
    let requester = match allowed {
        Ok(requester) => requester,
        Err(error) => {
            if let Some(unlogged) = admin.sessions.note_refusal() {
                let reason = error.message();
                tracing::warn!(address, reason, unlogged, "operator not signed in");
            }
            return Err(error);
        }
    };
    let operator = requester.owner();
    // A session that the browser had before is replaced.
    let _ = admin.sessions.end(&head.headers);
    let (signed_in, cookie) = admin.sessions.begin(requester)?;
    tracing::info!(operator = &*operator, address, "operator signed in");
    let mut reply = show(admin, Some(&signed_in));
    reply.headers_mut().insert(SET_COOKIE, cookie);
    Ok(reply)
}

/// `DELETE`: signs an operator out.
pub(super) fn sign_out(admin: &Admin, head: &Parts) -> Reply {
    let cookie = admin.sessions.end(&head.headers);
    let mut reply = http::empty(StatusCode::NO_CONTENT);
    reply.headers_mut().insert(SET_COOKIE, cookie);
    reply
}

/// Reads a small body of a caller who is not known yet.
async fn read(mut body: RequestBody) -> Result<BytesMut> {
    let collect = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|_| Error::cancelled("the client disconnected before its body was complete"))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err(Error::too_large(format!("the body is over {} KB", BODY_BYTES_MAX >> 10)));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    let read = tokio::time::timeout(BODY_TIMEOUT, collect).await;
    let late = |_| {
        let seconds = BODY_TIMEOUT.as_secs();
        Error::deadline(format!("the body did not arrive within {seconds} s")).field("body")
    };
    read.map_err(late)?
}
