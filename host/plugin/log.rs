//! Writes a guest's output to the host's log, line by line, with the request that it belongs to.
//!
//! Each call has a budget of bytes. Output beyond it is dropped, and the log says so once; only the
//! last bytes of stderr are kept and logged when the call ends, because a panic or a traceback ends
//! with its reason. Lines are split at `LINE_BYTES_MAX`, so a guest that never ends a line does not
//! use up memory.

use super::bindings::logging::Level;
use super::log_tail::LogTail;
use crate::lock::LockUnpoisoned;
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

const LINE_BYTES_MAX: usize = 4096;

/// The last bytes of stderr that are kept for each call, whatever its budget.
const TAIL_BYTES_MAX: usize = 4096;

/// How often the budget for output outside of calls is renewed.
const BUDGET_PERIOD: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// The log of one instance. Shared with the streams that WASI holds.
pub(super) struct InstanceLog {
    /// The log of the call in progress. In a shared instance, the log of everything outside of
    /// calls.
    own: CallLog,
    /// The call that writes now. Only shared instances have several, and set it for each write.
    writer: Mutex<Option<Arc<CallLog>>>,
}

/// The log of one call, or of everything that an instance does outside of calls.
pub(super) struct CallLog {
    tail: Arc<LogTail>,
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    request: Option<Arc<str>>,
    /// The requests in flight when a guest task wrote that belongs to none of them.
    requests: Option<String>,
    budget: usize,
    bytes_left: usize,
    /// When the budget was last renewed; `None` if it is for one call.
    renewed: Option<Instant>,
    is_cut: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The last bytes of stderr, such as the message of a panic.
    stderr_end: Vec<u8>,
    /// Bytes of stderr since the last one that fitted the budget. They are at the end of
    /// `stderr_end`,
    /// as far as they fit there.
    unlogged: usize,
}

impl InstanceLog {
    /// The log of an instance that runs one call at a time.
    pub fn new(tail: Arc<LogTail>) -> Self {
        InstanceLog { own: CallLog { tail, state: Mutex::default() }, writer: Mutex::default() }
    }

    /// The log of an instance that runs concurrent calls, each with a [`CallLog`] of its own.
    /// Outside of calls, it may write `budget` bytes in each minute.
    pub fn shared(tail: Arc<LogTail>, budget: usize) -> Self {
        let log = InstanceLog::new(tail);
        {
            let mut state = log.own.lock();
            (state.budget, state.bytes_left, state.renewed) = (budget, budget, Some(Instant::now()));
        }
        log
    }

    /// Starts a call of an instance that runs one call at a time.
    pub fn begin(&self, request: Arc<str>, budget: usize) {
        self.own.lock().begin(request, budget);
    }

    /// Logs what is left of the call in progress, or of everything outside of calls. Returns what
    /// the guest last wrote to stderr.
    pub fn end(&self) -> String {
        self.own.end()
    }

    /// Sets which call writes next. If it is not known, `requests` lists those that are in flight.
    pub fn set_writer(&self, writer: Option<Arc<CallLog>>, requests: Option<String>) {
        if writer.is_none() {
            self.own.lock().set_requests(&self.own.tail, requests);
        }
        *self.writer.lock_unpoisoned() = writer;
    }

    /// Logs a message that the guest has passed to `wasi:logging`.
    pub fn message(&self, level: Level, context: &str, message: &str) {
        self.with_writer(|log| log.message(level, context, message));
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        self.with_writer(|log| log.write(stream, bytes));
    }

    fn with_writer(&self, work: impl FnOnce(&CallLog)) {
        let writer = self.writer.lock_unpoisoned().clone();
        work(writer.as_deref().unwrap_or(&self.own));
    }
}

impl CallLog {
    pub fn new(tail: Arc<LogTail>, request: Arc<str>, budget: usize) -> Self {
        let log = CallLog { tail, state: Mutex::default() };
        log.lock().begin(request, budget);
        log
    }

    /// Logs unfinished lines, and the last lines of stderr beyond the budget. Returns what the
    /// guest last wrote to stderr.
    pub fn end(&self) -> String {
        let mut state = self.lock();
        state.finish(&self.tail);
        let end = std::mem::take(&mut state.stderr_end);
        whole_lines(&end, end.len() >= TAIL_BYTES_MAX)
    }

