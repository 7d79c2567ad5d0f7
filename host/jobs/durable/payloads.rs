//! Inputs and results: small ones are in the database, large ones in a file each.
//!
//! A file is written before the transaction that refers to it, and removed after the one that drops
//! the reference. A crash in between leaves a file that nothing refers to; it is removed when the
//! store is opened.

use super::disk::Disk;
use super::fault::Fault;
use crate::error::{Error, Result};
use crate::jobs::payload;
use crate::lock::LockUnpoisoned;
use crate::predict::Payload;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

/// Payloads up to this size are encoded by the thread that needs them; larger ones by a thread that
/// may wait for the disk.
const SMALL_BYTES_MAX: usize = 4 << 10;

/// Larger payloads have a file of their own. In the database, each page of them would be written
/// again and again.
const INLINE_BYTES_MAX: usize = 64 << 10;

const INLINE: u8 = 0;
const FILE: u8 = 1;

const INPUT_SUFFIX: &str = ".input";
const RESULT_SUFFIX: &str = ".result";
const STEP_SUFFIX: &str = ".step";

/// A payload as the database has it.
#[derive(Clone, Debug)]
pub(in crate::jobs) struct Prepared {
    /// The first byte says whether a payload or a reference to a file follows.
    stored: Bytes,
    /// The bytes that count for the limits of the store.
    pub bytes: usize,
}

/// The name of a file, with what it must contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileReference {
    pub name: String,
    digest: [u8; 32],
}

/// The names of files that are written, and that no transaction refers to yet. A store that is
/// opened meanwhile must not take them for unused.
#[derive(Default)]
pub(super) struct InProgress(Mutex<HashSet<String>>);

impl InProgress {
    pub fn contains(&self, name: &str) -> bool {
        self.0.lock_unpoisoned().contains(name)
    }
}

/// The files of payloads that are not committed yet. Removed when dropped.
pub(super) struct Uncommitted {
    disk: Arc<dyn Disk>,
    in_progress: Arc<InProgress>,
    names: Vec<String>,
    is_kept: bool,
}

impl Uncommitted {
    pub fn new(disk: &Arc<dyn Disk>, in_progress: &Arc<InProgress>) -> Self {
        let (disk, in_progress) = (Arc::clone(disk), Arc::clone(in_progress));
        Uncommitted { disk, in_progress, names: Vec::new(), is_kept: false }
    }

    /// Leaves the files: a transaction refers to them, or may do so. Files that nothing refers to
    /// are removed when the store is opened.
    pub fn keep(mut self) {
        self.is_kept = true;
    }

    /// Prepares the input of a job. Writes a file if it is large.
    pub fn input(&mut self, id: &str, payload: &Payload) -> Result<Prepared, Fault> {
        self.prepare(file_name(id, INPUT_SUFFIX), payload)
    }

    /// Prepares a result. Writes a file if it is large.
    pub fn result(&mut self, id: &str, payload: &Payload) -> Result<Prepared, Fault> {
        self.prepare(file_name(id, RESULT_SUFFIX), payload)
    }

    /// Prepares the outputs of a step. Writes a file if they are large.
    pub fn step(&mut self, id: &str, payload: &Payload) -> Result<Prepared, Fault> {
        self.prepare(file_name(id, STEP_SUFFIX), payload)
    }

    fn prepare(&mut self, name: String, payload: &Payload) -> Result<Prepared, Fault> {
        let bytes = payload::stored_bytes(payload);
        let inline = payload::encode(payload, &[INLINE]);
        if inline.len() <= INLINE_BYTES_MAX {
            return Ok(Prepared { stored: inline, bytes });
        }
        let data = inline.slice(1..);
        self.in_progress.0.lock_unpoisoned().insert(name.clone());
        self.names.push(name.clone());
        let written = self.disk.write(&name, &data);
        written
            .map_err(|error| Fault::io(&format!("cannot write {name} in {}", self.disk.shown()), &error))?;
        let mut stored = vec![FILE];
        stored.extend_from_slice(&Sha256::digest(&data));
        stored.extend_from_slice(name.as_bytes());
        Ok(Prepared { stored: stored.into(), bytes })
    }
}

impl Drop for Uncommitted {
    fn drop(&mut self) {
        for name in &self.names {
            if !self.is_kept {
                let _ = self.disk.remove(name);
            }
            self.in_progress.0.lock_unpoisoned().remove(name);
        }
    }
}

impl Prepared {
    /// Prepares a payload without a file. `None` if it is not small.
    pub fn small(payload: &Payload) -> Option<Self> {
        let bytes = payload::stored_bytes(payload);
        (bytes <= SMALL_BYTES_MAX).then(|| Prepared { stored: payload::encode(payload, &[INLINE]), bytes })
    }

    /// Returns a stored payload, unless it is in a file.
    pub fn inline(stored: &[u8]) -> Option<Self> {
        let is_inline = stored.first() == Some(&INLINE);
        is_inline.then(|| Prepared { stored: Bytes::copy_from_slice(stored), bytes: stored.len() })
    }

    /// Decodes a payload that is not in a file. `None` if it is damaged.
    pub fn decoded(&self) -> Option<Payload> {
        payload::decode(self.stored.slice(1..)).ok()
    }

    pub fn stored(&self) -> &[u8] {
        &self.stored
    }

    pub fn shared(&self) -> Bytes {
        self.stored.clone()
    }

    /// Returns whether the payload is not in a file.
    pub fn is_inline(&self) -> bool {
        self.stored.first() == Some(&INLINE)
    }

    /// Returns the file that a stored payload is in.
    pub fn file_of(stored: &[u8]) -> Option<FileReference> {
        let (&FILE, rest) = stored.split_first()? else { return None };
        let (digest, name) = rest.split_first_chunk::<32>()?;
        Some(FileReference { name: String::from_utf8(name.to_vec()).ok()?, digest: *digest })
    }
}

/// Reads a payload back.
///
/// # Errors
/// `failed` if it is damaged, which concerns only its job.
pub(super) fn load(disk: &dyn Disk, stored: Vec<u8>) -> Result<Payload> {
    match stored.first() {
        Some(&INLINE) => payload::decode(Bytes::from(stored).slice(1..)),
        Some(&FILE) => {
            let file = Prepared::file_of(&stored).ok_or_else(damaged)?;
            let data = disk.read(&file.name).map_err(|error| {
                Error::failed(format!("cannot read {} in {}: {error}", file.name, disk.shown()))
            })?;
            if Sha256::digest(&data)[..] != file.digest {
                return Err(Error::failed(format!(
                    "{} in {} is damaged: it is not what the host wrote",
                    file.name,
                    disk.shown()
                )));
            }
            payload::decode(data.into())
        }
        _ => Err(damaged()),
    }
}

fn damaged() -> Error {
    Error::failed("the stored data are damaged")
}

/// What a payload is to its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Input,
    Result,
    /// The outputs of steps.
    Steps,
}

/// Returns a new name for each try: what an earlier one has written may be in use.
fn file_name(id: &str, suffix: &str) -> String {
    format!("{id}.{:016x}{suffix}", fastrand::u64(..))
}

/// Returns the id of the job that a file belongs to.
pub(super) fn owner_of(name: &str) -> Option<(&str, Slot)> {
    let (id, rest) = name.split_once('.')?;
    let slot = if rest.ends_with(INPUT_SUFFIX) {
        Slot::Input
    } else if rest.ends_with(RESULT_SUFFIX) {
        Slot::Result
    } else if rest.ends_with(STEP_SUFFIX) {
        Slot::Steps
    } else {
        return None;
    };
    Some((id, slot))
}
