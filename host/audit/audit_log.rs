//! The file of the audit log.

use super::reserve::Reserve;
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use crate::timestamp;
use serde::Serialize;
use std::fs::Metadata;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

/// What changes, on whose behalf.
#[derive(Clone, Debug, Serialize)]
pub struct Act {
    /// `reload`, `rollback`, `promote`, `load`, `unload`, `purge_jobs` or `reset_jobs`.
    pub act: &'static str,
    /// What it is about: a model, a filter, a generation. Empty if that is plain.
    pub target: String,
    /// Who does it: the name of a caller, or a signal.
    pub by: String,
    /// The address of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// A file to which lines of JSON are appended.
pub struct AuditLog {
    path: PathBuf,
    files: Mutex<Files>,
}

struct Files {
    log: File,
    reserve: Reserve,
}

impl AuditLog {
    /// Opens the file at the end, or makes it, for its owner alone; and sets space aside beside it.
    ///
    /// # Errors
    /// `invalid_input` or `unavailable` if that is not possible.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error: &io::Error, path: &Path| {
            Error::io(error).context(format!("cannot open the audit log {}", path.display()))
        };
        let log = open(path).map_err(|error| failed(&error, path))?;
        let beside = PathBuf::from(format!("{}.reserve", path.display()));
        let reserve = Reserve::open(&beside).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::invalid(format!(
                "cannot open the audit log {}: another host uses it; name another file",
                path.display()
            )),
            _ => failed(&error, &beside),
        })?;
        let mut files = Files { log, reserve };
        files.end_last_line(path).map_err(|error| failed(&error, path))?;
        files.move_reserve();
        Ok(AuditLog { path: path.to_owned(), files: Mutex::new(files) })
    }

    /// Writes a line, and returns once it is on disk. Blocks.
    ///
    /// # Errors
    /// `unavailable` if it cannot be written. Then the act must not happen.
    pub fn record(&self, act: &Act) -> Result<()> {
        let recorded = self.files.lock_unpoisoned().append(&self.path, &line(act));
        recorded.map_err(|error| {
            tracing::error!(act = act.act, path = %self.path.display(), %error, "audit log not written");
            Error::unavailable(format!(
                "cannot record {} in the audit log, so it was not done: {error}; an operator can free space or repair the \
                 disk",
                act.act
            ))
        })
    }

    /// Like `record`, for an act that must be possible on a full disk.
    ///
    /// # Errors
    /// `unavailable` if the space that was set aside is used up as well.
    pub fn record_in_any_case(&self, act: &Act) -> Result<()> {
        let (mut files, line) = (self.files.lock_unpoisoned(), line(act));
        let Err(error) = files.append(&self.path, &line) else { return Ok(()) };
        tracing::error!(act = act.act, path = %self.path.display(), %error, "audit log not written");
        let written = files.reserve.write(&line);
        written.map_err(|error| {
            Error::unavailable(format!(
                "cannot record {} in the audit log, so it was not done: {error}",
                act.act
            ))
        })?;
        tracing::warn!(act = act.act, "audit line written to the reserve");
        Ok(())
    }
}

impl Files {
    /// Appends a line to the file that has this path now: it may have been renamed, to begin a new
    /// one.
    fn append(&mut self, path: &Path, line: &[u8]) -> io::Result<()> {
        self.open_again_if_moved(path)?;
        self.write(line)?;
        self.move_reserve();
        Ok(())
    }

    fn open_again_if_moved(&mut self, path: &Path) -> io::Result<()> {
        let own = self.log.metadata()?;
        let is_same = |there: Metadata| (there.dev(), there.ino()) == (own.dev(), own.ino());
        if !std::fs::metadata(path).is_ok_and(is_same) {
            self.log = open(path)?;
            self.end_last_line(path)?;
        }
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = self.log.metadata()?.len();
        let written = self.log.write_all(lines).and_then(|()| self.log.sync_data());
        if written.is_err() {
            // Half a line must not stand before the next one.
            let _ = self.log.set_len(length);
        }
        written
    }

