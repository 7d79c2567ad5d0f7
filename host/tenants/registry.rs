//! All tenants that send requests, by name.

use super::limits::TenantLimits;
use super::share::TenantShare;
use super::table::{TenantEntry, TenantTable};
use super::tenant::{Tenant, TenantGuard};
use crate::error::Result;
use crate::lock::{LockUnpoisoned, ReadWriteUnpoisoned};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

/// Tenants that are remembered. With more, those that use nothing are forgotten; if all use
/// something, further ones share one account.
const TENANTS_MAX: usize = 10_000;

/// How often unused tenants are looked for while there are as many as that.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The account of tenants beyond the limit.
const SHARED: &str = "_shared";

#[derive(Default)]
pub struct TenantRegistry {
    tenants: RwLock<HashMap<Arc<str>, Arc<Tenant>>>,
    /// When unused tenants were forgotten last.
    swept: Mutex<Option<Instant>>,
}

/// A tenant with the limits that hold for a request.
#[derive(Clone)]
pub struct TenantAccount {
    pub tenant: Arc<Tenant>,
    pub limits: Arc<TenantLimits>,
}

impl TenantAccount {
    /// Admits a request.
    ///
    /// # Errors
    /// `overloaded`
    pub fn admit(&self, now: Instant) -> Result<TenantGuard> {
        self.tenant.admit(&self.limits, now)
    }

    /// Admits the rows of a request.
    ///
    /// # Errors
    /// `overloaded`
    pub fn admit_rows(&self, rows: usize) -> Result<()> {
        self.tenant.admit_rows(&self.limits, rows)
    }

    pub fn share(&self) -> TenantShare {
        TenantShare::new(Arc::clone(&self.tenant), self.limits.weight)
    }
}

impl TenantRegistry {
    /// Returns the tenant of a request whose sender has these names, the most specific first;
    /// `None` if it has none.
    pub fn find(&self, table: &TenantTable, names: &[Arc<str>]) -> Option<TenantAccount> {
        let first = names.first()?;
        let entry = table.find(names);
        let tenant = self.tenant(entry.name.as_ref().unwrap_or(first), entry, table);
        Some(TenantAccount { tenant, limits: Arc::clone(&entry.limits) })
    }

    fn tenant(&self, name: &Arc<str>, entry: &TenantEntry, table: &TenantTable) -> Arc<Tenant> {
        let known = {
            let tenants = self.tenants.read_unpoisoned();
            let shared = || match entry.name.is_none() && tenants.len() >= TENANTS_MAX && self.is_swept() {
                true => tenants.get(SHARED),
                false => None,
            };
            tenants.get(name).or_else(shared).cloned()
        };
        let tenant = known.unwrap_or_else(|| self.insert(name, entry, table));
        tenant.count_into(&entry.metrics);
        tenant
    }

    /// Whether it is of no use to look for unused tenants again.
    fn is_swept(&self) -> bool {
        self.swept.lock_unpoisoned().is_some_and(|swept| swept.elapsed() < SWEEP_EVERY)
    }

    fn insert(&self, name: &Arc<str>, entry: &TenantEntry, table: &TenantTable) -> Arc<Tenant> {
        let mut tenants = self.tenants.write_unpoisoned();
        let mut name = Arc::clone(name);
        if tenants.len() >= TENANTS_MAX && !tenants.contains_key(&name) {
            tenants.retain(|name, tenant| {
                // The registry and the map's own reference.
                Arc::strong_count(tenant) > 1 || !tenant.is_unused(&table.find([name]).limits)
            });
            *self.swept.lock_unpoisoned() = Some(Instant::now());
            if tenants.len() >= TENANTS_MAX && entry.name.is_none() {
                name = SHARED.into();
            }
        }
        let new = || Arc::new(Tenant::new(Arc::clone(&name), &entry.metrics));
        Arc::clone(tenants.entry(Arc::clone(&name)).or_insert_with(new))
    }
}
