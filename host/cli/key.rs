//! `hostler key`: makes API keys.

use crate::access::ApiKey;
use crate::error::{Error, Result};
use crate::output;
use clap::Subcommand;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum KeyCommand {
    /// Make an API key: print it, and add its digest to a file of keys.
    New {
        /// The name of the key, as access rules mention it: `key:NAME`.
        name: String,
        /// The file of keys that the access rules name. Without it, the entry is printed to stderr.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

pub fn run(command: &KeyCommand) -> Result<bool> {
    let KeyCommand::New { name, file } = command;
    let key = ApiKey::generate()?;
    let entry = key.entry(name)?;
    match file {
        Some(path) => append(path, name, &entry)
            .map_err(|error| error.context(format!("cannot add a key to {}", path.display())))?,
        None => {
            output::report_lines(&format!("# Add this to the file of keys of the access rules:\n{entry}"));
        }
    }
    output::print(key.secret());
    Ok(true)
}

/// Adds an entry to a file of keys, which is created for its owner alone if it does not exist.
fn append(path: &Path, name: &str, entry: &str) -> Result<()> {
    let known = match path.exists() {
        true => ApiKey::names(path)?,
        false => Vec::new(),
    };
    if known.iter().any(|known| known == name) {
        return Err(Error::invalid(format!(
            "it has a key \"{name}\"; to replace it, run the command without --file, and write both digests while \
             clients change: sha256 = [\"OLD\", \"NEW\"]"
        )));
    }
    let open = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let write = |mut file: std::fs::File| {
        file.write_all(format!("\n{entry}").as_bytes())?;
        file.sync_all()
    };
    open.and_then(write).map_err(|error| Error::io(&error))
}
