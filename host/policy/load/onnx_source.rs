//! Reads an ONNX model for an executor, and makes a private copy of its external data.
//!
//! ONNX Runtime maps external data and reads it for as long as a session lives, so it must never
//! see the user's files, which may change at any moment. It gets a copy of the bytes whose digest
//! is in the plan, in a folder that only the host can change and that is removed once the sessions
//! are made.

use crate::error::{Error, Result};
use crate::executor::{ExternalFiles, LoadLimit, OnnxSource};
use crate::policy::external_data::{self, ExternalData, Fault};
use crate::policy::files::{File, Files};
use crate::private_folder::TemporaryFolder;
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads a model and copies its external data. `external` lists the plan's files of that data.
pub(super) fn read(file: &File, external: &[File], files: &Files, limit: LoadLimit) -> Result<OnnxSource> {
    let path = files.location(&file.path);
    let mut bytes = files.read(file)?;
    let found = match external_data::scan(&bytes) {
        Ok(found) => found,
        Err(Fault::Unreadable) => {
            return Ok(OnnxSource { path, bytes, external: ExternalFiles::None, is_readable: false, limit });
        }
        Err(fault) => return Err(Error::invalid(format!("{}: {fault}", file.path.display()))),
    };
    let external = copy(&file.path, &found, external, files)?;
    if !found.prepacked.is_empty() {
        let mut patched = bytes.to_vec();
        for range in found.prepacked {
            // Without its separators the entry is ignored, and ONNX Runtime packs the weights anew.
            patched[range].iter_mut().filter(|byte| **byte == b'|').for_each(|byte| *byte = b' ');
        }
        bytes = patched.into();
    }
    Ok(OnnxSource { path, bytes, external, is_readable: true, limit })
}

fn copy(model: &Path, found: &ExternalData<'_>, external: &[File], files: &Files) -> Result<ExternalFiles> {
    if found.files.is_empty() {
        return Ok(ExternalFiles::None);
    }
    let folder = model.parent().unwrap_or(Path::new(""));
    let by_name: BTreeMap<&Path, &File> =
        external.iter().filter_map(|file| Some((file.path.strip_prefix(folder).ok()?, file))).collect();
    let mut failures = Vec::new();
    for place in places() {
        match copy_to(&place, found, &by_name, files)? {
            Ok(folder) => return Ok(ExternalFiles::Folder(folder)),
            Err(error) => failures.push(format!("{}: {error}", place.display())),
        }
    }
    let failures = failures.join("; ");
    let is_plain = |(path, file): (&PathBuf, &external_data::DataFile<'_>)| {
        file.spellings.iter().all(|spelling| *spelling == path.as_os_str().as_encoded_bytes())
    };
    if found.is_nested || !found.files.iter().all(is_plain) {
        return Err(Error::unavailable(format!(
            "{} has external data that ONNX Runtime reads only from a folder, and no folder can hold a copy \
             ({failures}); set TMPDIR to a folder with room for it",
            model.display()
        )));
    }
    tracing::warn!(
        model = %model.display(),
        reason = failures,
        "external data copied to memory: no folder can hold a copy"
    );
    let in_memory = found.files.keys().map(|name| {
        let content = files.read(known(&by_name, name)?)?;
        Ok((name.clone(), Arc::from(&content[..])))
    });
    Ok(ExternalFiles::Memory(in_memory.collect::<Result<_>>()?))
}

/// Returns the folders that copies may go to, in order of preference: that for temporary files, and
/// the cache.
fn places() -> Vec<PathBuf> {
    let temporary = std::path::absolute(std::env::temp_dir()).ok();
    let cache = crate::config::default_cache_dir();
    // This may be the first use of the cache.
    cache.iter().for_each(|cache| drop(DirBuilder::new().recursive(true).mode(0o700).create(cache)));
    temporary.into_iter().chain(cache).collect()
}

/// The inner error concerns the folder: the copy may succeed in another one.
fn copy_to(
    place: &Path,
    found: &ExternalData<'_>,
    by_name: &BTreeMap<&Path, &File>,
    files: &Files,
) -> Result<std::io::Result<TemporaryFolder>> {
    let made = TemporaryFolder::create_in(place);
    let Ok(folder) = made else { return Ok(made) };
    for (name, data) in &found.files {
        let copied = match folder.create_file(name) {
            Ok(mut copy) => files.copy(known(by_name, name)?, &mut copy)?,
            Err(error) => Err(error),
        };
        let made = copied.and_then(|()| data.folders().try_for_each(|name| folder.create_folders(&name)));
        if let Err(error) = made {
            return Ok(Err(error));
        }
    }
    Ok(Ok(folder))
}

fn known<'a>(by_name: &BTreeMap<&Path, &'a File>, name: &Path) -> Result<&'a File> {
    // The model has the digest that the plan names, so its external data are in the plan too.
    let file = by_name.get(name).copied();
    file.ok_or_else(|| Error::failed(format!("external data {} is not in the plan", name.display())))
}
