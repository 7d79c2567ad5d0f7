//! The last lines that a plugin has written, for operators who watch it.

use crate::lock::LockUnpoisoned;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::sync::watch;

/// Lines that are kept of each plugin.
const LINES_MAX: usize = 200;

/// Bytes of text that are kept of each plugin.
const BYTES_MAX: usize = 64 << 10;

/// Bytes that are kept of one line.
const LINE_BYTES_MAX: usize = 4096;

/// The last lines of a plugin, which all its instances and generations share.
pub struct LogTail {
    plugin: Arc<str>,
    lines: Mutex<Lines>,
    /// The number of the newest line.
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<LogLine>,
    bytes: usize,
    /// The number of the newest line; lines are counted from 1.
    newest: u64,
}

/// A line of a plugin's log.
#[derive(Clone, Debug)]
pub struct LogLine {
    pub number: u64,
    pub at: SystemTime,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: &'static str,
    /// The request that it was written for, or several of a shared instance.
    pub request: Option<Arc<str>>,
    pub text: String,
}

/// Lines after a certain one.
pub struct LaterLines {
    pub lines: Vec<LogLine>,
    /// Lines in between that are not kept any more.
    pub lost: u64,
    /// The number of the newest line.
    pub newest: u64,
}

impl LogTail {
    pub(super) fn new(plugin: Arc<str>) -> Self {
        LogTail { plugin, lines: Mutex::default(), newest: watch::Sender::new(0) }
    }

    pub fn plugin(&self) -> &Arc<str> {
        &self.plugin
    }

    pub(super) fn add(&self, level: tracing::Level, request: Option<&Arc<str>>, text: &str) {
        let text = text[..text.floor_char_boundary(LINE_BYTES_MAX)].to_owned();
        let newest = {
            let mut lines = self.lines.lock_unpoisoned();
            lines.newest += 1;
            lines.bytes += text.len();
            let number = lines.newest;
            let (at, request) = (SystemTime::now(), request.cloned());
            lines.kept.push_back(LogLine { number, at, level: level.as_str(), request, text });
            while lines.kept.len() > LINES_MAX || lines.bytes > BYTES_MAX {
                let oldest = lines.kept.pop_front().expect("invariant: the new line is kept");
                lines.bytes -= oldest.text.len();
            }
            number
        };
        // Two writers may come here in the other order.
        self.newest.send_if_modified(|known| newest > std::mem::replace(known, newest.max(*known)));
    }

    /// Returns the lines after `after`, or all that are kept.
    pub fn after(&self, after: Option<u64>) -> LaterLines {
        let lines = self.lines.lock_unpoisoned();
        let oldest = lines.newest - lines.kept.len() as u64;
        // A number from before the plugin was removed and added again is of no use.
        let after = after.filter(|after| *after <= lines.newest);
        let from = after.unwrap_or(oldest);
        LaterLines {
            lines: lines.kept.iter().filter(|line| line.number > from).cloned().collect(),
            lost: oldest.saturating_sub(from),
            newest: lines.newest,
        }
    }

    /// Waits until there is a line after `after`.
    pub async fn wait(&self, after: u64) {
        let mut newest = self.newest.subscribe();
        // The sender lives as long as `self`.
        let _ = newest.wait_for(|newest| *newest > after).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn the_last_lines_are_kept_and_lost_ones_are_counted() {
        let tail = LogTail::new("p".into());
        assert!(tail.after(None).lines.is_empty());
        for number in 1..=250 {
            tail.add(Level::INFO, None, &number.to_string());
        }
        let LaterLines { lines, lost, newest } = tail.after(None);
        assert_eq!((lines.len(), lost, newest), (LINES_MAX, 0, 250));
        assert_eq!((lines[0].number, &*lines[0].text), (51, "51"));
        let LaterLines { lines, lost, .. } = tail.after(Some(10));
        assert_eq!((lines.len(), lost), (LINES_MAX, 40));
        assert!(tail.after(Some(250)).lines.is_empty());
        assert_eq!(tail.after(Some(9000)).lines.len(), LINES_MAX, "a number of an earlier plugin");
        tail.add(Level::WARN, Some(&"r".into()), &"ä".repeat(LINE_BYTES_MAX));
        let last = tail.after(Some(250)).lines.pop().unwrap();
        assert_eq!((last.text.len(), last.request.as_deref()), (LINE_BYTES_MAX, Some("r")));
        for _ in 0..100 {
            tail.add(Level::WARN, None, &"x".repeat(LINE_BYTES_MAX));
        }
        assert_eq!(tail.after(None).lines.len(), BYTES_MAX / LINE_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_reader_waits_for_the_next_line() {
        let tail = Arc::new(LogTail::new("p".into()));
        tail.add(Level::INFO, None, "first");
        tail.wait(0).await;
        let reader = tokio::spawn({
            let tail = Arc::clone(&tail);
            async move {
                tail.wait(1).await;
                tail.after(Some(1)).lines.len()
            }
        });
        tail.add(Level::INFO, None, "second");
        assert_eq!(reader.await.unwrap(), 1);
    }
}