    fn message(&self, level: Level, context: &str, message: &str) {
        let mut state = self.lock();
        let taken = state.take(&self.tail, context.len() + message.len());
        let Some(bytes) = taken.checked_sub(context.len()).filter(|bytes| *bytes > 0 || message.is_empty())
        else {
            return;
        };
        let message = &message[..message.floor_char_boundary(bytes)];
        let (plugin, request, requests) =
            (&**self.tail.plugin(), state.request.as_deref(), state.requests.as_deref());
        let context = (!context.is_empty()).then_some(context);
        // Each line has its plugin and request: a message cannot pass as another plugin's.
        for line in message.lines() {
            state.show(&self.tail, tracing_level(level), line);
            match level {
                Level::Trace => tracing::trace!(plugin, request, requests, context, "{line}"),
                Level::Debug => tracing::debug!(plugin, request, requests, context, "{line}"),
                Level::Info => tracing::info!(plugin, request, requests, context, "{line}"),
                Level::Warn => tracing::warn!(plugin, request, requests, context, "{line}"),
                Level::Error | Level::Critical => {
                    tracing::error!(plugin, request, requests, context, "{line}");
                }
            }
        }
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.lock();
        let taken = state.take(&self.tail, bytes.len());
        let (mut fitting, rest) = bytes.split_at(taken);
        if stream == Stream::Stderr {
            state.keep(bytes);
            state.unlogged = if rest.is_empty() { 0 } else { state.unlogged + rest.len() };
        }
        while let Some(end) = fitting.iter().position(|&byte| byte == b'\n') {
            let mut line = std::mem::take(state.buffer(stream));
            line.extend_from_slice(&fitting[..end]);
            state.line(&self.tail, stream, &line);
            fitting = &fitting[end + 1..];
        }
        state.buffer(stream).extend_from_slice(fitting);
        if state.buffer(stream).len() >= LINE_BYTES_MAX {
            let line = std::mem::take(state.buffer(stream));
            state.line(&self.tail, stream, &line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock_unpoisoned()
    }
}

impl LogState {
    fn begin(&mut self, request: Arc<str>, budget: usize) {
        self.request = Some(request);
        (self.budget, self.bytes_left, self.is_cut, self.unlogged) = (budget, budget, false, 0);
        self.stderr_end.clear();
    }

    /// Takes up to `bytes` from the budget, and returns how many are left of them. Logs once when
    /// the budget is used up.
    fn take(&mut self, tail: &LogTail, bytes: usize) -> usize {
        if self.renewed.is_some_and(|renewed| renewed.elapsed() >= BUDGET_PERIOD) {
            self.finish(tail);
            (self.renewed, self.bytes_left, self.is_cut) = (Some(Instant::now()), self.budget, false);
        }
        let taken = bytes.min(self.bytes_left);
        self.bytes_left -= taken;
        if taken < bytes && !std::mem::replace(&mut self.is_cut, true) {
            let (plugin, request) = (&**tail.plugin(), self.request.as_deref());
            let message = match self.renewed {
                None => "plugin log truncated: more than log_kb in one call",
                Some(_) => "plugin log truncated: more than log_kb in one minute outside of requests",
            };
            self.show(tail, tracing::Level::WARN, message);
            tracing::warn!(plugin, request, "{message}");
        }
        taken
    }

    /// Appends to the last bytes of stderr.
    fn keep(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        let surplus = (self.stderr_end.len() + bytes.len()).saturating_sub(TAIL_BYTES_MAX);
        self.stderr_end.drain(..surplus);
        self.stderr_end.extend_from_slice(bytes);
    }

    /// Sets the requests in flight. Lines that other requests were in flight for are ended.
    fn set_requests(&mut self, tail: &LogTail, requests: Option<String>) {
        if self.requests != requests {
            self.end_lines(tail);
            self.requests = requests;
        }
    }

    fn end_lines(&mut self, tail: &LogTail) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(self.buffer(stream));
            if !rest.is_empty() {
                self.line(tail, stream, &rest);
            }
        }
    }

    fn finish(&mut self, tail: &LogTail) {
        self.end_lines(tail);
        let unlogged = std::mem::take(&mut self.unlogged);
        if unlogged > 0 {
            let start = self.stderr_end.len().saturating_sub(unlogged);
            let lines = whole_lines(&self.stderr_end[start..], unlogged > self.stderr_end.len());
            lines.lines().for_each(|line| self.line(tail, Stream::Stderr, line.as_bytes()));
        }
    }

