//! Identifies the sender of a request by its headers and its connection.

use super::connection::Connection;
use crate::access::{ANONYMOUS, Access, CallerMemo, Presented, Requester, Verb};
use crate::config::proxies::Proxies;
use crate::error::{Error, Result};
use crate::tenants::{NAME_HINT, check_name};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::http::Extensions;
use std::sync::Arc;

/// How a listener tells callers apart.
#[derive(Clone, Default)]
pub struct Callers {
    access: Option<Arc<Access>>,
    tenants: Option<Arc<TenantHeader>>,
}

/// The header in which proxies name the tenant of a request.
struct TenantHeader {
    name: HeaderName,
    proxies: Proxies,
}

impl Callers {
    /// Without access rules, everybody may do everything. Only `proxies` may name tenants.
    pub fn new(access: Option<Arc<Access>>, tenant_header: Option<&HeaderName>, proxies: &Proxies) -> Self {
        let tenants =
            tenant_header.map(|name| Arc::new(TenantHeader { name: name.clone(), proxies: proxies.clone() }));
        Callers { access, tenants }
    }

    /// Whether callers could get in at all: the access rules could be read.
    pub(super) fn is_open(&self) -> bool {
        self.access.as_ref().is_none_or(|access| access.is_open())
    }

    /// Whether requests must be admitted; otherwise anybody may do everything.
    pub(super) fn must_admit(&self) -> bool {
        self.access.is_some() || self.tenants.is_some()
    }

    /// Notes who sends a request in its `extensions`, and refuses those who may do this with no
    /// model.
    ///
    /// # Errors
    /// `unauthenticated`, `forbidden`, or `invalid_input` for a tenant that cannot be one.
    pub(super) fn admit(
        &self,
        verb: Verb,
        headers: &HeaderMap,
        extensions: &mut Extensions,
        connection: &Connection,
    ) -> Result<()> {
        let mut requester = Requester::unrestricted();
        if let Some(access) = &self.access {
            let presented = Presented { headers, certificate: connection.certificate() };
            requester = Requester::identify(access, presented, &connection.caller)?;
            requester.require(verb, None)?;
        }
        if let Some(tenants) = &self.tenants {
            match tenants.of(headers, connection)? {
                Some(tenant) => requester = requester.of_tenant(tenant),
                // Without access rules, nothing else tells callers apart.
                None if self.access.is_none() => requester = requester.of_tenant(ANONYMOUS.into()),
                None => {}
            }
        }
        extensions.insert(requester);
        Ok(())
    }

    /// Whether callers are told apart by access rules.
    pub(super) fn are_identified(&self) -> bool {
        self.access.is_some()
    }

    /// Returns the caller of this key or token alone, if there are access rules: the certificate of
    /// the connection belongs to that connection.
    ///
    /// # Errors
    /// `unauthenticated` if it is not valid.
    pub(super) fn sign_in(&self, secret: &str) -> Result<Requester> {
        let Some(access) = &self.access else { return Ok(Requester::unrestricted()) };
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(format!("Bearer {}", secret.trim()));
        let value =
            value.map_err(|_| Error::unauthenticated("the key or token is not accepted: it is not text"))?;
        headers.insert(AUTHORIZATION, value);
        let presented = Presented { headers: &headers, certificate: &Arc::default() };
        Requester::identify(access, presented, &CallerMemo::default())
    }

    /// Returns on whose behalf an admitted request is made.
    pub(super) fn requester(&self, extensions: &Extensions) -> Requester {
        Requester::of(self.access.as_ref(), extensions)
    }
}

impl TenantHeader {
    /// Returns the tenant that a proxy names; `None` if none does, or the sender is no proxy.
    fn of(&self, headers: &HeaderMap, connection: &Connection) -> Result<Option<Arc<str>>> {
        let Some(value) = headers.get(&self.name) else { return Ok(None) };
        if !connection.peer().is_some_and(|peer| self.proxies.trusts(peer.ip())) {
            return Ok(None);
        }
        let refused = |why: &str| {
            let name = self.name.as_str();
            Error::invalid(format!("the header {name} {why}; {NAME_HINT}")).field(name)
        };
        if headers.get_all(&self.name).iter().nth(1).is_some() {
            return Err(refused("is there more than once"));
        }
        let tenant = value.to_str().map_err(|_| refused("is not text"))?;
        check_name(tenant).map_err(|why| refused(&format!("names a tenant whose name {why}")))?;
        Ok(Some(tenant.into()))
    }
}
