//! The plan: a manifest whose every name, file and number was checked, ready to be loaded.
//!
//! Making a plan reads files and computes their digests. It compiles nothing and starts nothing.
//! All faults are collected, so that they can be fixed at once.

mod batching;
mod bounds;
mod custom;
mod executor_plan;
mod executors;
mod http_plan;
mod jobs;
mod jobs_plan;
mod model_plan;
mod models;
mod outbound;
mod pipeline_plan;
pub mod pipelines;
#[allow(clippy::module_inception, reason = "each file is named after its type")]
mod plan;
mod planner;
mod plugin_plan;
mod plugins;
mod read;
mod remote;
mod routing;
mod routing_plan;
mod store_plan;
mod stores;
mod tenants;
mod tenants_plan;
mod unplanned;
mod webhooks;
mod webhooks_plan;

pub use super::model_name::{ModelName, is_name, parse_model_name};
pub use super::sticky_by::StickyBy;
pub use executor_plan::{ExecutorKind, ExecutorPlan, TlsPlan};
pub use http_plan::HttpPlan;
pub use jobs_plan::JobsPlan;
pub use model_plan::{CheckPlan, ModelPlan, SourcePlan};
pub use pipeline_plan::PipelinePlan;
pub use plan::Plan;
pub use plugin_plan::PluginPlan;
pub use routing_plan::RoutingPlan;
pub use store_plan::StorePlan;
pub(in crate::policy) use tenants_plan::described as described_limits;
pub use tenants_plan::{TenantPlan, TenantsPlan};
pub use unplanned::Unplanned;
pub use webhooks_plan::WebhooksPlan;