    /// Ends a line that was cut off by the end of an earlier process.
    fn end_last_line(&mut self, path: &Path) -> io::Result<()> {
        let length = self.log.metadata()?.len();
        let Some(last) = length.checked_sub(1) else { return Ok(()) };
        let mut byte = [0];
        File::open(path)?.read_exact_at(&mut byte, last)?;
        if byte == *b"\n" { Ok(()) } else { self.write(b"\n") }
    }

    /// Moves the lines of the reserve into the log, if it takes them.
    fn move_reserve(&mut self) {
        if !self.reserve.is_used() {
            return;
        }
        let moved =
            self.reserve.lines().and_then(|lines| self.write(&lines)).and_then(|()| self.reserve.clear());
        if let Err(error) = moved {
            tracing::warn!(%error, "audit reserve not moved");
        }
    }
}

/// Opens a file at its end, or makes it, for its owner alone.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file; name one, or a path where none is yet"));
    }
    if let Some(folder) = path.parent() {
        // A new file is on disk once its folder is.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

fn line(act: &Act) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        #[serde(flatten)]
        act: &'a Act,
    }

    let time = timestamp::format(SystemTime::now()).replace(' ', "T");
    let line = Line { time, act };
    let mut line = serde_json::to_vec(&line).expect("invariant: it has string keys");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(name: &'static str) -> Act {
        Act { act: name, target: "t\n".into(), by: "key:ops".into(), address: None, request_id: None }
    }

    /// Puts a device that is always full in the place of the log.
    fn fill(audit: &AuditLog, path: &Path) {
        std::fs::rename(path, path.with_extension("kept")).unwrap();
        std::os::unix::fs::symlink("/dev/full", path).unwrap();
        audit.files.lock_unpoisoned().log = OpenOptions::new().append(true).open("/dev/full").unwrap();
    }

    fn acts(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        let act = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["act"].as_str().unwrap().to_owned()
        };
        text.lines().map(act).collect()
    }

    #[test]
    fn a_rollback_is_recorded_on_a_full_disk_and_moves_into_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = AuditLog::open(&path).unwrap();
        audit.record(&act("reload")).unwrap();
        fill(&audit, &path);
        let error = audit.record(&act("load")).unwrap_err();
        assert!(
            error.message().contains("cannot record load") && error.message().contains("No space left"),
            "{error}"
        );
        audit.record_in_any_case(&act("rollback")).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(path.with_extension("kept"), &path).unwrap();
        assert_eq!(acts(&path), ["reload"]);
        audit.record(&act("promote")).unwrap();
        assert_eq!(acts(&path), ["reload", "promote", "rollback"]);
        assert!(!audit.files.lock_unpoisoned().reserve.is_used());
    }

    #[test]
    fn lines_in_the_reserve_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = AuditLog::open(&path).unwrap();
        fill(&audit, &path);
        audit.record_in_any_case(&act("rollback")).unwrap();
        drop(audit);
        std::fs::remove_file(&path).unwrap();
        AuditLog::open(&path).unwrap();
        assert_eq!(acts(&path), ["rollback"]);
    }

    #[test]
    fn the_reserve_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = AuditLog::open(&path).unwrap();
        fill(&audit, &path);
        let mut count = 0;
        while audit.record_in_any_case(&act("rollback")).is_ok() {
            count += 1;
        }
        assert!(count > 100, "{count}");
    }

    #[test]
    fn a_log_that_was_renamed_begins_anew_and_a_cut_line_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = AuditLog::open(&path).unwrap();
        assert!(AuditLog::open(&path).err().unwrap().message().contains("another host uses it"));
        audit.record(&act("reload")).unwrap();
        std::fs::rename(&path, path.with_extension("1")).unwrap();
        audit.record(&act("load")).unwrap();
        assert_eq!(
            (acts(&path.with_extension("1")), acts(&path)),
            (vec!["reload".to_owned()], vec!["load".to_owned()])
        );
        drop(audit);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"act\":\"cut").unwrap();
        AuditLog::open(&path).unwrap().record(&act("promote")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.ends_with('\n') && text.contains("\n{\"time\""), "{text}");
    }
}
