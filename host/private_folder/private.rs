//! A folder that is kept, and that only the host's user can write to.

use super::access::{Others, check, open_folder};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// An open folder that nobody else can write to. It stays when its value is dropped.
#[derive(Debug)]
pub struct PrivateFolder {
    folder: File,
    path: PathBuf,
}

impl PrivateFolder {
    /// Opens `path`, whose last component belongs to the host. An error says what is wrong and how
    /// to fix it.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = open_folder(path)?;
        check(path, &folder.metadata()?, Others::Read)?;
        Ok(PrivateFolder { folder, path: path.to_owned() })
    }

    /// Opens `path`, and creates it and missing parent folders first.
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

    /// Opens a regular file to read. Does not follow links, and does not block on other kinds of
    /// files.
    pub fn read(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.folder, name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        match metadata.is_file() {
            true => check(&self.path.join(name), &metadata, Others::Read).map(|()| file),
            false => Err(Error::other("it is not a regular file")),
        }
    }

    /// Creates a new file to read and write. Fails if it exists.
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

    /// Makes the renames and new files of this folder survive a power cut.
    pub fn sync(&self) -> Result<()> {
        self.folder.sync_all()
    }

    /// Returns the names of the entries.
    pub fn names(&self) -> Result<Vec<OsString>> {
        let entries = rustix::fs::Dir::read_from(&self.folder)?;
        let name = |entry: rustix::io::Result<rustix::fs::DirEntry>| {
            use std::os::unix::ffi::OsStrExt;
            Ok(std::ffi::OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned())
        };
        entries.map(name).filter(|name| !matches!(name, Ok(name) if name == "." || name == "..")).collect()
    }

    /// Returns the metadata of an entry. Does not follow links.
    pub fn stat(&self, name: &str) -> Option<Metadata> {
        std::fs::symlink_metadata(self.path.join(name)).ok()
    }

    /// Opens the file that lock holders share. A lock ends when its file is closed.
    pub fn lock_file(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR)?))
    }
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
