//! A file that exists under its name only once it is complete.

use crate::error::{Error, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Is written under another name in the same folder, which is removed if the file does not become
/// complete.
pub struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    replaces: bool,
}

impl NewFile {
    /// Fails if the path exists, unless it is a file and `replaces` is set.
    pub fn create(path: &Path, replaces: bool) -> Result<Self> {
        check(path, replaces)?;
        let folder = folder_of(path);
        let temporary = folder.join(format!(".hostler-export-{:016x}.partial", fastrand::u64(..)));
        // Results of jobs are for nobody but the user.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let file = file.map_err(|error| {
            Error::unavailable(format!(
                "cannot create a file in {} for {}: {error}",
                folder.display(),
                path.display()
            ))
        })?;
        Ok(NewFile { path: path.to_owned(), temporary, file: BufWriter::new(file), replaces })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.failed(&error))
    }

    /// Gives the file its name. It is on the disk then.
    pub fn publish(mut self) -> Result<()> {
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.map_err(|error| self.failed(&error))?;
        self.rename()?;
        // The new name is on the disk once its folder is. There are file systems that cannot say.
        if let Ok(folder) = File::open(folder_of(&self.path)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    fn rename(&self) -> Result<()> {
        if !self.replaces {
            match renameat_with(CWD, &self.temporary, CWD, &self.path, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => return Err(exists(&self.path)),
                // The file system cannot do this in one step.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(self.failed(&error.into())),
            }
        }
        check(&self.path, self.replaces)?;
        std::fs::rename(&self.temporary, &self.path).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        let path = self.path.display();
        let hint = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "; make room, or name a file on another disk"
            }
            _ => "",
        };
        Error::unavailable(format!("cannot write {path}: {error}; nothing of it was kept{hint}"))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // A file that was published does not have this name any more.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// Checks that a file may be written at this path.
fn check(path: &Path, replaces: bool) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::unavailable(format!("cannot look at {}: {error}", path.display()))),
        // A device or a link must not become a file.
        Ok(found) if replaces && !found.is_file() => Err(Error::invalid(format!(
            "{} is not a regular file, so it is not replaced; name another file",
            path.display()
        ))),
        Ok(_) if replaces => Ok(()),
        Ok(_) => Err(exists(path)),
    }
}

fn exists(path: &Path) -> Error {
    Error::invalid(format!(
        "{} exists; nothing was written: name another file, or replace it with --force",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_once_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let names = || -> Vec<String> {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let path = folder.path().join("jobs.jsonl");
        let mut file = NewFile::create(&path, false).unwrap();
        file.write(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(names(), [""; 0], "what is not complete leaves nothing");
        let mut file = NewFile::create(&path, false).unwrap();
        file.write(b"whole").unwrap();
        file.publish().unwrap();
        assert_eq!(
            (names(), std::fs::read(&path).unwrap()),
            (vec!["jobs.jsonl".to_owned()], b"whole".to_vec())
        );
        let error = NewFile::create(&path, false).err().unwrap();
        assert!(error.message().contains("--force"), "{error}");
    }

    #[test]
    fn what_appears_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.jsonl");
        let file = NewFile::create(&path, false).unwrap();
        std::fs::write(&path, "of somebody else").unwrap();
        assert!(file.publish().unwrap_err().message().contains("exists; nothing was written"));
        assert_eq!(std::fs::read(&path).unwrap(), b"of somebody else");
        NewFile::create(&path, true).unwrap().publish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [Path::new("/dev/null"), folder.path(), &link] {
            let error = NewFile::create(path, true).err().unwrap();
            assert!(error.message().contains("not a regular file"), "{error}");
        }
        let error = NewFile::create(&folder.path().join("none/file"), false).err().unwrap();
        assert!(error.message().contains("none/file"), "{error}");
    }
}
