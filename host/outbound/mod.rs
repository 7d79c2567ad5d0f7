//! HTTP to other servers, for plugins and webhooks: a client that calls only servers that the
//! manifest allows, with limits.
//!
//! - `request` checks a request: where it goes, and what it says.
//! - `connect` looks names up, checks addresses, and keeps connections.
//! - `client` sends a request and reads the response.
//!
//! Redirects are not followed, and bodies are not decompressed.

mod client;
mod connect;
mod request;

pub use client::{Client, HttpReply, ReplyHead};
pub use request::{CheckedRequest, HttpRequest, parse_url};
