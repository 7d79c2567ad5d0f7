//! A cache of compiled components on disk, so that a restart does not compile them again.
//!
//! An entry is native code. It is run only if its digest matches, and only from a folder that no
//! other user can write to: the cache's own subfolder of the folder that the user names. Other
//! files in either folder are never touched. An entry is copied before it runs, so later changes to
//! its file do not matter. A disk error is never an error of the caller.

use super::artifact::CodeWriter;
use super::compiler::Compiled;
use super::compiler::functions::PACK_BYTES_MAX;
use super::compiler::report::{self, Report};
use crate::private_folder::PrivateFolder;
use sha2::{Digest, Sha256};
use std::fs::Metadata;
use std::hash::{Hash, Hasher};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// The cache's own subfolder of the user's folder. A new layout of entries gets a new name.
const FOLDER: &str = "hostler-compiled-2";

const ENTRY_SUFFIX: &str = ".cwasm";

/// Suffix of packs of compiled functions.
const PACK_SUFFIX: &str = ".functions";

/// Prefix of entries that are being written.
const UNFINISHED_PREFIX: &str = ".unfinished-";

const DIGEST_BYTES: usize = 32;

/// Larger than anything a compiler process may send.
const ENTRY_BYTES_MAX: u64 = 4 << 30;

/// Unfinished files that a terminated host left behind are removed at this age.
const ABANDONED: Duration = Duration::from_secs(3600);

pub(super) struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    /// Whether an unusable folder was already logged.
    complained: AtomicBool,
}

impl Cache {
    pub fn new(dir: &Path, bytes_max: u64) -> Self {
        Cache { folder: dir.join(FOLDER), bytes_max, complained: AtomicBool::new(false) }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the entry of this name if it exists and is intact.
    pub fn load(&self, name: &str) -> Option<Compiled> {
        let folder = match PrivateFolder::open(&self.folder) {
            Ok(folder) => folder,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                self.complain(&error);
                return None;
            }
        };
        match self.read(&folder, name) {
            Ok(compiled) => Some(compiled),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let path = self.folder.join(name);
                tracing::warn!(path = %path.display(), %error, "compiled plugin is damaged; compiling it again");
                None
            }
        }
    }

    fn read(&self, folder: &PrivateFolder, name: &str) -> Result<Compiled> {
        let file = folder.read(name)?;
        let length = file.metadata()?.len();
        if length > ENTRY_BYTES_MAX {
            return Err(Error::other("it is too long"));
        }
        // The modification time is the time of last use, which decides what is evicted first. A
        // read-only cache does not record it.
        let _ = file.set_modified(SystemTime::now());
        let mut rest = file.take(length);
        let mut expected = [0; DIGEST_BYTES];
        rest.read_exact(&mut expected)?;
        let mut head = vec![0; 4];
        rest.read_exact(&mut head)?;
        let bytes = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if bytes > report::BYTES_MAX {
            return Err(Error::other("its head is too long"));
        }
        head.resize(4 + bytes, 0);
        rest.read_exact(&mut head[4..])?;
        let mut digest = Sha256::new_with_prefix(name).chain_update(&head);
        let mut writer = CodeWriter::new(Some(&self.folder));
        writer.expect(rest.limit());
        copy(&mut rest, |bytes| {
            digest.update(bytes);
            writer.write(bytes)
        })?;
        if digest.finalize()[..] != expected {
            return Err(Error::other("its digest does not match"));
        }
        match report::parse(&head)? {
            Some((Report::Compiled { interface, .. }, _)) => {
                Ok(Compiled { interface, code: writer.finish(), functions: Vec::new() })
            }
            _ => Err(Error::other("it has no code")),
        }
    }

    /// Stores a compiled component under this name.
    pub fn store(&self, name: &str, compiled: &Compiled) {
        let stored = PrivateFolder::make(&self.folder).and_then(|folder| {
            let written = write(&folder, name, compiled);
            self.evict(&folder);
            written
        });
        if let Err(error) = stored {
            self.complain(&error);
        }
    }

    /// Whether packs of functions leave most of the cache to components.
    pub fn has_room_for_packs(&self) -> bool {
        self.bytes_max >= 4 * PACK_BYTES_MAX as u64
    }

    /// Returns the pack of functions of this name; an empty one if there is none that can be read.
    pub fn load_pack(&self, name: &str) -> Vec<u8> {
        let read = || {
            let file = PrivateFolder::open(&self.folder)?.read(name)?;
            let _ = file.set_modified(SystemTime::now());
            let mut content = Vec::new();
            file.take((DIGEST_BYTES + PACK_BYTES_MAX) as u64).read_to_end(&mut content)?;
            match content.split_first_chunk::<DIGEST_BYTES>() {
                Some((digest, pack)) if pack_digest(name, pack) == *digest => {
                    content.drain(..DIGEST_BYTES);
                    Ok(content)
                }
                _ => Err(Error::other("its digest does not match")),
            }
        };
        match read() {
            Ok(pack) => pack,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    let path = self.folder.join(name);
                    tracing::debug!(path = %path.display(), %error, "compiled functions cannot be used");
                }
                Vec::new()
            }
        }
    }

    /// Stores a pack of functions under this name.
    pub fn store_pack(&self, name: &str, pack: &[u8]) {
        let stored = PrivateFolder::make(&self.folder).and_then(|folder| {
            let beside = format!("{UNFINISHED_PREFIX}{}-{:016x}", std::process::id(), fastrand::u64(..));
            let written = folder.create(&beside).and_then(|mut file| {
                file.write_all(&pack_digest(name, pack))?;
                file.write_all(pack)?;
                folder.rename(&beside, name)
            });
            let written = written.inspect_err(|_| drop(folder.remove(&beside)));
            self.evict(&folder);
            written
        });
        if let Err(error) = stored {
            self.complain(&error);
        }
    }

    fn complain(&self, error: &Error) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "compiled plugins cannot be kept; they are compiled at each start");
        }
    }

    /// Evicts the least recently used entries until the rest fit into the limit. Other files do not
    /// belong to the cache and are neither counted nor touched.
    fn evict(&self, folder: &PrivateFolder) {
        let now = SystemTime::now();
        let mut entries: Vec<(SystemTime, u64, String)> = Vec::new();
        for name in folder.names().unwrap_or_default() {
            let Some(name) = name.to_str().filter(|name| is_entry(name) || is_unfinished(name)) else {
                continue;
            };
            let Some(found) = folder.stat(name).filter(Metadata::is_file) else { continue };
            let Ok(used) = found.modified() else { continue };
            if is_entry(name) {
                entries.push((used, found.len(), name.to_owned()));
            } else if now.duration_since(used).is_ok_and(|age| age > ABANDONED) {
                let _ = folder.remove(name);
            }
        }
        entries.sort_unstable();
        let mut total: u64 = entries.iter().map(|(_, length, _)| length).sum();
        for (_, length, name) in entries {
            if total <= self.bytes_max {
                break;
            }
            total -= length;
            let _ = folder.remove(&name);
        }
    }
}

