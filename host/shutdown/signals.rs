//! Signals, from the start of a process to its end.
//!
//! A handler only writes the signal's number to a pipe. A dedicated thread reads it, so a signal
//! takes effect whatever the rest of the process waits for. The thread ends a start that is stuck
//! in a model, passes signals to the host that serves, and ends a shutdown that exceeds its limit
//! or is requested twice.

use super::exit::{exit, exit_now};
use crate::output;
use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the host may go on logging after a second signal.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// How long the last lines may take to be written.
const LAST_FLUSH: Duration = Duration::from_millis(200);

/// How long a shutdown may take beyond the limits of its steps.
pub const MARGIN: Duration = Duration::from_secs(5);

/// The pipe to which the handler writes.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Counts the signals that end the process.
static STOPS: AtomicU32 = AtomicU32::new(0);

/// Whether SIGHUP means that the terminal has hung up. Otherwise it requests a reload.
static HANGS_UP: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// End the process, because of this signal.
    Stop(&'static str),
    /// Reload the files.
    Reload,
}

/// The signals that have arrived so far.
#[derive(Clone, Copy, Default)]
struct Arrived {
    stops: u32,
    last: &'static str,
    reloads: u32,
}

/// The signals of a process. There is one value of it.
pub struct Signals {
    arrived: watch::Receiver<Arrived>,
    delivered: Arrived,
    limit: watch::Sender<Option<Duration>>,
}

impl Signals {
    /// Installs the handlers. Until [`serving`](Self::serving) is called, a signal to stop ends the
    /// process.
    pub fn install() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // SAFETY: the descriptor is that of a pipe which stays open.
        unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        PIPE.store(writer.into_raw_fd(), Ordering::Release);
        let (sender, arrived) = watch::channel(Arrived::default());
        let (limit, limited) = watch::channel(None);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || follow(reader, &sender, &limited))?;
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2] {
            handle(signal, on_signal);
        }
        handle(libc::SIGABRT, on_abort);
        match (has_terminal(), is_ignored(libc::SIGHUP)) {
            // Started by nohup: the process outlives its terminal.
            (true, true) => {}
            (hangs_up, _) => {
                HANGS_UP.store(hangs_up, Ordering::Release);
                handle(libc::SIGHUP, on_signal);
            }
        }
        // SAFETY: no handler. A write that exceeds the file size limit of the process fails with an
        // error instead.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        unblock([libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2]);
        Ok(Signals { arrived, delivered: Arrived::default(), limit })
    }

    /// From now on, [`next`](Self::next) returns signals. The steps of a shutdown take at most
    /// `limit`; a little later the process is ended in any case.
    pub fn serving(&self, limit: Duration) {
        self.limit.send_replace(Some(limit));
    }

    /// Waits for the next signal. Several requests to reload are merged into one.
    pub async fn next(&mut self) -> Event {
        loop {
            let arrived = *self.arrived.borrow_and_update();
            if arrived.stops > self.delivered.stops {
                self.delivered.stops += 1;
                return Event::Stop(arrived.last);
            }
            if arrived.reloads > self.delivered.reloads {
                self.delivered.reloads = arrived.reloads;
                return Event::Reload;
            }
            if self.arrived.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for the next signal to stop.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            if let Event::Stop(signal) = self.next().await {
                return signal;
            }
        }
    }
}

/// Handles signals for a command that is the first process of a container. Without handlers it
/// would ignore them: the kernel's default action does not end the first process.
pub fn end_as_first_process() {
    extern "C" fn end(signal: libc::c_int) {
        exit_now(128 + signal)
    }
    if std::process::id() == 1 {
        [libc::SIGTERM, libc::SIGINT, libc::SIGHUP].into_iter().for_each(|signal| handle(signal, end));
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    if asks_for_end(signal) && STOPS.fetch_add(1, Ordering::AcqRel) >= 2 {
        exit_now(1);
    }
    // SAFETY: safe in a signal handler; the error number of the interrupted code is restored.
    unsafe {
        let error = libc::__errno_location();
        let before = *error;
        let byte = signal as u8;
        libc::write(PIPE.load(Ordering::Acquire), (&raw const byte).cast(), 1);
        *error = before;
    }
}

extern "C" fn on_abort(signal: libc::c_int) {
    output::wait_for_last_words();
    // SAFETY: safe in a signal handler. The signal is raised again when this returns, and ends the
    // process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

fn asks_for_end(signal: libc::c_int) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGINT)
        || (signal == libc::SIGHUP && HANGS_UP.load(Ordering::Acquire))
}

/// Runs on the signal thread.
fn follow(
    mut reader: io::PipeReader,
    arrived: &watch::Sender<Arrived>,
    limit: &watch::Receiver<Option<Duration>>,
) {
    let mut deadline: Option<Instant> = None;
    loop {
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable_within(&reader, left) {
                if STOPS.load(Ordering::Acquire) < 2 {
                    tracing::error!("the shutdown exceeded its limits: process ended");
                }
                output::flush(LAST_FLUSH);
                exit_now(1);
            }
        }
        let mut byte = [0];
        match reader.read(&mut byte) {
            Ok(1) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            _ => return,
        }
        let signal = libc::c_int::from(byte[0]);
        let name = name(signal);
        if signal == libc::SIGHUP && !asks_for_end(signal) {
            arrived.send_modify(|arrived| arrived.reloads += 1);
        } else if !asks_for_end(signal) {
            tracing::warn!(signal = name, "signal ignored");
        } else {
            let Some(limit) = *limit.borrow() else {
                tracing::info!(signal = name, "stopped before it served");
                exit(0);
            };
            arrived.send_modify(|arrived| (arrived.stops, arrived.last) = (arrived.stops + 1, name));
            let limit = if deadline.is_none() { limit + MARGIN } else { LAST_WORDS };
            deadline = Some(Instant::now() + limit);
        }
    }
}

fn name(signal: libc::c_int) -> &'static str {
    match signal {
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGHUP => "SIGHUP",
        libc::SIGUSR1 => "SIGUSR1",
        _ => "SIGUSR2",
    }
}

fn readable_within(reader: &io::PipeReader, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let ms = libc::c_int::try_from(left.as_millis()).unwrap_or(libc::c_int::MAX);
        let mut poll = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid structure.
        match unsafe { libc::poll(&raw mut poll, 1, ms) } {
            0 if left.is_zero() || ms > 0 => return false,
            1 => return true,
            _ if left.is_zero() => return false,
            _ => {}
        }
    }
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: the structure is valid, and the handlers call only what is safe in a signal handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: the call fills the structure and changes nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action);
        action.sa_sigaction == libc::SIG_IGN
    }
}

/// A parent may have started the process with blocked signals.
fn unblock(signals: [libc::c_int; 5]) {
    // SAFETY: the set is valid. Threads started later inherit the mask.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Returns true if the process has a controlling terminal. SIGHUP then means that it has hung up.
fn has_terminal() -> bool {
    const TERMINAL: &CStr = c"/dev/tty";
    // SAFETY: the path ends with a zero byte; what was opened is closed.
    unsafe {
        let terminal = libc::open(
            TERMINAL.as_ptr(),
            libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC,
        );
        if terminal >= 0 {
            libc::close(terminal);
        }
        terminal >= 0
    }
}
