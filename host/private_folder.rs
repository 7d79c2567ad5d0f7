//! Folders that the host makes for itself inside folders that users name, and that only its user can
//! write to.
//!
//! A [`PrivateFolder`] is kept. What the host reads back from it decides what it runs: compiled code, a
//! manifest. So a folder that somebody else owns or can write to, or that is a symbolic link, is refused.
//! All access goes through the open folder: a path that is swapped afterwards changes nothing.
//!
//! A [`TemporaryFolder`] is removed with its value.

mod temporary;

pub use temporary::TemporaryFolder;

use rustix::fs::{AtFlags, Mode, OFlags};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// An open folder that nobody else can write to. It stays when its value goes.
#[derive(Debug)]
pub struct PrivateFolder {
    folder: File,
    path: PathBuf,
}

impl PrivateFolder {
    /// Opens `path`, whose last name is the host's own. An error says what is wrong with it and how to mend
    /// that.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = open_folder(path)?;
        check(path, &folder.metadata()?, Others::Read)?;
        Ok(PrivateFolder { folder, path: path.to_owned() })
    }

    /// Opens `path`, and makes it and what is missing above it first.
    pub fn make(path: &Path) -> Result<Self> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => PrivateFolder::open(path),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file to read. Links are not followed, and nothing else is waited for.
    pub fn read(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.folder, name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        match metadata.is_file() {
            true => check(&self.path.join(name), &metadata, Others::Read).map(|()| file),
            false => Err(Error::other("it is not a regular file")),
        }
    }

    /// Makes a file that is not there yet, to read and write.
    pub fn create(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        Ok(rustix::fs::renameat(&self.folder, from, &self.folder, to)?)
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        Ok(rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?)
    }

    /// Makes the renames and new files of this folder last through a power cut.
    pub fn sync(&self) -> Result<()> {
        self.folder.sync_all()
    }

    /// The names in it.
    pub fn names(&self) -> Result<Vec<OsString>> {
        let entries = rustix::fs::Dir::read_from(&self.folder)?;
        let name = |entry: rustix::io::Result<rustix::fs::DirEntry>| {
            use std::os::unix::ffi::OsStrExt;
            Ok(std::ffi::OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned())
        };
        entries.map(name).filter(|name| !matches!(name, Ok(name) if name == "." || name == "..")).collect()
    }

    /// What lies there under this name. Links are not followed.
    pub fn stat(&self, name: &str) -> Option<Metadata> {
        std::fs::symlink_metadata(self.path.join(name)).ok()
    }

    /// The file that lock holders share. Locks end with their file.
    pub fn lock_file(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR)?))
    }
}

/// Opens a folder itself, never what a link points to.
fn open_folder(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
        // With NOFOLLOW and DIRECTORY a symbolic link is "not a directory".
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => refused(path, "it is a symbolic link; remove it"),
            _ => Error::from(error),
        }
    })?;
    Ok(File::from(folder))
}

/// What other users may do with what is the host's own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Read it. Root may own it, since root can write everywhere.
    Read,
    /// Nothing: the host's user owns it.
    Nothing,
}

/// Refuses what another user owns or has more access to than this.
fn check(path: &Path, found: &Metadata, others: Others) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if owner != user && (owner != 0 || others == Others::Nothing) {
        return Err(refused(path, format!("user {owner} owns it, but the host runs as user {user}")));
    }
    let (bits, access, chmod) = match others {
        Others::Read => (0o022, "can write to it", "go-w"),
        Others::Nothing => (0o077, "have access to it", "go-rwx"),
    };
    if mode & bits != 0 {
        return Err(refused(path, format!("others {access} (mode {mode:04o}); run chmod {chmod} on it")));
    }
    Ok(())
}

fn refused(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("{} is not used: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_and_folders_that_others_can_write_to_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("own"), dir.path().join("link"));
        let why = |path: &Path| PrivateFolder::open(path).unwrap_err().to_string();
        PrivateFolder::make(&path).unwrap();
        symlink(&path, &link).unwrap();
        assert!(why(&link).contains("it is a symbolic link"), "{}", why(&link));
        let set_mode = |mode| std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        set_mode(0o770);
        assert!(why(&path).contains("mode 0770); run chmod go-w"), "{}", why(&path));
        set_mode(0o755);
        PrivateFolder::open(&path).unwrap();
        check(&path, &path.metadata().unwrap(), Others::Nothing).unwrap_err();
    }
}
