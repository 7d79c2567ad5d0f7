//! The manifest as written: `hostler.toml`, its keys and their types.
//!
//! Spans are kept where a later check may report a fault. Everything but the types is checked in
//! `plan`, which also defines what a missing key means.

mod executors;
mod faults;
mod models;
mod named;
pub mod pipelines;
mod plugins;
mod reload;
mod server;
mod stores;
mod tenants;
mod tls;
mod traces;
mod webhooks;

pub use executors::{Executor, Tls};
pub use models::{Check, Model, Remote, Routing};
pub use plugins::{Http, Plugin};
pub use reload::{Canary, Guard, Reload};
pub use server::Server;
pub use stores::Store;
pub use tenants::Tenant;
pub use tls::{ListenerTls, ServerTls};
pub use toml::Spanned;
pub use traces::ServerTraces;
pub use webhooks::{SecretSource, Webhooks};

use self::named::Named;
use super::diagnostic::Diagnostics;
use serde::Deserialize;
use std::path::Path;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    pub server: Server,
    pub executors: Named<Executor>,
    pub plugins: Named<Plugin>,
    pub models: Named<Model>,
    pub pipelines: Named<pipelines::Pipeline>,
    pub policy: Named<Spanned<String>>,
    pub routing: Named<Routing>,
    pub reload: Reload,
    pub files: Files,
    pub jobs: Jobs,
    pub stores: Named<Store>,
    pub tenants: Named<Tenant>,
}

/// `[files]`: how large a file of each kind may be.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    pub max_model_mb: Option<Spanned<u64>>,
    pub max_external_data_mb: Option<Spanned<u64>>,
    pub max_plugin_mb: Option<Spanned<u64>>,
    pub max_asset_mb: Option<Spanned<u64>>,
    pub max_check_mb: Option<Spanned<u64>>,
    pub max_labels_mb: Option<Spanned<u64>>,
}

/// `[jobs]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    /// The store of `[stores]` that jobs are kept in. Without it, they are kept in memory.
    pub store: Option<Spanned<String>>,
    /// Jobs that are kept at once, including ended ones.
    pub capacity: Option<Spanned<usize>>,
    /// Memory of the inputs and results that are kept.
    pub store_mb: Option<Spanned<usize>>,
    /// Jobs that may run an attempt at once.
    pub concurrency: Option<Spanned<usize>>,
    /// How long an ended job is kept.
    pub result_ttl_s: Option<Spanned<u64>>,
    /// The most attempts that a client may ask for.
    pub max_attempts: Option<Spanned<u32>>,
    /// Time from submission to the end if the client does not set it.
    pub total_runtime_ms: Option<Spanned<u64>>,
    /// The longest time that a client may ask for.
    pub max_total_runtime_ms: Option<Spanned<u64>>,
    /// Where jobs may report that they have ended.
    pub webhooks: Option<Spanned<Webhooks>>,
}

impl Manifest {
    /// Parses a manifest's text. Stops at the first fault of form; faults of meaning are collected
    /// in `plan`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Box<Diagnostics>> {
        toml::from_str(text)
            .map_err(|error| Box::new(Diagnostics::new(path, text, vec![faults::explain(&error, text)])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Manifest::parse(Path::new("hostler.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn faults_of_form_name_the_place_and_the_mend() {
        for (text, expected) in [
            (
                "[executors.cpu]\nmax_workers = 8\n",
                &["hostler.toml:2:1", "unknown key \"max_workers\"", "did you mean \"workers\"?"][..],
            ),
            (
                "[executors.onnx]\nworkers = \"eight\"\n",
                &["hostler.toml:2:11", "wrong type: string \"eight\", expected a whole number", "^^^^^^^"],
            ),
            ("[policy]\necho:v1 = \"gpu\"\n", &["hostler.toml:2:", "write \"echo:v1\""]),
            ("[models.echo:v1]\nplugin = \"echo\"\n", &["hostler.toml:1:", "write \"echo:v1\""]),
            ("[plugins.a]\n", &["the key \"path\" is missing", "hostler.toml:1:1"]),
            ("[modles.a]\n", &["unknown key \"modles\"", "did you mean \"models\"?"]),
        ] {
            let shown = fault(text);
            for part in expected {
                assert!(shown.contains(part), "{text}\n{shown}\nlacks {part}");
            }
        }
    }
}
