//! On whose behalf a request is made, as handlers ask it.

use super::access::{Access, Presented};
use super::caller::{Caller, CallerMemo};
use super::names::{ANONYMOUS, shown};
use super::verb::Verb;
use crate::error::{Error, Kind, Result};
use hyper::http::Extensions;
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

/// On whose behalf a request is made. Without access rules, everything is allowed.
#[derive(Clone, Default)]
pub struct Requester {
    known: Option<Known>,
    /// As a trusted proxy has named it.
    tenant: Option<Arc<str>>,
}

#[derive(Clone)]
struct Known {
    access: Arc<Access>,
    caller: Arc<Caller>,
}

impl Requester {
    /// The host itself, or anybody where there are no access rules.
    pub fn unrestricted() -> Self {
        Requester::default()
    }

    /// Returns the sender of a request.
    ///
    /// # Errors
    /// `unauthenticated` if something was shown that is not valid.
    pub fn identify(access: &Arc<Access>, presented: Presented<'_>, memo: &CallerMemo) -> Result<Self> {
        let caller = access.identify(presented, memo)?;
        Ok(Requester { known: Some(Known { access: Arc::clone(access), caller }), tenant: None })
    }

    /// Sets the tenant that a trusted proxy has named.
    pub fn of_tenant(self, tenant: Arc<str>) -> Self {
        Requester { tenant: Some(tenant), ..self }
    }

    /// Returns the names by which the tenant of the requester may be known, the most specific
    /// first; none for the host itself, and where callers are not told apart.
    pub fn tenant_names(&self) -> SmallVec<[Arc<str>; 2]> {
        match (&self.tenant, &self.known) {
            (Some(tenant), _) => smallvec![Arc::clone(tenant)],
            (None, Some(known)) if known.caller.is_anonymous() => smallvec![ANONYMOUS.into()],
            (None, Some(known)) => known.caller.names.clone(),
            (None, None) => SmallVec::new(),
        }
    }

    /// Returns the requester of a request, as the listener has noted it. One that was not noted may
    /// do nothing if there are access rules.
    pub fn of(access: Option<&Arc<Access>>, extensions: &Extensions) -> Self {
        let noted = extensions.get::<Requester>().cloned();
        noted.unwrap_or_else(|| {
            let nobody = |access: &Arc<Access>| Known {
                access: Arc::clone(access),
                caller: Arc::new(access.nobody()),
            };
            Requester { known: access.map(nobody), tenant: None }
        })
    }

    /// Whether there are access rules for it.
    pub fn is_restricted(&self) -> bool {
        self.known.is_some()
    }

    /// Refuses what no rule allows. See [`Access::require`].
    ///
    /// # Errors
    /// `forbidden`, or `unauthenticated`.
    pub fn require(&self, verb: Verb, model: Option<(&str, Option<&str>)>) -> Result<()> {
        match &self.known {
            None => Ok(()),
            Some(Known { access, caller }) => access.require(caller, verb, model),
        }
    }

    /// Whether a rule allows this.
    pub fn may(&self, verb: Verb, model: Option<(&str, Option<&str>)>) -> bool {
        match &self.known {
            None => true,
            Some(Known { access, caller }) => access.allows(caller, verb, model).unwrap_or(false),
        }
    }

    /// Returns the error for a model that does not exist, without the names of others if there are
    /// access rules.
    pub fn without_hints(&self, error: Error, model: &str, version: Option<&str>) -> Error {
        if self.known.is_none() || error.kind() != Kind::NotFound {
            return error;
        }
        Error::not_found(match version {
            None => format!("no model \"{}\"", shown(model)),
            Some(version) => format!("model \"{}\" has no version \"{}\"", shown(model), shown(version)),
        })
    }

    /// Returns the name that owns the jobs of this requester: `anonymous` for one without a name,
    /// and empty if there are no access rules.
    pub fn owner(&self) -> Arc<str> {
        let Some(known) = &self.known else { return Arc::default() };
        if known.caller.is_anonymous() { ANONYMOUS.into() } else { known.caller.name() }
    }

    /// Whether the jobs of this owner may be seen and ended. Jobs without an owner, such as those
    /// from before there were access rules, are for operators.
    pub fn owns(&self, owner: &str) -> bool {
        let is_own = || !owner.is_empty() && *self.owner() == *owner;
        self.known.is_none() || is_own() || self.may(Verb::Admin, None)
    }
}
