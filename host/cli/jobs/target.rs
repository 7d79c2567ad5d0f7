//! The host that a command talks to.

use super::arguments::{AdminHost, PublicHost};
use crate::cli::client::{HostClient, Listener};
use crate::cli::client_tls;
use crate::config::ListenAddress;
use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, FileLimits, Progress};
use crate::policy::settings::Settings;
use std::path::Path;

/// The manifest that `hostler serve` reads if none is named.
const MANIFEST: &str = "hostler.toml";

impl PublicHost {
    pub(super) fn client(self) -> Result<HostClient> {
        client(self.http, self.manifest.as_deref(), self.ca.as_deref(), Listener::Public)?
            .with_key_file(self.key_file.as_deref())
    }
}

impl AdminHost {
    pub(super) fn client(self) -> Result<HostClient> {
        client(self.admin, self.manifest.as_deref(), self.ca.as_deref(), Listener::Admin)?
            .with_key_file(self.key_file.as_deref())
    }
}

/// Returns a client of the host at a named address, or at that of a manifest, with the TLS of the
/// manifest unless an authority is named.
fn client(
    named: Option<ListenAddress>,
    manifest: Option<&Path>,
    ca: Option<&Path>,
    listener: Listener,
) -> Result<HostClient> {
    let ca = ca.map(client_tls::of_authorities).transpose()?;
    if let (Some(address), None) = (&named, manifest) {
        return Ok(HostClient::new(address.clone(), listener, ca));
    }
    let path = manifest.unwrap_or(Path::new(MANIFEST));
    let text = match manifest.is_some() || path.exists() {
        true => read(path).map_err(|error| {
            error.context(format!("cannot read {}, which names the address of the host", path.display()))
        })?,
        // The addresses that `hostler serve` has by default.
        false => String::new(),
    };
    let settings =
        Settings::read(path, &text).map_err(|faults| Error::invalid(faults.to_string()).laid_out())?;
    let (address, tls) = match listener {
        Listener::Public => (settings.http, settings.tls.http),
        Listener::Admin => (settings.admin, settings.tls.admin),
    };
    let address = named.unwrap_or(address);
    if address.port() == 0 {
        return Err(Error::invalid(format!(
            "{} lets the system choose the port of the {} listener; name the address that the host has printed \
             with {}",
            path.display(),
            listener.as_str(),
            listener.option()
        )));
    }
    let own = || tls.as_ref().map(client_tls::of_manifest).transpose();
    let tls = if ca.is_some() { ca } else { own()? };
    Ok(HostClient::new(address, listener, tls))
}

fn read(path: &Path) -> Result<String> {
    let bytes = input_file::read(path, FileLimits::default().of(FileKind::Manifest), &Progress::default())?;
    String::from_utf8(bytes).map_err(|_| Error::invalid("it is not UTF-8"))
}
