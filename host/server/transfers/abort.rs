//! How an answer is ended from outside.

/// Ends an answer that the host gives up.
pub(in crate::server) trait Abort: Send + Sync {
    /// Called at most once per transfer. Must not block: a lock of the table of transfers is held.
    fn abort(&self);
}
