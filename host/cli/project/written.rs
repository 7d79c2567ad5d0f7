//! Writes a set of files into a folder, without overwriting what differs.

use crate::error::{Error, Result};
use crate::output;
use std::path::{Path, PathBuf};

/// Files to be written, relative to a folder.
pub(super) type NewFiles = Vec<(PathBuf, Vec<u8>)>;

/// Writes files that do not exist yet, and prints their paths if `shows`. Files with the same
/// content are left alone.
///
/// # Errors
/// If a file exists with other content and `force` is not set, nothing is written.
pub(super) fn write(folder: &Path, files: &NewFiles, force: bool, shows: bool) -> Result<()> {
    let mut unwritten = Vec::new();
    for (name, content) in files {
        let path = folder.join(name);
        match std::fs::read(&path) {
            Ok(found) if found == *content => {}
            Ok(_) if !force => {
                let path = path.display();
                return Err(Error::invalid(format!(
                    "{path} exists and has other content; nothing was written: name another folder, or overwrite it \
                     with --force"
                )));
            }
            // If the path is not a writable file, the write below reports it.
            _ => unwritten.push(name),
        }
    }
    for (name, content) in files {
        let path = folder.join(name);
        if unwritten.contains(&name) {
            let parent = path.parent().expect("invariant: below the folder");
            std::fs::create_dir_all(parent)
                .and_then(|()| std::fs::write(&path, content))
                .map_err(|error| Error::unavailable(format!("cannot write {}: {error}", path.display())))?;
        }
        if shows {
            output::print(path.display());
        }
    }
    Ok(())
}