/// Returns the entry name of a component that is compiled with an engine's settings and version.
pub(super) fn entry_name(engine: &wasmtime::Engine, wasm: &[u8]) -> String {
    let digest = Sha256::new_with_prefix(settings_digest(engine)).chain_update(wasm).finalize();
    format!("{digest:x}{ENTRY_SUFFIX}")
}

/// Returns the name of the pack of functions that are compiled with an engine's settings and
/// version.
pub(super) fn pack_name(engine: &wasmtime::Engine) -> String {
    format!("{:x}{PACK_SUFFIX}", settings_digest(engine))
}

fn settings_digest(engine: &wasmtime::Engine) -> sha2::digest::Output<Sha256> {
    let mut settings = HashInto(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    settings.0.finalize()
}

fn pack_digest(name: &str, pack: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::new_with_prefix(name).chain_update(pack).finalize().into()
}

fn is_entry(name: &str) -> bool {
    let digest = name.strip_suffix(ENTRY_SUFFIX).or_else(|| name.strip_suffix(PACK_SUFFIX));
    let digest = digest.unwrap_or_default();
    digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_unfinished(name: &str) -> bool {
    name.starts_with(UNFINISHED_PREFIX)
}

/// Writes to a temporary name and then renames: other processes never see a partial entry.
fn write(folder: &PrivateFolder, name: &str, compiled: &Compiled) -> Result<()> {
    let beside = format!("{UNFINISHED_PREFIX}{}-{:016x}", std::process::id(), fastrand::u64(..));
    let mut file = folder.create(&beside)?;
    let mut write = || {
        let mut head = Vec::new();
        let interface = compiled.interface.clone();
        let code_bytes = compiled.code.len()?;
        report::write(&mut head, &Report::Compiled { interface, code_bytes, functions_bytes: 0 })?;
        let mut digest = Sha256::new_with_prefix(name).chain_update(&head);
        file.write_all(&[0; DIGEST_BYTES])?;
        file.write_all(&head)?;
        copy(&mut compiled.code.reader()?, |bytes| {
            digest.update(bytes);
            file.write_all(bytes)
        })?;
        file.write_all_at(&digest.finalize(), 0)?;
        folder.rename(&beside, name)
    };
    write().inspect_err(|_| drop(folder.remove(&beside)))
}

fn copy(from: &mut dyn Read, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => take(&buffer[..read])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
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
    use crate::plugin::component_info::Interface;

    fn compiled(code: &[u8]) -> Compiled {
        let mut writer = CodeWriter::new(None);
        writer.expect(code.len() as u64);
        writer.write(code).unwrap();
        Compiled { interface: Interface::default(), code: writer.finish(), functions: Vec::new() }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_entries_are_counted_and_evicted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), 1);
        let name = format!("{}{ENTRY_SUFFIX}", "a".repeat(64));
        let own = dir.path().join(FOLDER);
        std::fs::write(dir.path().join(&name), "the user's, older than all").unwrap();
        Cache::new(dir.path(), 1 << 20).store(&name, &compiled(b"code"));
        assert!(cache.load(&name).is_some());
        for other in ["notes.txt", "model.cwasm", ".new", &"b".repeat(70)] {
            std::fs::write(own.join(other), "the user's").unwrap();
        }
        cache.store(&name, &compiled(b"code"));
        assert_eq!(names(&own).len(), 4, "{:?}", names(&own));
        assert!(cache.load(&name).is_none(), "the bound holds");
        assert_eq!(names(dir.path()), [name.as_str(), FOLDER]);
    }
}
