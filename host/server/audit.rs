//! Records the acts of requests in the audit log before they happen.

use super::connection::Connection;
use crate::access::Requester;
use crate::audit::{Act, AuditLog};
use crate::config::proxies::Proxies;
use crate::error::{Error, Result};
use hyper::HeaderMap;
use hyper::header::HeaderName;
use std::borrow::Cow;
use std::sync::Arc;

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Records acts; does nothing without an audit log.
#[derive(Clone, Default)]
pub struct Auditor {
    log: Option<Arc<AuditLog>>,
    proxies: Arc<Proxies>,
}

/// Who does something, and with which request.
#[derive(Clone)]
pub(super) struct Actor {
    pub by: Arc<str>,
    pub address: Option<String>,
    pub request_id: Option<Arc<str>>,
}

impl Auditor {
    /// `proxies` are those whose word about the addresses of clients is taken.
    pub fn new(log: Option<Arc<AuditLog>>, proxies: &Proxies) -> Self {
        Auditor { log, proxies: Arc::new(proxies.clone()) }
    }

    /// Returns who sends a request.
    pub(super) fn actor(
        &self,
        requester: &Requester,
        connection: &Connection,
        headers: &HeaderMap,
        request_id: Option<Arc<str>>,
    ) -> Actor {
        let by = if requester.is_restricted() { requester.owner() } else { "anybody".into() };
        Actor { by, address: self.address(connection, headers), request_id }
    }

    /// Returns the address of the client of a request.
    pub(super) fn address(&self, connection: &Connection, headers: &HeaderMap) -> Option<String> {
        // A line with other bytes than text still has what the proxy has appended to it.
        let forwarded = headers.get_all(FORWARDED).iter();
        let forwarded: Vec<Cow<'_, str>> =
            forwarded.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let client = connection.peer().map(|peer| self.proxies.client(peer.ip(), &forwarded));
        client.map(|client| client.to_string())
    }

    /// Records an act. It may happen only if this succeeds.
    ///
    /// # Errors
    /// `unavailable` if the line cannot be written.
    pub(super) async fn record(&self, actor: Actor, act: &'static str, target: String) -> Result<()> {
        self.write(actor, act, target, AuditLog::record).await
    }

    /// Records a rollback, for which there is space on a full disk.
    pub(super) async fn record_rollback(&self, actor: Actor, target: String) -> Result<()> {
        self.write(actor, "rollback", target, AuditLog::record_in_any_case).await
    }

    async fn write(
        &self,
        actor: Actor,
        act: &'static str,
        target: String,
        write: fn(&AuditLog, &Act) -> Result<()>,
    ) -> Result<()> {
        let Some(log) = self.log.clone() else { return Ok(()) };
        let Actor { by, address, request_id } = actor;
        let request_id = request_id.map(|id| id.to_string());
        let act = Act { act, target, by: by.to_string(), address, request_id };
        let written = tokio::task::spawn_blocking(move || write(&log, &act)).await;
        written.map_err(|error| Error::failed(format!("the audit log was not written: {error}")))?
    }
}
