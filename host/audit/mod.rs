//! The audit log: one line for each act of an operator or client that changes what the host serves.
//!
//! A line is on disk before its act begins; if it cannot be written, the act is refused. Only a
//! rollback must be possible on a full disk: its line then goes into space that was set aside.

mod audit_log;
mod reserve;

pub use audit_log::{Act, AuditLog};
