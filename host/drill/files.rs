//! Reads and replaces the files of a drill, and generates files that differ only in their digest.

use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, Limit, Progress};
use std::fs;
use std::path::Path;

pub fn read(file: &Path) -> Result<Vec<u8>> {
    // The file was within its limit when it was copied.
    let limit = Limit::bytes(FileKind::Asset, u64::MAX);
    input_file::read(file, limit, &Progress::default())
        .map_err(|error| error.context(format!("cannot read {}", file.display())))
}

pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, content))
        .map_err(|error| Error::unavailable(format!("cannot write {}: {error}", path.display())))
}

/// Writes a temporary file and renames it, so that a reader never sees half of it.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_extension("drill-new");
    write(&beside, content)?;
    fs::rename(&beside, path)
        .map_err(|error| Error::unavailable(format!("cannot replace {}: {error}", path.display())))
}

/// Returns the same component with another digest: appends a custom section, which contains no
/// code.
pub fn other_component(component: &[u8]) -> Vec<u8> {
    let (name, content) = (b"drill", fastrand::u64(..).to_le_bytes());
    let length = (1 + name.len() + content.len()) as u8;
    [component, &[0, length, name.len() as u8], name, &content].concat()
}

/// Returns the same ONNX model with another digest: appends an entry to `metadata_props`, which has
/// no effect on results. Protobuf allows fields in any order, and repeated fields anywhere.
pub fn other_model(model: &[u8]) -> Vec<u8> {
    let (key, value) = (b"drill", format!("{:016x}", fastrand::u64(..)));
    let entry = [&[0x0a, key.len() as u8], &key[..], &[0x12, value.len() as u8], value.as_bytes()].concat();
    [model, &[14 << 3 | 2, entry.len() as u8], &entry].concat()
}
