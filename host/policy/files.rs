//! The files that a policy is made of, identified by the digest of their content.
//!
//! A digest is computed once for each state of a file. When the file is loaded later, it must still
//! have that digest, so that a policy never runs anything other than what it says. Small files are
//! kept in memory from the digest until the policy is built, so that a file that changes all the
//! time can be loaded too.

use super::external_data::{self, Fault};
use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, FileLimits, Limit, Progress};
use crate::lock::LockUnpoisoned;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// The state of every path before it was read, including paths that do not exist.
pub type Signature = BTreeMap<PathBuf, Option<Stat>>;

/// A file at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct File {
    pub path: PathBuf,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    pub bytes: u64,
}

impl File {
    /// Returns the path of external data, relative to the folder of its model.
    pub fn beside(&self, model: &File) -> &Path {
        let folder = model.path.parent().unwrap_or(Path::new(""));
        self.path.strip_prefix(folder).unwrap_or(&self.path)
    }
}

/// What the file system says about a file without reading it. A change of the content changes this,
/// unless both happen within the resolution of the clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stat {
    modified: Option<SystemTime>,
    changed: (i64, i64),
    length: u64,
    inode: u64,
}

impl Stat {
    /// Returns `None` if there is no such file. Follows links.
    pub fn of(path: &Path) -> Option<Stat> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stat {
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
            inode: metadata.ino(),
        })
    }
}

#[cfg(test)]
impl Stat {
    pub fn made_up(length: u64) -> Stat {
        Stat { modified: None, changed: (0, 0), length, inode: 0 }
    }
}

/// A digest is trusted only if the file was older than this when it was read. Two writes that are
/// closer together can have the same time.
const SETTLED: Duration = Duration::from_millis(50);

/// Files up to this size are kept in memory until the policy is built, `HELD_BYTES_MAX` in total.
const HELD_FILE_BYTES_MAX: usize = 1 << 20;
const HELD_BYTES_MAX: usize = 32 << 20;

/// Reads files for one attempt to build a policy. Digests are shared by all attempts.
#[derive(Default)]
pub struct Files {
    known: Arc<Mutex<HashMap<PathBuf, KnownFile>>>,
    stats: Mutex<Signature>,
    held: Mutex<HeldFiles>,
    /// The folder of a last-good copy, which replaces `/`.
    root: Option<PathBuf>,
    /// Whether this attempt is still wanted, and which file it reads now.
    pub progress: Progress,
}

#[derive(Clone)]
struct KnownFile {
    stat: Stat,
    file: File,
    /// For a model: its external data, or why that cannot be served.
    external_data: Option<Result<Vec<NeededFile>, String>>,
}

/// A file of external data that a model names.
#[derive(Clone)]
struct NeededFile {
    /// Relative to the model's folder.
    name: PathBuf,
    bytes_min: u64,
    /// The tensor that needs that many bytes.
    tensor: String,
}

#[derive(Default)]
struct HeldFiles {
    contents: HashMap<PathBuf, (String, Bytes)>,
    bytes: usize,
}

/// Locks a mutex that may be poisoned. No code below panics halfway through a change, so the
/// guarded value is consistent even then.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock_unpoisoned()
}

impl Files {
    /// Returns the files of a copy: `/a/b` is `<root>/a/b`.
    pub fn below(root: PathBuf) -> Self {
        Files { root: Some(root), ..Files::default() }
    }

    /// Returns the files for another attempt, which shares the known digests.
    pub fn attempt(&self) -> Self {
        Files { known: Arc::clone(&self.known), root: self.root.clone(), ..Files::default() }
    }

