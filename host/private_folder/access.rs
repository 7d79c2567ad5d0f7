//! Checks who may read and write a folder.

use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Opens a folder, but not the target of a link.
pub(super) fn open_folder(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
        // With NOFOLLOW and DIRECTORY, a symbolic link fails as "not a directory".
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => refused(path, "it is a symbolic link; remove it"),
            _ => Error::from(error),
        }
    })?;
    Ok(File::from(folder))
}

/// What other users may do with the host's files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Others may read. Root may be the owner, since root can write anywhere.
    Read,
    /// Others have no access, and the host's user is the owner.
    Nothing,
}

/// Refuses a file that another user owns, or that others have more access to.
pub(super) fn check(path: &Path, found: &Metadata, others: Others) -> Result<()> {
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
