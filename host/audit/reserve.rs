//! Space that was set aside on disk, for lines that must be written although the disk is full.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Room for some hundred lines.
const BYTES: usize = 64 << 10;

/// A file of a fixed size. Lines fill it from its beginning; the rest is zeros.
pub(super) struct Reserve {
    file: File,
    used: usize,
}

impl Reserve {
    /// Opens the file with its lines from before, or makes it.
    ///
    /// # Errors
    /// `WouldBlock` if another process has it open.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        let mut content = Vec::with_capacity(BYTES);
        (&mut file).take(BYTES as u64).read_to_end(&mut content)?;
        let used = content.iter().position(|byte| *byte == 0).unwrap_or(content.len());
        if content.len() < BYTES {
            // Written, because space that was only promised may be compressed or shared away.
            file.seek(SeekFrom::Start(content.len() as u64))?;
            file.write_all(&vec![0; BYTES - content.len()])?;
            file.sync_all()?;
        }
        let mut reserve = Reserve { file, used };
        if used > 0 && content[used - 1] != b'\n' && used < BYTES {
            // A line that was cut off by the end of an earlier process.
            reserve.write(b"\n")?;
        }
        Ok(reserve)
    }

    /// Writes a line over zeros, which takes no more space on disk.
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if line.len() > BYTES - self.used {
            return Err(io::Error::other("the reserve is full as well"));
        }
        self.file.seek(SeekFrom::Start(self.used as u64))?;
        let written = self.file.write_all(line).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // What was written of it must not be read as content.
            let _ = self.file.seek(SeekFrom::Start(self.used as u64));
            let _ = self.file.write_all(&vec![0; line.len()]);
            return written;
        }
        self.used += line.len();
        Ok(())
    }

    /// Whether it has lines.
    pub fn is_used(&self) -> bool {
        self.used > 0
    }

    /// Returns the lines that it has.
    pub fn lines(&mut self) -> io::Result<Vec<u8>> {
        let mut lines = vec![0; self.used];
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_exact(&mut lines)?;
        Ok(lines)
    }

    /// Makes all of it free again.
    pub fn clear(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&vec![0; self.used])?;
        self.file.sync_data()?;
        self.used = 0;
        Ok(())
    }
}