    /// Returns where a file that a plan names is on the disk.
    pub fn location(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    pub fn file(&self, path: &Path, limit: Limit) -> Result<File> {
        Ok(self.known(path, limit, false)?.file)
    }

    /// Returns an ONNX file, and the files beside it that hold its external data.
    pub fn model(&self, path: &Path, limits: &FileLimits) -> Result<(File, Vec<File>)> {
        let known = self.known(path, limits.of(FileKind::Model), true)?;
        let needed = known.external_data.unwrap_or(Ok(Vec::new())).map_err(Error::invalid)?;
        let limit = limits.of(FileKind::ExternalData);
        let external = needed.iter().map(|needed| self.external(path, needed, limit));
        Ok((known.file, external.collect::<Result<_>>()?))
    }

    fn external(&self, model: &Path, needed: &NeededFile, limit: Limit) -> Result<File> {
        let NeededFile { name, bytes_min, tensor } = needed;
        let path = model.parent().unwrap_or(Path::new(".")).join(name);
        if path == model {
            let why = "the file of its external data is the model itself";
            return Err(Error::invalid(format!("tensor {tensor:?}: {why}")));
        }
        let file = self.file(&path, limit);
        // The caller names the model's file in the message, but another file is missing.
        let file = file.map_err(|error| error.context(format!("its external data {}", path.display())))?;
        if file.bytes < *bytes_min {
            let (name, bytes) = (name.display(), file.bytes);
            return Err(Error::invalid(format!(
                "tensor {tensor:?} needs {bytes_min} bytes of {name}, which has {bytes}"
            )));
        }
        Ok(file)
    }

    /// Reads a file that a plan names. Fails if its content has changed.
    pub fn read(&self, file: &File) -> Result<Bytes> {
        if let Some((sha256, content)) = lock(&self.held).contents.get(&file.path)
            && *sha256 == file.sha256
        {
            return Ok(content.clone());
        }
        let path = file.path.display();
        let mut content = Vec::new();
        let limit = Limit::bytes(FileKind::Asset, u64::MAX);
        input_file::read_in_pieces(&self.location(&file.path), limit, &self.progress, |piece| {
            if content.len() + piece.len() > file.bytes as usize {
                return Err(changed());
            }
            input_file::append(&mut content, piece)
        })
        .map_err(|error| error.context(format!("cannot read {path}")))?;
        if hex_digest(&content) != file.sha256 {
            return Err(changed().context(format!("cannot read {path}")));
        }
        Ok(content.into())
    }

    /// Copies a file that a plan names. Fails if its content has changed. The inner error is that
    /// of writing, for which the file is not at fault.
    pub fn copy(&self, file: &File, to: &mut impl Write) -> Result<std::io::Result<()>> {
        let (mut digest, mut bytes, mut failed) = (Sha256::new(), 0_u64, None);
        let limit = Limit::bytes(FileKind::ExternalData, u64::MAX);
        let read = input_file::read_in_pieces(&self.location(&file.path), limit, &self.progress, |piece| {
            digest.update(piece);
            bytes += piece.len() as u64;
            if bytes > file.bytes {
                return Err(changed());
            }
            to.write_all(piece).map_err(|error| {
                let message = Error::io(&error);
                failed = Some(error);
                message
            })
        });
        if let Some(error) = failed {
            return Ok(Err(error));
        }
        let same = || match format!("{:x}", digest.finalize()) == file.sha256 {
            true => Ok(Ok(())),
            false => Err(changed()),
        };
        read.and_then(|()| same())
            .map_err(|error| error.context(format!("cannot read {}", file.path.display())))
    }

    /// Returns every path that was asked for since the last call.
    pub fn take_asked(&self) -> Signature {
        std::mem::take(&mut *lock(&self.stats))
    }

    fn known(&self, path: &Path, limit: Limit, is_model: bool) -> Result<KnownFile> {
        let location = &self.location(path);
        let stat = Stat::of(location);
        lock(&self.stats).insert(path.to_owned(), stat.clone());
        let remembered = lock(&self.known).get(path).cloned();
        if let (Some(known), Some(stat)) = (remembered, &stat)
            && known.stat == *stat
            && (!is_model || known.external_data.is_some())
        {
            limit.check(known.file.bytes)?;
            return Ok(known);
        }
        let read_at = SystemTime::now();
        let (mut digest, mut bytes, mut content) = (Sha256::new(), 0_u64, Vec::new());
        input_file::read_in_pieces(location, limit, &self.progress, |piece| {
            digest.update(piece);
            bytes += piece.len() as u64;
            // A large file is read again when it is loaded. A model is scanned now.
            if is_model || bytes <= HELD_FILE_BYTES_MAX as u64 {
                input_file::append(&mut content, piece)?;
            }
            Ok(())
        })?;
        let sha256 = format!("{:x}", digest.finalize());
        let external_data = is_model.then(|| needed(&content));
        if content.len() as u64 == bytes {
            self.hold(path, &sha256, content);
        }
        let file = File { path: path.to_owned(), sha256, bytes };
        let Some(stat) = stat else {
            return Err(Error::unavailable("it appeared while it was read").transient());
        };
        let settled = stat.modified.and_then(|modified| read_at.duration_since(modified).ok());
        let known = KnownFile { stat, file, external_data };
        let mut all = lock(&self.known);
        if settled.is_some_and(|age| age >= SETTLED) {
            all.insert(path.to_owned(), known.clone());
        } else {
            all.remove(path);
        }
        Ok(known)
    }

    fn hold(&self, path: &Path, sha256: &str, content: Vec<u8>) {
        let mut held = lock(&self.held);
        if content.len() <= HELD_FILE_BYTES_MAX && held.bytes + content.len() <= HELD_BYTES_MAX {
            held.bytes += content.len();
            let replaced = held.contents.insert(path.to_owned(), (sha256.to_owned(), content.into()));
            held.bytes -= replaced.map_or(0, |(_, content)| content.len());
        }
    }
}

fn changed() -> Error {
    Error::unavailable("it changed while it was being loaded").transient()
}

fn needed(model: &[u8]) -> Result<Vec<NeededFile>, String> {
    match external_data::scan(model) {
        Ok(found) => {
            let files = found.files.into_iter();
            Ok(files
                .map(|(name, data)| NeededFile { name, bytes_min: data.bytes_min, tensor: data.tensor })
                .collect())
        }
        // ONNX Runtime reports what is wrong with the file.
        Err(Fault::Unreadable) => Ok(Vec::new()),
        Err(fault) => Err(fault.to_string()),
    }
}

/// Returns SHA-256 in hexadecimal.
pub fn hex_digest(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}
