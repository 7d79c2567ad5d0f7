//! Checks `[stores]`, and which of them keeps jobs.

use super::planner::Planner;
use super::store_plan::StorePlan;
use crate::error::did_you_mean;
use crate::policy::diagnostic::Diagnostic;
use crate::policy::manifest::{Manifest, Spanned, Store};
use crate::policy::model_name::is_name;
use std::collections::BTreeMap;

impl Planner<'_> {
    /// Returns where jobs are kept.
    pub(super) fn job_store(&mut self, manifest: &Manifest) -> StorePlan {
        let mut known = BTreeMap::new();
        for (name, store) in &manifest.stores {
            if let Some(plan) = self.store(name, store) {
                known.insert(name.get_ref().as_str(), plan);
            }
        }
        let Some(wanted) = &manifest.jobs.store else { return StorePlan::Memory };
        if let Some(plan) = known.get(wanted.get_ref().as_str()) {
            return plan.clone();
        }
        let is_faulty = manifest.stores.keys().any(|name| name.get_ref() == wanted.get_ref());
        if !is_faulty {
            let name = wanted.get_ref();
            let hint = did_you_mean(name, known.keys().copied());
            let message = format!("[jobs] store = \"{name}\": there is no [stores.{name}]{hint}");
            let lines = format!("add\n[stores.{name}]\nkind = \"redb\"\ndir = \"jobs\"");
            self.faults.push(Diagnostic::new(message).at(wanted.span()).hint(lines));
        }
        StorePlan::Memory
    }

    fn store(&mut self, name: &Spanned<String>, store: &Store) -> Option<StorePlan> {
        let shown = name.get_ref();
        if !is_name(shown) {
            let message = format!("\"{shown}\" cannot name a store; a name has 1 to 64 of A-Z a-z 0-9 . _ -");
            self.faults.push(Diagnostic::new(message).at(name.span()));
            return None;
        }
        if store.kind.get_ref() != "redb" {
            let message = format!("[stores.{shown}] kind = \"{}\" is not known", store.kind.get_ref());
            self.faults.push(Diagnostic::new(message).at(store.kind.span()).hint("write \"redb\""));
            return None;
        }
        let Some(dir) = store.dir.as_ref().filter(|dir| !dir.get_ref().as_os_str().is_empty()) else {
            let message = format!("[stores.{shown}] has no dir");
            let hint = "write dir = \"jobs\", a folder for this store alone; it is created if it is missing";
            self.faults.push(Diagnostic::new(message).at(name.span()).hint(hint));
            return None;
        };
        Some(StorePlan::Redb { dir: self.folder.join(dir.get_ref()) })
    }
}
