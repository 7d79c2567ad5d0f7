//! HTTP/1.1 connections: the protocol of a listener whose requests a `Service` answers.

mod connection;
mod end;
mod head;
pub(super) mod raw_reply;
mod reply_body;
mod watched_stream;
