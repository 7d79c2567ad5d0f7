//! The tenants of a policy, as the manifest names them.

use super::limits::TenantLimits;
use super::metrics::TenantMetrics;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The tenants that a policy knows, and the limits of all others.
pub struct TenantTable {
    entries: Vec<TenantEntry>,
    /// By the names of tenants and of their callers, the index of their entry.
    names: HashMap<Arc<str>, usize>,
    others: TenantEntry,
}

/// A tenant of the manifest.
pub struct TenantEntry {
    /// `None` for all that the manifest does not name.
    pub name: Option<Arc<str>>,
    pub limits: Arc<TenantLimits>,
    pub metrics: Arc<TenantMetrics>,
}

impl TenantTable {
    /// `named` has the names of callers with each tenant.
    pub fn new(named: Vec<(TenantEntry, Vec<Arc<str>>)>, others: TenantEntry) -> Self {
        let mut table = TenantTable { entries: Vec::new(), names: HashMap::new(), others };
        for (entry, callers) in named {
            let index = table.entries.len();
            for name in entry.name.iter().cloned().chain(callers) {
                table.names.insert(name, index);
            }
            table.entries.push(entry);
        }
        table
    }

    /// Returns the weight of the tenant with this name.
    pub fn weight_of(&self, name: &str) -> NonZeroU32 {
        let entry = self.names.get(name).map_or(&self.others, |index| &self.entries[*index]);
        entry.limits.weight
    }

    /// Returns the entry for the first of these names that has one.
    pub(super) fn find<'a>(&self, names: impl IntoIterator<Item = &'a Arc<str>>) -> &TenantEntry {
        let mut found = names.into_iter().filter_map(|name| self.names.get(name));
        found.next().map_or(&self.others, |index| &self.entries[*index])
    }
}
