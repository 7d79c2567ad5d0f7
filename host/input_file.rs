//! Reads files that users name: only regular files, up to a size limit, and only while the result
//! is wanted.
//!
//! A path may lead to a FIFO without a writer, to an endless device, or to a file that grows while
//! it is read. All checks apply to the open descriptor, not the path: `open` refuses everything but
//! regular files without blocking, and every read stops at the limit of the file's kind. A file
//! system that stalls inside a system call cannot be interrupted; `Progress` lets another thread
//! detect that.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use std::fmt;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes of one read.
const CHUNK_BYTES: usize = 256 << 10;

/// What a file is for; decides its size limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    Manifest,
    Model,
    ExternalData,
    Plugin,
    Asset,
    Check,
    Labels,
    /// Certificates and keys.
    Tls,
    /// A secret in a file of its own.
    Secret,
    /// Access rules, and the keys that they refer to.
    Access,
    /// A request for `hostler predict`.
    Request,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Manifest => "a manifest",
            FileKind::Model => "an ONNX model",
            FileKind::ExternalData => "external data of a model",
            FileKind::Plugin => "a plugin",
            FileKind::Asset => "an asset",
            FileKind::Check => "a check",
            FileKind::Labels => "labels",
            FileKind::Tls => "a certificate or key",
            FileKind::Secret => "a secret",
            FileKind::Access => "access rules or keys",
            FileKind::Request => "a request",
        })
    }
}

/// The largest file of each kind, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimits {
    pub model: u64,
    pub external_data: u64,
    pub plugin: u64,
    pub asset: u64,
    pub check: u64,
    pub labels: u64,
}

impl Default for FileLimits {
    fn default() -> Self {
        FileLimits {
            // An ONNX file is a protobuf message, which cannot be larger than 2 GiB.
            model: 2047 << 20,
            external_data: 8 << 30,
            // Ten times a Python plugin.
            plugin: 256 << 20,
            asset: 256 << 20,
            check: 64 << 20,
            labels: 16 << 20,
        }
    }
}

/// The size limit of one file, and the manifest's key that raises it.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    kind: FileKind,
    bytes_max: u64,
    key: Option<&'static str>,
}

impl FileLimits {
    pub fn of(&self, kind: FileKind) -> Limit {
        let (bytes_max, key) = match kind {
            // Ten thousand models take about 1 MB.
            FileKind::Manifest => (16 << 20, None),
            FileKind::Model => (self.model, Some("max_model_mb")),
            FileKind::ExternalData => (self.external_data, Some("max_external_data_mb")),
            FileKind::Plugin => (self.plugin, Some("max_plugin_mb")),
            FileKind::Asset => (self.asset, Some("max_asset_mb")),
            FileKind::Check => (self.check, Some("max_check_mb")),
            FileKind::Labels => (self.labels, Some("max_labels_mb")),
            FileKind::Tls => (1 << 20, None),
            FileKind::Secret => (4 << 10, None),
            // Ten thousand keys take about 1 MB.
            FileKind::Access => (16 << 20, None),
            FileKind::Request => (256 << 20, None),
        };
        Limit { kind, bytes_max, key }
    }
}

impl Limit {
    /// A limit for a file that the manifest does not name.
    pub fn bytes(kind: FileKind, bytes_max: u64) -> Self {
        Limit { kind, bytes_max, key: None }
    }

    /// Fails if a file of this size exceeds the limit.
    pub fn check(self, bytes: u64) -> Result<()> {
        if bytes > self.bytes_max {
            return Err(self.exceeded(&format!("has {bytes} bytes")));
        }
        Ok(())
    }

    fn exceeded(self, what: &str) -> Error {
        let Limit { kind, bytes_max, key } = self;
        let size = match bytes_max >> 20 {
            0 => format!("{bytes_max} bytes"),
            mb => format!("{mb} MiB"),
        };
        let hint = key.map_or_else(String::new, |key| format!("; raise {key} under [files]"));
        Error::too_large(format!("it {what}, over the limit of {size} for {kind}{hint}"))
    }
}

