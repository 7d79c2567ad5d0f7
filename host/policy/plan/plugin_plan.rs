//! A plugin of a plan: its files, limits and configuration.

use super::http_plan::HttpPlan;
use crate::config::PluginLimits;
use crate::plugin::Role;
use crate::policy::files::File;
use crate::policy::secret::PluginConfig;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PluginPlan {
    pub file: File,
    pub limits: PluginLimits,
    pub config: PluginConfig,
    pub assets: BTreeMap<String, File>,
    pub http: Option<Box<HttpPlan>>,
    /// The roles in which models and executors use it.
    pub roles: BTreeSet<Role>,
}