    fn line(&self, tail: &LogTail, stream: Stream, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        let plugin = &**tail.plugin();
        let (request, requests) = (self.request.as_deref(), self.requests.as_deref());
        match stream {
            Stream::Stdout => {
                self.show(tail, tracing::Level::INFO, text);
                tracing::info!(plugin, request, requests, "{text}");
            }
            Stream::Stderr => {
                self.show(tail, tracing::Level::WARN, text);
                tracing::warn!(plugin, request, requests, "{text}");
            }
        }
    }

    /// Keeps a line for those who watch the plugin. Lines below INFO are kept only if the host logs
    /// them: plugins write many.
    fn show(&self, tail: &LogTail, level: tracing::Level, text: &str) {
        let is_logged = match level {
            tracing::Level::TRACE => tracing::enabled!(tracing::Level::TRACE),
            tracing::Level::DEBUG => tracing::enabled!(tracing::Level::DEBUG),
            _ => true,
        };
        if !is_logged {
            return;
        }
        let several = || self.requests.as_deref().map(Arc::from);
        let request = self.request.clone().or_else(several);
        tail.add(level, request.as_ref(), text);
    }

    fn buffer(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

fn tracing_level(level: Level) -> tracing::Level {
    match level {
        Level::Trace => tracing::Level::TRACE,
        Level::Debug => tracing::Level::DEBUG,
        Level::Info => tracing::Level::INFO,
        Level::Warn => tracing::Level::WARN,
        Level::Error | Level::Critical => tracing::Level::ERROR,
    }
}

/// Returns bytes as lines, each with its end. If their beginning is missing, the first line is left
/// out, unless it is the only one.
fn whole_lines(bytes: &[u8], is_cut: bool) -> String {
    let next_line = bytes.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let start = if is_cut && next_line < bytes.len() { next_line } else { 0 };
    let mut lines = String::from_utf8_lossy(&bytes[start..]).into_owned();
    if !lines.is_empty() && !lines.ends_with('\n') {
        lines.push('\n');
    }
    lines
}

/// The stdout or stderr of a guest.
#[derive(Clone)]
pub(super) struct GuestOutput {
    stream: Stream,
    log: Arc<InstanceLog>,
}

impl GuestOutput {
    pub fn new(stream: Stream, log: Arc<InstanceLog>) -> Self {
        GuestOutput { stream, log }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 guests ask for this, and the linkers provide WASI 0.2 only.
        Box::new(tokio::io::sink())
    }
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LINE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail() -> Arc<LogTail> {
        Arc::new(LogTail::new("p".into()))
    }

    #[test]
    fn the_last_bytes_of_stderr_outlive_the_budget_and_belong_to_their_call() {
        let log = InstanceLog::new(tail());
        log.begin("first".into(), 100);
        log.write(Stream::Stdout, &[b'x'; 200]);
        log.write(Stream::Stderr, b"Traceback\n  deep\n");
        log.write(Stream::Stderr, b"ValueError: because");
        assert_eq!(log.own.lock().unlogged, 36);
        assert_eq!(log.end(), "Traceback\n  deep\nValueError: because\n");
        log.begin("second".into(), 100);
        assert_eq!(log.end(), "");
        log.write(Stream::Stderr, &[b'a'; 3 * TAIL_BYTES_MAX]);
        log.write(Stream::Stderr, b"\nlast");
        assert_eq!(log.end(), "last\n");
    }

    #[test]
    fn calls_in_a_shared_instance_have_budgets_of_their_own() {
        let log = InstanceLog::shared(tail(), 10);
        let calls = ["a", "b"].map(|id| Arc::new(CallLog::new(tail(), id.into(), 10)));
        log.set_writer(Some(Arc::clone(&calls[0])), None);
        log.write(Stream::Stderr, b"more than ten bytes\n");
        log.set_writer(Some(Arc::clone(&calls[1])), None);
        log.write(Stream::Stderr, b"of b\n");
        log.set_writer(None, Some("a, b".into()));
        log.write(Stream::Stderr, b"of none");
        assert_eq!(calls.each_ref().map(|call| call.lock().bytes_left), [0, 5]);
        assert_eq!(calls.each_ref().map(|call| call.end()), ["more than ten bytes\n", "of b\n"]);
        assert_eq!(log.own.lock().bytes_left, 3);
        assert_eq!(log.end(), "of none\n");
    }
}
