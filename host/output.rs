//! Standard output and standard error: what the process writes to descriptors that others gave it.
//!
//! The reader of such a descriptor may be slow, stopped or gone, and its disk may be full. A host that serves
//! therefore writes through a [`Queue`]: callers append whole lines to a bounded buffer and never wait, and a
//! thread of the queue's own does the writing. Lines that do not fit, or that cannot be written, are dropped and
//! counted, and the log says how many as soon as a write succeeds again. [`serve`] also moves descriptors 1 and 2 to a
//! pipe that the host reads itself, so that native libraries and child processes cannot block either.
//!
//! The other commands write directly, and wait for their reader as other programs do; see [`print()`].

mod descriptors;

pub use descriptors::{serve, wait_for_last_words};

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Bytes that may wait for a writer: some ten thousand lines.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// Bytes that a buffer keeps for the next lines when it is empty.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// How long lines that are not urgent are gathered for one write.
const GATHER: Duration = Duration::from_millis(50);

/// How long the exit waits for lines that are not written yet.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a failed start waits for its reason to be written.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Lines for one descriptor. Before [`serve`] they are written at once; after that by a thread.
pub struct Queue {
    name: &'static str,
    descriptor: i32,
    state: Mutex<State>,
    wake: Condvar,
    /// Set while lines are queued or being written. Read by a signal handler, which cannot take the lock.
    busy: AtomicBool,
    dropped: prometheus::IntCounter,
    /// Where the thread writes, once there is one.
    target: OnceLock<File>,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    urgent: bool,
    /// Lines dropped since the log last told of them.
    dropped: u64,
}

static LOG: LazyLock<Queue> = LazyLock::new(|| {
    let help = "Log lines dropped because stderr could not be written or its reader was behind.";
    Queue::new("stderr", libc::STDERR_FILENO, "hostler_log_dropped_total", help)
});

static STDOUT: LazyLock<Queue> = LazyLock::new(|| {
    let help = "Access log lines dropped because stdout could not be written or its reader was behind.";
    Queue::new("stdout", libc::STDOUT_FILENO, "hostler_access_log_dropped_total", help)
});

/// The log, on stderr.
pub fn log() -> &'static Queue {
    &LOG
}

/// The announcement and the access log, on stdout.
pub fn stdout() -> &'static Queue {
    &STDOUT
}

impl Queue {
    fn new(name: &'static str, descriptor: i32, metric: &str, help: &str) -> Self {
        Queue {
            name,
            descriptor,
            state: Mutex::default(),
            wake: Condvar::new(),
            busy: AtomicBool::new(false),
            dropped: prometheus::IntCounter::new(metric, help).expect("invariant: the name is a constant"),
            target: OnceLock::new(),
        }
    }

    /// Lines dropped since the process started.
    pub fn dropped(&self) -> &prometheus::IntCounter {
        &self.dropped
    }

    /// Appends whole lines and has them written soon.
    pub fn write(&self, lines: &[u8]) {
        self.append(lines, true);
    }

    /// Appends whole lines, which may wait for others to be written with them.
    pub fn write_lazily(&self, lines: &[u8]) {
        self.append(lines, false);
    }

    fn append(&self, lines: &[u8], urgent: bool) {
        if self.target.get().is_none() {
            // Nobody can be told where the log itself cannot be written.
            let _ = write_all(self.descriptor, lines);
            return;
        }
        let wake = {
            let mut state = self.lock();
            if state.lines.len() + lines.len() > BUFFER_BYTES_MAX {
                self.count_dropped(&mut state, lines);
                return;
            }
            let wake = state.lines.is_empty() || (urgent && !state.urgent);
            state.urgent |= urgent;
            state.lines.extend_from_slice(lines);
            self.busy.store(true, Ordering::Release);
            wake
        };
        if wake {
            self.wake.notify_one();
        }
    }

