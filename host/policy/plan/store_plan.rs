//! Where jobs are kept. Read at start; a reload reports a change.

use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StorePlan {
    #[default]
    Memory,
    /// A database in this folder.
    Redb { dir: PathBuf },
}

impl StorePlan {
    /// Returns keys and values for the report of what needs a restart.
    pub fn entries(&self) -> BTreeMap<&'static str, String> {
        match self {
            StorePlan::Memory => BTreeMap::new(),
            StorePlan::Redb { dir } => BTreeMap::from([("store", format!("redb in {}", dir.display()))]),
        }
    }
}
