//! The policy: what is served, on which executor, and under which limits.
//!
//! A manifest is checked into a plan, and a plan is loaded into the content of a policy. A policy
//! never changes: a reload builds another one beside it and swaps them. Only `reload` writes the
//! live policy. Models that clients load and unload are an `overlay` over the manifest.

mod changes;
mod checks;
mod content;
mod describe;
mod description;
mod diagnostic;
mod evidence;
mod external_data;
pub mod files;
mod guard;
pub mod guard_counters;
mod in_use;
mod last_good;
mod live;
mod load;
pub mod manifest;
mod milliseconds;
mod model;
mod model_name;
pub mod overlay;
pub mod plan;
mod recent;
pub mod record;
pub mod reload;
mod replay;
mod rollout;
mod rollout_settings;
mod route;
pub mod route_input;
mod route_query;
mod secret;
pub mod settings;
mod shadow;
pub mod statistics;
mod sticky_by;
pub mod tls_settings;
mod trace_settings;
mod usage;
mod watch;
mod watched_route;
mod webhook_secret;
mod webhooks;

pub use checks::{
    Case, CaseOptions, CaseRequest, Expected, ExpectedError, WrittenTensor, difference, judge,
    parse as parse_cases, parse_check, title as case_title, without_mark,
};
pub use content::{Policy, PolicyContent};
pub use description::{Description, diff};
pub use diagnostic::Diagnostics;
pub use evidence::KeptRequest;
pub use in_use::InUse;
pub use last_good::{LastGood, files_of};
pub use live::{LivePolicy, SelectedPolicy};
pub use load::Loader;
pub use model::Model;
pub use reload::Reloader;
pub use route::{Route, RouteMetrics};
pub use route_query::RouteQuery;
pub use shadow::{Copy, Shadow};
pub use webhook_secret::WebhookSecret;
pub use webhooks::Webhooks;
