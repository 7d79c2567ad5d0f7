//! `hostler diff`: what a manifest would change in a running host.

use super::client::{self, HostClient, Listener};
use super::client_tls;
use crate::app;
use crate::config::ListenAddress;
use crate::error::Result;
use crate::output;
use crate::policy::Description;
use crate::policy::files::Files;
use crate::policy::plan::Plan;
use std::path::Path;

/// `hostler diff FILE`: prints what a reload would change.
pub fn diff(
    manifest: &Path,
    admin: Option<ListenAddress>,
    ca: Option<&Path>,
    key_file: Option<&Path>,
) -> Result<bool> {
    let files = Files::default();
    let plan = Plan::read(&app::absolute(manifest)?, &files).map_err(app::unplanned)?;
    let address = admin.unwrap_or(plan.settings.admin);
    let tls = match ca {
        Some(ca) => Some(client_tls::of_authorities(ca)?),
        None => plan.settings.tls.admin.as_ref().map(client_tls::of_manifest).transpose()?,
    };
    #[derive(serde::Deserialize)]
    struct Running {
        generation: u64,
        digest: String,
        description: Description,
    }
    let mut client = HostClient::new(address, Listener::Admin, tls).with_key_file(key_file)?;
    let running: Running = client::runtime()?.block_on(client.get_json("/admin/policy"))?;
    let changes = crate::policy::diff(&running.description, &plan.description);
    output::print(format_args!(
        "running: generation {}, digest {}; {}: digest {}",
        running.generation,
        running.digest,
        manifest.display(),
        plan.digest
    ));
    changes.iter().for_each(|change| output::print(format_args!("  {change}")));
    if changes.is_empty() {
        output::print("  no change");
    }
    Ok(true)
}
