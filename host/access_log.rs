//! The access log: one JSON line per request on stdout.
//!
//! Requests append to the bounded queue of stdout and never wait for the disk or a slow reader.
//! Lines that do not fit are dropped and counted.

use crate::error::Error;
use crate::output::{self, Form};
use std::cell::RefCell;
use std::time::{Duration, SystemTime};

thread_local! {
    /// The buffer in which a line is formatted.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub struct Entry<'a> {
    pub id: &'a str,
    pub protocol: &'static str,
    pub trace_id: Option<&'a str>,
    pub tenant: Option<&'a str>,
    pub model: Option<&'a str>,
    pub version: Option<&'a str>,
    pub executor: Option<&'a str>,
    pub generation: u64,
    pub status: u16,
    pub error: Option<&'a Error>,
    pub elapsed: Duration,
    pub queue_wait: Duration,
    pub service: Duration,
    pub now: SystemTime,
}

impl Entry<'_> {
    pub fn write(&self) {
        // Formatted without the lock of the queue, which all connections share.
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.append_to(line);
            output::stdout().write_lazily(line, Form::Json);
        });
    }

    fn append_to(&self, line: &mut Vec<u8>) {
        let since = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let put = |line: &mut Vec<u8>, key: &str, value: Option<&str>| {
            if let Some(value) = value {
                put_key(line, key);
                serde_json::to_writer(line, value).expect("invariant: writing to memory");
            }
        };
        line.extend_from_slice(b"{\"ts\":");
        put_thousandths(line, since.as_millis() as u64);
        put(line, "id", Some(self.id));
        put(line, "protocol", Some(self.protocol));
        put(line, "trace_id", self.trace_id);
        put(line, "tenant", self.tenant);
        put(line, "model", self.model);
        put(line, "version", self.version);
        put(line, "executor", self.executor);
        for (key, number) in [("generation", self.generation), ("status", self.status.into())] {
            put_key(line, key);
            line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        put(line, "kind", self.error.map(|error| error.kind().as_str()));
        put(line, "plugin", self.error.and_then(Error::plugin_name));
        put(line, "error", self.error.map(Error::message));
        for (key, duration) in
            [("ms", self.elapsed), ("queue_ms", self.queue_wait), ("service_ms", self.service)]
        {
            put_key(line, key);
            put_thousandths(line, duration.as_micros() as u64);
        }
        line.extend_from_slice(b"}\n");
    }
}

fn put_key(line: &mut Vec<u8>, key: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(b"\":");
}

/// Appends a number of thousandths as a decimal. Integers cost a fraction of what floating point
/// does, and are as exact.
fn put_thousandths(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number / 1000).as_bytes());
    let rest = number % 1000;
    line.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

/// Returns the last digit of a number as text.
fn digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}
