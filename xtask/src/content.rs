//! Files by content: keys that show whether inputs changed, and atomic writes.
//! Modification times are not used: a checkout or an overwritten output makes them wrong.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use crate::error::{Attempt, Result};

/// Folders that tools create beside sources; they are not inputs.
const SKIPPED: [&str; 6] =
    ["__pycache__", "dist", "hostler_plugin.egg-info", "node_modules", "target", "tests"];

/// Returns a key over `texts` and over the names and contents of all files under `paths`. A path
/// that does not exist counts as empty. The key shows that a rebuild is needed; it does not protect
/// against an attacker.
pub fn key(texts: &[&str], paths: &[PathBuf]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.write_usize(bytes.len());
        hasher.write(bytes);
    };
    texts.iter().for_each(|text| add(text.as_bytes()));
    for path in paths {
        for (name, file) in files(path)? {
            add(name.as_bytes());
            add(&fs::read(&file).attempting(|| format!("read {}", file.display()))?);
        }
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Lists all files under `path` in sorted order. Names are relative to `path`, so that two clones
/// have the same key.
fn files(path: &Path) -> Result<Vec<(String, PathBuf)>> {
    if path.is_file() {
        return Ok(vec![(String::new(), path.to_path_buf())]);
    }
    let (mut found, mut folders) = (Vec::new(), vec![path.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry.attempting(|| format!("list {}", folder.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let entry = entry.path();
            if entry.is_dir() && !SKIPPED.contains(&name.as_str()) {
                folders.push(entry);
            } else if entry.is_file() && !name.starts_with('.') {
                let name = entry.strip_prefix(path).unwrap_or(&entry).to_string_lossy().into_owned();
                found.push((name, entry));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies the content of `from` to `to` atomically: a reader or a watcher sees either the old file
/// or the new one. Returns `false`, without touching `to`, if `to` already has that content.
pub fn install(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).attempting(|| format!("read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    write(to, &new)?;
    Ok(true)
}

/// Writes a file atomically. Creates its folder if necessary.
pub fn write(to: &Path, bytes: &[u8]) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    // The file is beside the target because a rename does not cross file systems, and hidden
    // because watchers ignore hidden files.
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, to))
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .attempting(|| format!("write {}", to.display()))
}

pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).attempting(|| format!("create folder {}", path.display()))
}

/// A hidden folder beside its destination, in which content is created before the folder is moved
/// there. Dropping it removes the folder unless [`Fresh::put_in_place`] was called.
pub struct Fresh {
    /// The folder to create the content in.
    pub path: PathBuf,
    place: PathBuf,
}

impl Fresh {
    pub fn beside(place: &Path) -> Result<Fresh> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let path = place.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        make_folder(&path)?;
        Ok(Fresh { path, place: place.to_path_buf() })
    }

    /// Moves the folder to its destination. If another process was first, its folder stays.
    pub fn put_in_place(self) -> Result<()> {
        match fs::rename(&self.path, &self.place) {
            Err(cause) if !self.place.exists() => Err(cause),
            _ => Ok(()),
        }
        .attempting(|| format!("move a new folder to {}", self.place.display()))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        make_folder(&folder).expect("scratch folder");
        folder
    }

    #[test]
    fn key_follows_names_and_contents_only() {
        let folder = scratch("key");
        let key = || key(&["t"], std::slice::from_ref(&folder)).expect("key");
        fs::write(folder.join("a"), "1").expect("write");
        let first = key();
        fs::write(folder.join("a"), "1").expect("write");
        assert_eq!(key(), first, "the same bytes again");
        fs::create_dir(folder.join("__pycache__")).expect("folder");
        fs::write(folder.join("__pycache__/a.pyc"), "x").expect("write");
        assert_eq!(key(), first, "files that a tool creates");
        fs::write(folder.join("a"), "2").expect("write");
        assert_ne!(key(), first, "another content");
        fs::rename(folder.join("a"), folder.join("b")).expect("rename");
        fs::write(folder.join("b"), "1").expect("write");
        assert_ne!(key(), first, "another name");
        fs::remove_dir_all(folder).expect("clean up");
    }

    #[test]
    fn install_touches_only_what_differs_and_leaves_no_temporary() {
        let folder = scratch("install");
        let (from, to) = (folder.join("from"), folder.join("out/to"));
        fs::write(&from, "new").expect("write");
        assert!(install(&from, &to).expect("first"));
        assert!(!install(&from, &to).expect("again"));
        fs::write(&to, "ne").expect("half a file");
        assert!(install(&from, &to).expect("repaired"));
        assert_eq!(fs::read_to_string(&to).expect("read"), "new");
        assert_eq!(fs::read_dir(folder.join("out")).expect("list").count(), 1);
        fs::remove_dir_all(folder).expect("clean up");
    }
}
