//! Writes to a descriptor that may be slow or non-blocking.

use std::io;

pub(super) struct WriteFailed {
    /// Bytes written before the error.
    pub written: usize,
    pub error: io::Error,
}

/// Writes all bytes. Waits if the descriptor would block.
pub(super) fn write_all(descriptor: i32, bytes: &[u8]) -> Result<(), WriteFailed> {
    let mut written = 0;
    while written < bytes.len() {
        let rest = &bytes[written..];
        // SAFETY: the pointer and the length are those of a slice.
        let count = unsafe { libc::write(descriptor, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(count) {
            Ok(0) => return Err(WriteFailed { written, error: io::ErrorKind::WriteZero.into() }),
            Ok(count) => written += count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process that shares the open file made it non-blocking.
                error if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLOUT, revents: 0 };
                    // SAFETY: one valid structure.
                    unsafe { libc::poll(&raw mut poll, 1, -1) };
                }
                error => return Err(WriteFailed { written, error }),
            },
        }
    }
    Ok(())
}
