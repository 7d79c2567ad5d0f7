//! Compiled components on disk, so that a restart does not compile again.
//!
//! An entry is native code, so it is run only if its digest fits: cut, corrupt or foreign entries are
//! ignored and written anew. Whoever can write the folder can run code as this user: it is made for the
//! user alone. No error of the disk is ever an error of the caller.

use crate::input_file::{self, FileKind, Limit, Progress};
use sha2::{Digest, Sha256};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use wasmtime::component::Component;

const DIGEST_BYTES: usize = 32;

/// Larger than any compiled plugin.
const ENTRY_BYTES_MAX: u64 = 2 << 30;

pub(super) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    /// A disk that cannot be written is said once.
    complained: AtomicBool,
}

impl Cache {
    pub fn new(dir: PathBuf, bytes_max: u64) -> Self {
        Cache { dir, bytes_max, complained: AtomicBool::new(false) }
    }

    pub fn load(&self, engine: &wasmtime::Engine, wasm: &[u8]) -> Option<Component> {
        let path = self.path(engine, wasm);
        let limit = Limit::bytes(FileKind::Plugin, ENTRY_BYTES_MAX);
        let entry = input_file::read(&path, limit, &Progress::default()).ok()?;
        let component = verified(&path, &entry).and_then(|code| {
            // SAFETY: the code is what `store` wrote after compiling it: its digest fits, also to the name of
            // the entry, which is the digest of the component, of the engine's settings and its version.
            unsafe { Component::deserialize(engine, code) }.ok()
        });
        match &component {
            // The time of last use decides what is removed first.
            Some(_) => drop(fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()))),
            None => tracing::warn!(path = %path.display(), "compiled plugin is damaged; compiling it again"),
        }
        component
    }

    pub fn store(&self, engine: &wasmtime::Engine, wasm: &[u8], component: &Component) {
        let written = component
            .serialize()
            .map_err(|error| error.to_string())
            .and_then(|code| self.write(&self.path(engine, wasm), &code).map_err(|error| error.to_string()));
        if let Err(error) = written
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            let dir = self.dir.display();
            tracing::warn!(%dir, error, "compiled plugins cannot be kept; they are compiled at each start");
        }
        self.evict();
    }

    fn path(&self, engine: &wasmtime::Engine, wasm: &[u8]) -> PathBuf {
        let mut digest = Sha256::new();
        let mut settings = HashInto(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut settings);
        digest.update(settings.0.finalize());
        digest.update(wasm);
        self.dir.join(format!("{:x}.cwasm", digest.finalize()))
    }

    /// Beside, then renamed: another process never sees half an entry.
    fn write(&self, path: &Path, code: &[u8]) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let beside = self.dir.join(format!(".{}-{:x}", std::process::id(), fastrand::u64(..)));
        let write = || {
            let mut file = fs::File::create_new(&beside)?;
            file.write_all(&digest(path, code))?;
            file.write_all(code)?;
            fs::rename(&beside, path)
        };
        write().inspect_err(|_| drop(fs::remove_file(&beside)))
    }

    /// Removes what was not used for longest until the folder is within its bound.
    fn evict(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        files.sort_unstable();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total <= self.bytes_max {
                break;
            }
            total -= length;
            let _ = fs::remove_file(path);
        }
    }
}

fn verified<'e>(path: &Path, entry: &'e [u8]) -> Option<&'e [u8]> {
    let (found, code) = entry.split_at_checked(DIGEST_BYTES)?;
    (digest(path, code) == found).then_some(code)
}

/// Of the name and the code: an entry that was renamed is damaged.
fn digest(path: &Path, code: &[u8]) -> [u8; DIGEST_BYTES] {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    Sha256::new().chain_update(name).chain_update(code).finalize().into()
}

struct HashInto(Sha256);

impl Hasher for HashInto {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("invariant: only the digest is read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Vec<u8> {
        wat::parse_str("(component)").unwrap()
    }

    fn entries(dir: &Path) -> Vec<PathBuf> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn damaged_entries_are_ignored_and_old_ones_removed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = wasmtime::Engine::default();
        let wasm = &empty()[..];
        let component = Component::new(&engine, wasm).unwrap();
        let cache = Cache::new(dir.path().join("c"), 1 << 30);
        assert!(cache.load(&engine, wasm).is_none());
        cache.store(&engine, wasm, &component);
        assert!(cache.load(&engine, wasm).is_some());

        let entry = &entries(&dir.path().join("c"))[0];
        let mut bytes = fs::read(entry).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(entry, &bytes).unwrap();
        assert!(cache.load(&engine, wasm).is_none(), "a flipped bit is noticed");
        fs::write(entry, &bytes[..10]).unwrap();
        assert!(cache.load(&engine, wasm).is_none(), "a cut entry is noticed");

        Cache::new(dir.path().join("c"), 1).store(&engine, wasm, &component);
        assert_eq!(entries(&dir.path().join("c")).len(), 0, "the bound holds");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_survived() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let engine = wasmtime::Engine::default();
        let wasm = &empty()[..];
        let component = Component::new(&engine, wasm).unwrap();
        let cache = Cache::new(file.path().join("below-a-file"), 1);
        cache.store(&engine, wasm, &component);
        assert!(cache.load(&engine, wasm).is_none());
    }
}
