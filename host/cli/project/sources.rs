//! What the files of a project are now: their digest, and a cheap look at whether one has changed.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The most files of a project that are watched.
const FILES_MAX: usize = 10_000;

/// The deepest folder that is watched.
const DEPTH_MAX: usize = 32;

/// Larger files are identified by their length and time.
const DIGESTED_BYTES_MAX: u64 = 16 << 20;

/// The state of every watched file.
pub(super) type State = BTreeMap<PathBuf, (u64, Option<SystemTime>, u64)>;

/// Returns the state of the files below these paths. Leaves out hidden entries, links to folders,
/// folders of tools, and everything that is not a regular file or a folder.
pub(super) fn state(folder: &Path, watched: &[PathBuf]) -> State {
    let mut state = State::new();
    for path in watched {
        add(&mut state, &folder.join(path), 0);
    }
    state
}

fn add(state: &mut State, path: &Path, depth: usize) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if state.len() >= FILES_MAX || depth > DEPTH_MAX {
        return;
    }
    if metadata.is_file() {
        state.insert(path.to_owned(), (metadata.len(), metadata.modified().ok(), metadata.ino()));
    } else if metadata.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // Links to folders can form circles.
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if is_link && entry.path().is_dir() {
                continue;
            }
            if !name.starts_with('.') && !matches!(&*name, "node_modules" | "__pycache__" | "target") {
                add(state, &entry.path(), depth + 1);
            }
        }
    }
}

/// Returns the first path whose state differs.
pub(super) fn changed<'a>(before: &'a State, after: &'a State) -> Option<&'a Path> {
    let gone_or_changed = before.iter().find(|(path, now)| after.get(*path) != Some(*now));
    let gone_or_changed = gone_or_changed.map(|(path, _)| path.as_path());
    gone_or_changed.or_else(|| after.keys().find(|path| !before.contains_key(*path)).map(PathBuf::as_path))
}

/// Returns a digest of these files, with their paths relative to the folder.
///
/// # Errors
/// `not-found` if one of the paths does not exist.
pub(super) fn digest(folder: &Path, inputs: &[PathBuf]) -> Result<String> {
    if let Some(missing) = inputs.iter().find(|path| !folder.join(path).exists()) {
        return Err(Error::not_found(format!(
            "its input {} does not exist; correct `inputs` in plugin.toml",
            missing.display()
        )));
    }
    let mut digest = Sha256::new();
    for (path, (length, modified, _)) in state(folder, inputs) {
        digest.update(path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().as_bytes());
        digest.update(length.to_le_bytes());
        let content = (length <= DIGESTED_BYTES_MAX).then(|| std::fs::read(&path).ok()).flatten();
        match content {
            Some(content) => digest.update(content),
            None => digest.update(format!("{modified:?}")),
        }
    }
    Ok(format!("{:x}", digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_found_and_other_entries_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("src/node_modules")).unwrap();
        std::fs::write(path("src/a.py"), "1").unwrap();
        std::fs::write(path("src/node_modules/b.js"), "1").unwrap();
        std::fs::write(path("src/.c"), "1").unwrap();
        std::os::unix::fs::symlink(path("src"), path("src/circle")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("src/fifo"), rustix::fs::Mode::RUSR).unwrap();
        let watched = [PathBuf::from("src"), PathBuf::from("absent")];
        let before = state(folder.path(), &watched);
        assert!(before.contains_key(&path("src/a.py")));
        assert!(before.keys().all(|path| !path.to_string_lossy().contains("node_modules")), "{before:?}");
        let inputs = [PathBuf::from("src")];
        let digest_before = digest(folder.path(), &inputs).unwrap();
        std::fs::write(path("src/a.py"), "22").unwrap();
        let after = state(folder.path(), &watched);
        assert!(changed(&before, &after).is_some());
        assert_eq!(changed(&after, &after), None);
        assert_ne!(digest_before, digest(folder.path(), &inputs).unwrap());
        let error = digest(folder.path(), &watched).unwrap_err().to_string();
        assert!(error.contains("absent does not exist"), "{error}");
    }
}