    fn count_dropped(&self, state: &mut State, lines: &[u8]) {
        let count = lines.iter().filter(|&&byte| byte == b'\n').count().max(1) as u64;
        state.dropped += count;
        self.dropped.inc_by(count);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("invariant: no panic under the lock")
    }

    /// From now on a thread writes to `target`.
    fn start(&'static self, target: File) -> io::Result<()> {
        let descriptor = target.as_raw_fd();
        std::thread::Builder::new().name(self.name.into()).spawn(move || self.run(descriptor))?;
        self.target.set(target).expect("invariant: started once");
        Ok(())
    }

    fn run(&self, descriptor: i32) {
        // Two buffers in turn: neither grows anew.
        let mut lines = Vec::new();
        let mut torn = false;
        loop {
            self.take(&mut lines);
            if std::mem::take(&mut torn) {
                // The end of a line is missing that could be written in part.
                torn = write_all(descriptor, b"\n").is_err();
            }
            let unwritten = match torn {
                true => &lines[..],
                false => match write_all(descriptor, &lines) {
                    Ok(()) => &[],
                    Err(WriteFailed { written, .. }) => {
                        torn = written > 0 && lines[written - 1] != b'\n';
                        &lines[written..]
                    }
                },
            };
            let mut state = self.lock();
            if !unwritten.is_empty() {
                self.count_dropped(&mut state, unwritten);
                continue;
            }
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            if dropped > 0 {
                tracing::warn!(stream = self.name, lines = dropped, "lines dropped");
            }
        }
    }

    /// Waits for lines, and takes all.
    fn take(&self, lines: &mut Vec<u8>) {
        lines.clear();
        lines.shrink_to(BUFFER_BYTES_KEPT);
        let mut state = self.lock();
        if state.lines.is_empty() {
            self.busy.store(false, Ordering::Release);
            state = self
                .wake
                .wait_while(state, |state| state.lines.is_empty())
                .expect("invariant: no panic under the lock");
        }
        if !state.urgent {
            let gathered = self.wake.wait_timeout_while(state, GATHER, |state| !state.urgent);
            (state, _) = gathered.expect("invariant: no panic under the lock");
        }
        state.urgent = false;
        std::mem::swap(&mut state.lines, lines);
    }

    fn hurry(&self) {
        self.lock().urgent = true;
        self.wake.notify_one();
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }
}

/// Waits until all lines are written, but no longer than `limit`. False if some are left.
pub fn flush(limit: Duration) -> bool {
    let until = Instant::now() + limit;
    let queues = [log(), stdout()];
    queues.iter().filter(|queue| queue.is_busy()).for_each(|queue| queue.hurry());
    while queues.iter().any(|queue| queue.is_busy()) || descriptors::unread() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The first error of [`print()`].
static PRINT_ERROR: OnceLock<io::Error> = OnceLock::new();

/// Prints a line of what a command answers. Waits for a slow reader; once one write has failed, nothing more is printed.
pub fn print(line: impl fmt::Display) {
    print_text(format!("{line}\n"));
}

/// Prints text as it is, as [`print()`] does.
pub fn print_text(text: impl AsRef<str>) {
    if PRINT_ERROR.get().is_none()
        && let Err(failed) = write_all(libc::STDOUT_FILENO, text.as_ref().as_bytes())
    {
        let _ = PRINT_ERROR.set(failed.error);
    }
}

/// Tells a person something on stderr: how a command goes on, or why it ends.
pub fn report(message: impl fmt::Display) {
    log().write(format!("{message}\n").as_bytes());
}

/// Why a command could not print all of its answer. A reader that has left has what it wanted: that is no error.
pub fn print_error() -> Option<&'static io::Error> {
    PRINT_ERROR.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

struct WriteFailed {
    /// Bytes written before.
    written: usize,
    error: io::Error,
}

/// Writes all bytes, and waits where the descriptor would block.
fn write_all(descriptor: i32, bytes: &[u8]) -> Result<(), WriteFailed> {
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
                // Another process that shares the open file has made it non-blocking.
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
