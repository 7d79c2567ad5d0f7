//! `hostler sdk` and `hostler wit`: the SDK of a language, and the contract.

use super::embedded;
use super::language::Language;
use super::written::{NewFiles, write};
use crate::error::Result;
use std::path::Path;

/// `hostler wit FOLDER`: writes the contract. Does not overwrite files with other content unless
/// `force` is set.
pub fn write_contract(folder: &Path, force: bool) -> Result<bool> {
    let files = embedded::contract().map(|(path, content)| (path.into(), content.to_vec())).collect();
    write(folder, &files, force, true)?;
    Ok(true)
}

/// `hostler sdk LANGUAGE FOLDER`: writes the SDK of this version of the host, with the contract in
/// its folder `wit`. Does not overwrite files with other content unless `force` is set.
pub fn write_sdk(language: &str, folder: &Path, force: bool) -> Result<bool> {
    let language = Language::parse(language)?;
    write(folder, &sdk_files(language, Path::new("")), force, true)?;
    Ok(true)
}

/// Returns the files of an SDK, below `folder`.
pub(super) fn sdk_files(language: Language, folder: &Path) -> NewFiles {
    let mut files: NewFiles = embedded::folder(language.sdk())
        .map(|(path, content)| (folder.join(path), content.to_vec()))
        .collect();
    for (path, content) in embedded::contract() {
        let path = folder.join("wit").join(path);
        if files.iter().all(|(known, _)| *known != path) {
            files.push((path, content.to_vec()));
        }
    }
    files
}
