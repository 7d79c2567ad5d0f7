//! Identifies the sender of a request by its headers and its connection.

use super::connection::Connection;
use crate::access::{Access, Presented, Requester, Verb};
use crate::error::Result;
use hyper::HeaderMap;
use hyper::http::Extensions;
use std::sync::Arc;

/// Notes who sends a request in its `extensions`, and refuses those who may do this with no model.
///
/// # Errors
/// `unauthenticated` or `forbidden`.
pub(super) fn admit(
    access: &Arc<Access>,
    verb: Verb,
    headers: &HeaderMap,
    extensions: &mut Extensions,
    connection: &Connection,
) -> Result<()> {
    let presented = Presented { headers, certificate: connection.certificate() };
    let requester = Requester::identify(access, presented, &connection.caller)?;
    requester.require(verb, None)?;
    extensions.insert(requester);
    Ok(())
}
