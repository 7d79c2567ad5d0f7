//! Descriptors 1 and 2 of a host that serves.
//!
//! Native libraries, the runtime of a crash and child processes write to descriptors 1 and 2
//! directly. The host moves its own stdout and stderr to other descriptors, and replaces 1 and 2
//! with a pipe that it reads itself. What arrives there goes to the log line by line, within the
//! log's limits, and its writers never block.

use super::queue::{log, stdout};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// A longer line is split into several lines of the log.
const LINE_BYTES_MAX: usize = 4096;

/// How long to wait for the end of a line.
const LINE_WAIT_MS: libc::c_int = 50;

/// How long a process that aborts waits until its last lines are written.
const ABORT_WAIT_MS: u32 = 250;

/// The read end of the pipe, or -1.
static READ_END: AtomicI32 = AtomicI32::new(-1);

/// Set while bytes that were read are not in the log yet.
static READING: AtomicBool = AtomicBool::new(false);

/// Makes stdout and stderr queues, each with a thread. Must be called once, before anything else is
/// opened or started.
pub fn serve() -> io::Result<()> {
    let (out, err) = (duplicate(libc::STDOUT_FILENO)?, duplicate(libc::STDERR_FILENO)?);
    let (reader, writer) = io::pipe()?;
    READ_END.store(reader.as_raw_fd(), Ordering::Release);
    log().start(File::from(err))?;
    stdout().start(File::from(out))?;
    std::thread::Builder::new().name("native-log".into()).spawn(move || follow(reader))?;
    for descriptor in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: both are open, and nothing owns descriptors 1 and 2 as files.
        if unsafe { libc::dup2(writer.as_raw_fd(), descriptor) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the result is a new descriptor, which nothing else owns.
    unsafe {
        match libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3) {
            -1 => Err(io::Error::last_os_error()),
            new => Ok(OwnedFd::from_raw_fd(new)),
        }
    }
}

/// Returns true if the pipe holds bytes that are not in the log yet. Safe in a signal handler.
pub(super) fn unread() -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one integer. Without a pipe it fails, and nothing is unread.
    let result = unsafe { libc::ioctl(READ_END.load(Ordering::Acquire), libc::FIONREAD, &raw mut bytes) };
    READING.load(Ordering::Acquire) || (result == 0 && bytes > 0)
}

fn follow(mut reader: io::PipeReader) {
    let mut line = Vec::with_capacity(LINE_BYTES_MAX);
    let mut bytes = [0; LINE_BYTES_MAX];
    loop {
        if !line.is_empty() && !readable_within(reader.as_raw_fd(), LINE_WAIT_MS) {
            tell(&line);
            line.clear();
        }
        READING.store(!line.is_empty(), Ordering::Release);
        let count = match reader.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        READING.store(true, Ordering::Release);
        for &byte in &bytes[..count] {
            if byte != b'\n' {
                line.push(byte);
            }
            if byte == b'\n' || line.len() == LINE_BYTES_MAX {
                tell(&line);
                line.clear();
            }
        }
    }
}

fn readable_within(descriptor: RawFd, ms: libc::c_int) -> bool {
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid structure.
    unsafe { libc::poll(&raw mut poll, 1, ms) > 0 }
}

fn tell(line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    if !text.trim().is_empty() {
        tracing::warn!(target: "native", "{}", text.trim_end());
    }
}

/// Waits briefly until what a crash wrote to descriptor 2 has reached the log. For the handler of
/// SIGABRT: calls only functions that are safe there.
pub fn wait_for_last_words() {
    for _ in 0..ABORT_WAIT_MS / 10 {
        let pause = libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        // SAFETY: one valid structure; safe in a signal handler.
        unsafe { libc::nanosleep(&raw const pause, std::ptr::null_mut()) };
        if !unread() && !log().is_busy() {
            return;
        }
    }
}
