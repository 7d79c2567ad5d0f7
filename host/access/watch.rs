//! The thread that reads the files of access rules again.

use super::access::Access;
use super::rules_file::RulesFiles;
use crate::error::{Error, Result};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often the files are read. Contents count when they were read twice, so that a key that is
/// taken out of them is refused twice this time later.
const READ_EVERY: Duration = Duration::from_millis(125);

/// How often contents must be read as they are before they are reported as faulty: a program may
/// write a file in pieces.
const FAULTY_READS: u32 = 6;

/// Starts the thread. `live` is the digest of the contents in force. The thread ends with `access`.
pub fn watch(access: &Arc<Access>, live: [u8; 32]) -> Result<()> {
    let access = Arc::downgrade(access);
    let mut watched = Watched { access, live, faulty: None, seen: None };
    let read = move || {
        while watched.read() {
            std::thread::sleep(READ_EVERY);
        }
    };
    let thread = std::thread::Builder::new().name("access".into()).spawn(read);
    thread.map(drop).map_err(|error| {
        Error::unavailable(format!("cannot start the thread that reads access rules again: {error}"))
    })
}

struct Watched {
    access: Weak<Access>,
    live: [u8; 32],
    /// Contents that cannot be used, and how often they were read. Zeros stand for files that
    /// cannot be read.
    faulty: Option<([u8; 32], u32)>,
    /// Of the contents at the last read.
    seen: Option<[u8; 32]>,
}

impl Watched {
    /// Reads the files once. Returns false when the host has ended.
    fn read(&mut self) -> bool {
        let Some(access) = self.access.upgrade() else { return false };
        let files = RulesFiles::read(&access.path);
        let digest = files.as_ref().map_or([0; 32], RulesFiles::digest);
        if digest == self.live {
            if self.faulty.take().is_some() && access.is_open() {
                access.metrics.access.stale.set(0);
            }
            return true;
        }
        if matches!(self.faulty, Some((faulty, reads)) if faulty == digest && reads >= FAULTY_READS) {
            return true;
        }
        // A file that is being written can be valid in every part of it, and mean something else.
        if self.seen.replace(digest) != Some(digest) {
            return true;
        }
        match files.and_then(|files| files.load()) {
            Ok(loaded) => {
                (self.live, self.faulty) = (digest, None);
                access.apply(loaded);
            }
            Err(error) => {
                let reads = match self.faulty {
                    Some((faulty, reads)) if faulty == digest => reads + 1,
                    _ => 1,
                };
                self.faulty = Some((digest, reads));
                if reads == FAULTY_READS {
                    access.metrics.access.stale.set(1);
                    if access.is_open() {
                        tracing::warn!(%error, "access rules rejected; the previous rules stay in force");
                    } else {
                        tracing::error!(%error, "access rules rejected; all requests are refused");
                    }
                }
            }
        }
        true
    }
}
