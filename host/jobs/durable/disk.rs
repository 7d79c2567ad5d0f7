//! The files of a store, as far as the store needs them: a database, and files that are written
//! once. A test can put a disk here that loses what was not synced.

use super::fault::Fault;
use crate::private_folder::PrivateFolder;
use redb::{Builder, Database, DatabaseError};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Names are relative to the folder of the store, and have no folders of their own.
pub trait Disk: Send + Sync + 'static {
    /// Takes the folder for this process; `Unavailable` while another has it.
    fn lock(&self) -> Result<(), Fault>;

    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Opens a database that exists.
    fn open_database(&self, builder: &Builder, name: &str) -> Result<Database, DatabaseError>;

    /// Creates a database that does not exist.
    fn create_database(&self, builder: &Builder, name: &str) -> Result<Database, DatabaseError>;

    /// Replaces `to` by `from`. When this returns, a power cut does not undo it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Creates a file. When this returns, a power cut does not undo it.
    fn write(&self, name: &str, data: &[u8]) -> io::Result<()>;

    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    fn remove(&self, name: &str) -> io::Result<()>;

    fn names(&self) -> io::Result<Vec<String>>;

    fn length(&self, name: &str) -> io::Result<u64>;

    /// Returns how many bytes can still be written.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Moves these files into a new folder of this name.
    fn set_aside(&self, names: &[String], folder: &str) -> io::Result<()>;

    /// Returns what messages call the place.
    fn shown(&self) -> String;
}

/// A folder of the file system.
pub struct FolderDisk {
    path: PathBuf,
    folder: Mutex<Option<Held>>,
}

struct Held {
    folder: PrivateFolder,
    /// Locked for as long as it is open.
    _lock: File,
}

const LOCK: &str = "lock";

impl FolderDisk {
    pub fn new(path: PathBuf) -> Self {
        FolderDisk { path, folder: Mutex::new(None) }
    }

    fn with<T>(&self, run: impl FnOnce(&PrivateFolder) -> io::Result<T>) -> io::Result<T> {
        use crate::lock::LockUnpoisoned;
        let held = self.folder.lock_unpoisoned();
        let held = held.as_ref().ok_or_else(|| io::Error::other("the folder is not open"))?;
        run(&held.folder)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Disk for FolderDisk {
    fn lock(&self) -> Result<(), Fault> {
        use crate::lock::LockUnpoisoned;
        let mut held = self.folder.lock_unpoisoned();
        if held.is_some() {
            return Ok(());
        }
        let folder = PrivateFolder::make(&self.path).map_err(|error| {
            Fault::unavailable(format!("cannot open the folder {}: {error}", self.shown()))
        })?;
        let lock = folder.lock_file(LOCK);
        let mut lock = lock.map_err(|error| {
            Fault::unavailable(format!("cannot create {}: {error}", self.path_of(LOCK).display()))
        })?;
        let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if let Err(error) = rustix::fs::flock(&lock, operation) {
            let mut owner = String::new();
            let _ = (&mut lock).take(20).read_to_string(&mut owner);
            let owner = owner.trim();
            return Err(Fault::unavailable(match error {
                rustix::io::Errno::WOULDBLOCK if owner.is_empty() => {
                    format!("{} is in use by another process", self.shown())
                }
                rustix::io::Errno::WOULDBLOCK => {
                    format!("{} is in use by another process (process id {owner})", self.shown())
                }
                error => format!("cannot lock {}: {error}", self.path_of(LOCK).display()),
            }));
        }
        // Only for messages, so a failure does not matter.
        let _ = lock.set_len(0).and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
        *held = Some(Held { folder, _lock: lock });
        Ok(())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        match std::fs::symlink_metadata(self.path_of(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn open_database(&self, builder: &Builder, name: &str) -> Result<Database, DatabaseError> {
        let metadata = std::fs::symlink_metadata(self.path_of(name))?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file").into());
        }
        builder.open(self.path_of(name))
    }

    fn create_database(&self, builder: &Builder, name: &str) -> Result<Database, DatabaseError> {
        // Created here, because only the host's user may read it.
        self.with(|folder| folder.create(name))?;
        builder.create(self.path_of(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|folder| folder.rename(from, to).and_then(|()| folder.sync()))
    }

    fn write(&self, name: &str, data: &[u8]) -> io::Result<()> {
        let (mut file, folder) = self.with(|folder| Ok((folder.create(name)?, File::open(&self.path)?)))?;
        let written = file.write_all(data).and_then(|()| file.sync_all()).and_then(|()| folder.sync_all());
        if written.is_err() {
            let _ = self.remove(name);
        }
        written
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut file = self.with(|folder| folder.read(name))?;
        let mut data = Vec::new();
        file.read_to_end(&mut data)?;
        Ok(data)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|folder| folder.remove(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = self.with(PrivateFolder::names)?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).filter(|name| name != LOCK).collect())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        // The database is sparse: what counts is what it takes of the disk.
        Ok(std::fs::symlink_metadata(self.path_of(name))?.blocks() * 512)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let free = rustix::fs::statvfs(&self.path)?;
        Ok(free.f_bavail * free.f_frsize)
    }

    fn set_aside(&self, names: &[String], folder: &str) -> io::Result<()> {
        let aside = self.path_of(folder);
        std::fs::create_dir(&aside)?;
        for name in names {
            std::fs::rename(self.path_of(name), aside.join(name))?;
        }
        self.with(PrivateFolder::sync)
    }

    fn shown(&self) -> String {
        shown(&self.path)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
