//! Lines that wait to be written to stdout or stderr.

use super::escape::{Form, escape};
use super::write::{WriteFailed, write_all};
use crate::lock::LockUnpoisoned;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, OnceLock};
use std::time::Duration;

/// The most bytes that may wait, some ten thousand lines.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The capacity that an empty buffer keeps for the next lines.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// How long lines that are not urgent are collected for one write.
const GATHER: Duration = Duration::from_millis(50);

/// Lines for one descriptor. Before [`serve`](super::serve) they are written directly; after that
/// by a thread.
pub struct Queue {
    name: &'static str,
    descriptor: i32,
    state: Mutex<State>,
    wake: Condvar,
    /// Set while lines are queued or being written. Read by a signal handler, which cannot take the
    /// lock.
    busy: AtomicBool,
    dropped: prometheus::IntCounter,
    /// The writer's file, once its thread has started.
    target: OnceLock<File>,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    urgent: bool,
    /// Lines dropped since the log last reported some.
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

    /// Counts the lines dropped since the process started.
    pub fn dropped(&self) -> &prometheus::IntCounter {
        &self.dropped
    }

    /// Appends whole lines, and wakes the writer.
    pub fn write(&self, lines: &[u8], form: Form) {
        self.append(&escape(lines, form), true);
    }

    /// Appends whole lines, which may wait to be written together with others.
    pub fn write_lazily(&self, lines: &[u8], form: Form) {
        self.append(&escape(lines, form), false);
    }

    fn append(&self, lines: &[u8], urgent: bool) {
        if self.target.get().is_none() {
            // There is no place to report that the log itself cannot be written.
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
        self.state.lock_unpoisoned()
    }

    /// Starts the thread, which writes to `target`.
    pub(super) fn start(&'static self, target: File) -> io::Result<()> {
        let descriptor = target.as_raw_fd();
        std::thread::Builder::new().name(self.name.into()).spawn(move || self.run(descriptor))?;
        self.target.set(target).expect("invariant: started once");
        Ok(())
    }

    fn run(&self, descriptor: i32) {
        // Two buffers are swapped, so that neither is allocated again.
        let mut lines = Vec::new();
        let mut torn = false;
        loop {
            self.take(&mut lines);
            if std::mem::take(&mut torn) {
                // A line was written in part: end it first.
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

    /// Waits for lines, and takes all of them.
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

    pub(super) fn hurry(&self) {
        self.lock().urgent = true;
        self.wake.notify_one();
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }
}
