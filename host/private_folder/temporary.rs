//! Folders for the time of a load: with mode 0700, locked, and removed when dropped.
//!
//! The lock distinguishes a folder in use from one that a killed host left behind. The latter are
//! removed when the next host creates a folder in the same place.

use super::access::{Others, check, open_folder};
use crate::lock::LockUnpoisoned;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A folder's name is this prefix and sixteen hexadecimal digits.
const PREFIX: &str = "hostler-data-";

/// Places that this process has already swept.
static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A folder with a random name. Access goes through its path, because libraries need one.
#[derive(Debug)]
pub struct TemporaryFolder {
    path: PathBuf,
    /// Open while the folder is in use.
    _lock: File,
}

impl TemporaryFolder {
    /// Creates an empty folder below `place`, in which other users must not be able to rename
    /// entries.
    pub fn create_in(place: &Path) -> Result<Self> {
        if place.is_relative() {
            return Err(Error::other("the path is not absolute"));
        }
        let mode = fs::metadata(place)?.mode();
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(Error::new(ErrorKind::PermissionDenied, "every user can rename what is in it"));
        }
        if SWEPT.lock_unpoisoned().insert(place.to_owned()) {
            sweep(place);
        }
        // Another host that sweeps at this moment may remove a folder before it is locked.
        for _ in 0..16 {
            let path = place.join(format!("{PREFIX}{:016x}", fastrand::u64(..)));
            DirBuilder::new().mode(0o700).create(&path)?;
            let lock = match open_folder(&path) {
                Ok(lock) => lock,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    let _ = fs::remove_dir(&path);
                    return Err(error);
                }
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                // Another process has it.
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                // Without file locks, no abandoned folder is ever removed.
                Ok(()) | Err(_) if is_still(&path, &lock) => {
                    return Ok(TemporaryFolder { path, _lock: lock });
                }
                _ => {}
            }
        }
        Err(Error::other("the new folder was removed by another process"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a file that only the host can access, and missing parent folders.
    pub fn create_file(&self, name: &Path) -> Result<File> {
        let path = self.path.join(name);
        self.create_folders(name.parent().unwrap_or(Path::new("")))?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    pub fn create_folders(&self, name: &Path) -> Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.path.join(name))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "temporary folder not removed");
        }
    }
}

/// Removes the folders that no process uses any more: they have the right name, belong to this user
/// alone, and are not locked.
fn sweep(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if !digits
            .is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            continue;
        }
        let path = entry.path();
        let Ok(folder) = open_folder(&path) else { continue };
        let is_ours = folder.metadata().and_then(|found| check(&path, &found, Others::Nothing)).is_ok();
        let is_unused = is_ours && flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_unused && is_still(&path, &folder) {
            match fs::remove_dir_all(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "abandoned temporary folder removed"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "abandoned temporary folder not removed");
                }
            }
        }
    }
}

/// Returns true if the open folder is the one at `path`.
fn is_still(path: &Path, folder: &File) -> bool {
    let here = fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    here.is_some() && here == folder.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(place: &Path) -> Vec<String> {
        let entries = fs::read_dir(place).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_for_the_host_alone_and_goes_with_its_value() {
        let place = tempfile::tempdir().unwrap();
        let folder = TemporaryFolder::create_in(place.path()).unwrap();
        let path = folder.path().to_owned();
        folder.create_file(Path::new("a/b.bin")).unwrap().write_all(b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!([mode(&path), mode(&path.join("a"))], [0o700, 0o700]);
        assert_eq!(mode(&path.join("a/b.bin")), 0o600);
        drop(folder);
        assert_eq!(names(place.path()), Vec::<String>::new());
    }

    #[test]
    fn only_what_a_dead_host_left_behind_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let used = TemporaryFolder::create_in(place.path()).unwrap();
        let path = |digits: &str| place.path().join(format!("{PREFIX}{digits}"));
        let (left, foreign) = (path("00000000000000aa"), path("00000000000000bb"));
        let private = |path: &Path| DirBuilder::new().mode(0o700).create(path).unwrap();
        private(&left);
        fs::write(left.join("w.bin"), b"x").unwrap();
        DirBuilder::new().mode(0o755).create(&foreign).unwrap();
        private(&path("user"));
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("kept"), b"x").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), path("00000000000000cc")).unwrap();
        sweep(place.path());
        assert!(!left.exists());
        assert!(used.path().is_dir() && foreign.is_dir() && path("user").is_dir());
        assert!(elsewhere.path().join("kept").exists());
    }

    #[test]
    fn a_place_where_others_can_rename_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = TemporaryFolder::create_in(place.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        TemporaryFolder::create_in(place.path()).unwrap();
    }
}