/// Whether the work that reads is still wanted, and which file it is reading.
#[derive(Clone, Default)]
pub struct Progress {
    pub stop: Cancel,
    reading: Arc<Mutex<Option<(PathBuf, Instant)>>>,
}

impl Progress {
    /// Returns the file that is being read, if no bytes have arrived for this long.
    pub fn stalled(&self, limit: Duration) -> Option<PathBuf> {
        let reading = self.reading.lock_unpoisoned();
        reading.as_ref().filter(|(_, since)| since.elapsed() >= limit).map(|(path, _)| path.clone())
    }

    /// Fails if the work was cancelled.
    pub fn check(&self) -> Result<()> {
        self.stop.check()
    }

    /// Waits for `work`, or until it is cancelled.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (stopped, stop) = tokio::sync::oneshot::channel::<()>();
        // The sender is dropped when the flag is set, or with the last clone of the flag.
        let _registered = self.stop.on_cancel(move || drop(stopped));
        tokio::select! {
            done = work => done,
            _ = stop => Err(self.check().err().unwrap_or_else(|| Error::cancelled("it was cancelled"))),
        }
    }

    fn reads(&self, path: &Path) -> Reading<'_> {
        *self.reading.lock_unpoisoned() = Some((path.to_owned(), Instant::now()));
        Reading(self)
    }
}

/// Marks a file as being read, until dropped.
struct Reading<'a>(&'a Progress);

impl Reading<'_> {
    fn advance(&self) -> Result<()> {
        if let Some((_, since)) = &mut *self.0.reading.lock_unpoisoned() {
            *since = Instant::now();
        }
        self.0.check()
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        *self.0.reading.lock_unpoisoned() = None;
    }
}

/// Opens a regular file to read it. Blocks only for the file system.
pub fn open(path: &Path) -> Result<(File, Metadata)> {
    // A device may react to being opened, so the path is checked first. The check after opening
    // decides.
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(&error))?;
    regular(metadata.file_type())?;
    let file = OpenOptions::new()
        .read(true)
        // Without O_NONBLOCK, opening a FIFO waits for a writer. It has no effect on regular files.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| Error::io(&error))?;
    let metadata = file.metadata().map_err(|error| Error::io(&error))?;
    regular(metadata.file_type())?;
    Ok((file, metadata))
}

fn regular(kind: FileType) -> Result<()> {
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        kind if kind.is_socket() => "a socket",
        _ => "of an unknown kind",
    };
    Err(Error::invalid(format!("it is {what}; only regular files are read")))
}

/// Reads a whole file in pieces, which are passed to `take` in order.
pub fn read_in_pieces(
    path: &Path,
    limit: Limit,
    progress: &Progress,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let reading = progress.reads(path);
    let (mut file, before) = open(path)?;
    limit.check(before.len())?;
    let mut chunk = vec![0; CHUNK_BYTES.min(before.len().max(4096) as usize)];
    let mut length = 0_u64;
    loop {
        reading.advance()?;
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => {
                length += read as u64;
                if length > limit.bytes_max {
                    return Err(limit.exceeded("grew while it was read"));
                }
                take(&chunk[..read])?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(&error)),
        }
    }
    Ok(())
}

/// Reads a whole file into memory.
pub fn read(path: &Path, limit: Limit, progress: &Progress) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    read_in_pieces(path, limit, progress, |piece| append(&mut content, piece))?;
    Ok(content)
}

/// Reads a stream, such as standard input, to its end. Blocks until the writer closes it.
pub fn read_stream(stream: impl Read, limit: Limit) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = stream.take(limit.bytes_max.saturating_add(1)).read_to_end(&mut content);
    read.map_err(|error| Error::io(&error))?;
    limit.check(content.len() as u64)?;
    Ok(content)
}

/// Appends bytes. Too little memory is an error, and does not abort the process.
pub fn append(content: &mut Vec<u8>, piece: &[u8]) -> Result<()> {
    content.try_reserve(piece.len()).map_err(|error| Error::unavailable(error.to_string()).transient())?;
    content.extend_from_slice(piece);
    Ok(())
}
