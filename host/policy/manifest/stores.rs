//! `[stores.NAME]` as written.

use serde::Deserialize;
use std::path::PathBuf;
use toml::Spanned;

/// `[stores.NAME]`. Read at start. A change needs a restart, and a reload reports that.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// `redb`
    pub kind: Spanned<String>,
    /// The folder of the store, which belongs to one host.
    pub dir: Option<Spanned<PathBuf>>,
}
