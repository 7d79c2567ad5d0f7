//! Writes a guest's output to the host's log, line by line, with the request that it belongs to.
//!
//! Each call has a budget of bytes. Output beyond it is dropped, and the log says so once. Lines
//! are split at `LINE_BYTES_MAX`, so a guest that never ends a line does not use up memory.

use crate::lock::LockUnpoisoned;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

const LINE_BYTES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// The log of one instance. Shared with the streams that WASI holds.
pub(super) struct LogBudget {
    plugin: Arc<str>,
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    request: Option<Arc<str>>,
    bytes_left: usize,
    cut: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The last lines of stderr, such as the message of a panic, for the log line of the failed
    /// request.
    tail: String,
}

impl LogBudget {
    pub fn new(plugin: Arc<str>) -> Self {
        LogBudget { plugin, state: Mutex::default() }
    }

    pub fn begin(&self, request: Arc<str>, bytes: usize) {
        let mut state = self.lock();
        let LogState { stdout, stderr, tail, .. } = std::mem::take(&mut *state);
        *state = LogState { request: Some(request), bytes_left: bytes, stdout, stderr, tail, cut: false };
        state.tail.clear();
    }

    /// Logs unfinished lines. Returns what the guest last wrote to stderr.
    pub fn end(&self) -> String {
        let mut state = self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(state.buffer(stream));
            if !rest.is_empty() {
                self.line(&mut state, stream, &rest);
            }
        }
        std::mem::take(&mut state.tail)
    }

    /// Takes `bytes` from the budget. Returns `false`, and logs that once per call, when the budget
    /// is used up.
    pub fn spend(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        self.take(&mut state, bytes)
    }

    pub fn request(&self) -> Option<Arc<str>> {
        self.lock().request.clone()
    }

    fn take(&self, state: &mut LogState, bytes: usize) -> bool {
        if let Some(left) = state.bytes_left.checked_sub(bytes) {
            state.bytes_left = left;
            return true;
        }
        state.bytes_left = 0;
        if !std::mem::replace(&mut state.cut, true) {
            let (plugin, request) = (&*self.plugin, state.request.as_deref());
            tracing::warn!(plugin, request, "plugin log truncated: more than log_kb in one call");
        }
        false
    }

    fn write(&self, stream: Stream, mut bytes: &[u8]) {
        let mut state = self.lock();
        if !self.take(&mut state, bytes.len()) {
            return;
        }
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let mut line = std::mem::take(state.buffer(stream));
            line.extend_from_slice(&bytes[..end]);
            self.line(&mut state, stream, &line);
            bytes = &bytes[end + 1..];
        }
        state.buffer(stream).extend_from_slice(bytes);
        if state.buffer(stream).len() >= LINE_BYTES_MAX {
            let line = std::mem::take(state.buffer(stream));
            self.line(&mut state, stream, &line);
        }
    }

    fn line(&self, state: &mut LogState, stream: Stream, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        let (plugin, request) = (&*self.plugin, state.request.as_deref());
        match stream {
            Stream::Stdout => tracing::info!(plugin, request, "{text}"),
            Stream::Stderr => {
                tracing::warn!(plugin, request, "{text}");
                if state.tail.len() < LINE_BYTES_MAX {
                    state.tail.push_str(text);
                    state.tail.push('\n');
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LogState> {
        self.state.lock_unpoisoned()
    }
}

impl LogState {
    fn buffer(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// The stdout or stderr of a guest.
#[derive(Clone)]
pub(super) struct GuestOutput {
    stream: Stream,
    log: Arc<LogBudget>,
}

impl GuestOutput {
    pub fn new(stream: Stream, log: Arc<LogBudget>) -> Self {
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
