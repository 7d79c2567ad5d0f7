//! Files that a policy is made of, known by the digest of their content.
//!
//! A digest is computed once for each state of a file. What is loaded later is read again and must still
//! have that digest: a policy never runs anything other than what it says.

use crate::error::{Error, Result};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// Every path that was asked for, also those that do not exist, as it was before it was read.
pub type Signature = BTreeMap<PathBuf, Option<Stat>>;

/// A file at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct File {
    pub path: PathBuf,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    pub bytes: u64,
}

/// What the file system says of a file without reading it. A change of content changes this, unless it
/// happens within the resolution of the clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stat {
    modified: Option<SystemTime>,
    changed: (i64, i64),
    length: u64,
    inode: u64,
}

impl Stat {
    /// None if there is no such file. Follows links.
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

/// A digest is trusted only if the file was older than this when it was read: two writes closer together
/// can have the same time.
const SETTLED: Duration = Duration::from_millis(50);

/// Digests of files, remembered.
#[derive(Default)]
pub struct Files {
    known: Mutex<HashMap<PathBuf, Known>>,
    asked: Mutex<Signature>,
    /// Files are looked for below this folder instead of below `/`: a last-good copy.
    root: Option<PathBuf>,
}

#[derive(Clone)]
struct Known {
    stat: Stat,
    file: File,
    external_data: Option<Vec<PathBuf>>,
}

impl Files {
    /// Files that are found in a copy: `/a/b` is `<root>/a/b`.
    pub fn below(root: PathBuf) -> Self {
        Files { root: Some(root), ..Files::default() }
    }

    /// Where a file that a plan names really is.
    pub fn location(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    pub fn file(&self, path: &Path) -> std::io::Result<File> {
        Ok(self.known(path, false)?.file)
    }

    /// An ONNX file with the files beside it that hold its external data.
    pub fn model(&self, path: &Path) -> std::io::Result<(File, Vec<File>)> {
        let known = self.known(path, true)?;
        let beside = path.parent().unwrap_or(Path::new("."));
        let external = known.external_data.unwrap_or_default();
        let external = external.iter().map(|name| {
            let path = beside.join(name);
            self.file(&path).map_err(|error| {
                // The caller names the model's file; what is missing is another.
                let message = format!("its external data {}: {error}", path.display());
                std::io::Error::new(error.kind(), message)
            })
        });
        Ok((known.file, external.collect::<Result<_, _>>()?))
    }

    /// Reads a file that a plan names; fails if its content is no longer the same.
    pub fn read(&self, file: &File) -> Result<Bytes> {
        let path = file.path.display();
        let content = std::fs::read(self.location(&file.path))
            .map_err(|error| Error::unavailable(format!("cannot read {path}: {error}")))?;
        if hex_digest(&content) != file.sha256 {
            return Err(Error::unavailable(format!("{path} changed while it was being loaded")));
        }
        Ok(content.into())
    }

    /// Every path that was asked for since the last call.
    pub fn take_asked(&self) -> Signature {
        std::mem::take(&mut *self.asked.lock().expect("invariant: no panic under the lock"))
    }

    fn known(&self, path: &Path, is_model: bool) -> std::io::Result<Known> {
        let location = &self.location(path);
        let stat = Stat::of(location);
        self.asked.lock().expect("invariant: no panic under the lock").insert(path.to_owned(), stat.clone());
        if std::fs::metadata(location)?.is_dir() {
            return Err(std::io::Error::other("it is a folder"));
        }
        let remembered = self.known.lock().expect("invariant: no panic under the lock").get(path).cloned();
        if let (Some(known), Some(stat)) = (remembered, &stat)
            && known.stat == *stat
            && (!is_model || known.external_data.is_some())
        {
            return Ok(known);
        }
        let read_at = SystemTime::now();
        let content = std::fs::read(location)?;
        let file = File { path: path.to_owned(), sha256: hex_digest(&content), bytes: content.len() as u64 };
        let external_data = is_model.then(|| super::external_data::locations(&content));
        let Some(stat) = stat else {
            return Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        };
        let settled = stat.modified.and_then(|modified| read_at.duration_since(modified).ok());
        let known = Known { stat, file, external_data };
        let mut all = self.known.lock().expect("invariant: no panic under the lock");
        if settled.is_some_and(|age| age >= SETTLED) {
            all.insert(path.to_owned(), known.clone());
        } else {
            all.remove(path);
        }
        Ok(known)
    }
}

/// SHA-256 in hexadecimal.
pub fn hex_digest(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}
