//! Watches the folders of files, and reports that files may have changed.
//!
//! Covers the folders of all files and of the links on the way to them, so that both a rename into
//! place and a swapped link (as Kubernetes does) are seen. It does not find out what changed. If
//! watching is not possible, the slow poll of the watch thread remains.

use super::files::Signature;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) struct Watcher {
    inner: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl Watcher {
    /// Calls `changed` from a thread of its own, possibly often.
    pub fn new(changed: impl Fn() + Send + 'static) -> Self {
        let handler = move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too. The host's own reading must not trigger another one.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                changed();
            }
        };
        let inner = notify::recommended_watcher(handler)
            .inspect_err(|error| tracing::warn!(%error, "cannot watch files; polling them instead"))
            .ok();
        Watcher { inner, folders: BTreeSet::new() }
    }

    /// Watches the folders of these files, and no others.
    pub fn watch(&mut self, files: &Signature) {
        let Some(inner) = &mut self.inner else { return };
        let wanted: BTreeSet<PathBuf> = files.keys().flat_map(|file| folders_of(file)).collect();
        for folder in self.folders.difference(&wanted) {
            // It may not exist any more.
            let _ = inner.unwatch(folder);
        }
        let mut watched: BTreeSet<PathBuf> = self.folders.intersection(&wanted).cloned().collect();
        for folder in wanted.difference(&self.folders) {
            match inner.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(folder.clone())),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "cannot watch a folder; polling it instead");
                }
            }
        }
        self.folders = watched;
    }
}

/// Returns the folder of a file, and those of the links that lead to it.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut file = file.to_owned();
    // A longer chain of links is taken for a loop.
    for _ in 0..8 {
        let Some(folder) = file.parent() else { break };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if let Ok(real) = folder.canonicalize() {
            folders.push(real);
        }
        match std::fs::read_link(&file) {
            Ok(target) => file = folder.join(target),
            Err(_) => break,
        }
    }
    if let Some(real) = file.canonicalize().ok().as_deref().and_then(Path::parent) {
        folders.push(real.to_owned());
    }
    folders
}
