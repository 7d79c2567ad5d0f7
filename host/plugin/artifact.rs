//! Native code on its way from a compiler process or the cache into the engine.
//!
//! Small code is read into memory. Large code (35 MB for a Python plugin) is written to an unnamed
//! file, from which the engine maps what runs: pages that are not used take no memory. No other
//! process can open such a file, so none can change or truncate what is mapped. If no such file can
//! be created or written, the code stays in memory.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{Read, Result, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use wasmtime::component::Component;

/// Below this size, a copy in memory costs less than a file.
const MAPPED_MIN: u64 = 4 << 20;

/// Local file systems, by their numbers in `statfs(2)`: ext4, XFS, Btrfs, F2FS, ZFS, bcachefs,
/// overlayfs, tmpfs. Code mapped from any other file system may become unreadable while it runs.
const LOCAL: [u64; 8] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e, 0x794c_7630, 0x0102_1994];

/// The complete native code of one component.
pub(super) enum Code {
    Memory(Vec<u8>),
    File(File),
}

impl Code {
    /// Loads the component.
    ///
    /// # Safety
    ///
    /// The code must have been made by a compiler process of this host.
    pub unsafe fn load(&self, engine: &wasmtime::Engine) -> wasmtime::Result<Component> {
        match self {
            // SAFETY: guaranteed by the caller.
            Code::Memory(bytes) => unsafe { Component::deserialize(engine, bytes) },
            Code::File(file) => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                // SAFETY: guaranteed by the caller; the file has no name, and only this process has
                // it open.
                match unsafe { Component::deserialize_file(engine, path) } {
                    Ok(component) => Ok(component),
                    // There is no /proc, or the file system does not allow execution. If the code
                    // itself is incompatible, loading it from memory fails as well.
                    Err(_) => {
                        let mut bytes = Vec::new();
                        self.reader()?.read_to_end(&mut bytes)?;
                        // SAFETY: guaranteed by the caller.
                        unsafe { Component::deserialize(engine, bytes) }
                    }
                }
            }
        }
    }

    pub fn len(&self) -> Result<u64> {
        match self {
            Code::Memory(bytes) => Ok(bytes.len() as u64),
            Code::File(file) => file.metadata().map(|metadata| metadata.len()),
        }
    }

    /// Returns a reader that starts at the beginning of the code.
    pub fn reader(&self) -> Result<Box<dyn Read + '_>> {
        Ok(match self {
            Code::Memory(bytes) => Box::new(&bytes[..]),
            Code::File(file) => {
                let mut file = file;
                file.rewind()?;
                Box::new(file)
            }
        })
    }
}

/// Receives native code piece by piece.
pub(super) struct CodeWriter {
    /// The folders in which to try to create a file.
    folders: Vec<PathBuf>,
    code: Code,
}

impl CodeWriter {
    pub fn new(cache: Option<&Path>) -> Self {
        let folders = cache.map(Path::to_owned).into_iter().chain([std::env::temp_dir()]).collect();
        CodeWriter { folders, code: Code::Memory(Vec::new()) }
    }

    /// Announces how many bytes will be written.
    pub fn expect(&mut self, bytes: u64) {
        let file = match bytes < MAPPED_MIN {
            true => None,
            false => self.folders.iter().find_map(|folder| unnamed_file(folder)),
        };
        self.code = file.map_or_else(|| Code::Memory(Vec::with_capacity(bytes as usize)), Code::File);
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.code {
            Code::Memory(all) => all.extend_from_slice(bytes),
            Code::File(file) => {
                let written = file.stream_position()?;
                if file.write_all(bytes).is_err() {
                    // The disk is full.
                    let mut all = Vec::new();
                    file.rewind()?;
                    file.take(written).read_to_end(&mut all)?;
                    all.extend_from_slice(bytes);
                    self.code = Code::Memory(all);
                }
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Code {
        self.code
    }
}

/// Returns `None` if the file system is not local or does not support unnamed files.
fn unnamed_file(folder: &Path) -> Option<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR).ok()?;
    let kind = rustix::fs::fstatfs(&file).ok()?.f_type as u64;
    LOCAL.contains(&kind).then(|| File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(code: &Code) -> Vec<u8> {
        let mut bytes = Vec::new();
        code.reader().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_disk_that_is_full_is_survived_in_the_middle() {
        let mut writer = CodeWriter::new(None);
        writer.expect(MAPPED_MIN);
        // A file that is open only for reading represents a disk that is full from here on.
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"abc").unwrap();
        let mut file = File::open(dir.path().join("f")).unwrap();
        file.seek(std::io::SeekFrom::End(0)).unwrap();
        writer.code = Code::File(file);
        writer.write(b"def").unwrap();
        writer.write(b"ghi").unwrap();
        let code = writer.finish();
        assert!(matches!(code, Code::Memory(_)));
        assert_eq!(read(&code), b"abcdefghi");
    }
}
