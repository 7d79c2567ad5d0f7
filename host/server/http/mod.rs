//! What all HTTP handlers share: bodies, replies, request ids, and error kinds as statuses.

mod body;
pub(in crate::server) mod body_text;
pub(in crate::server) mod compression;
mod errors;
mod headers;
mod json;
mod reply;
mod request_body;
mod request_id;
pub(in crate::server) mod streaming_body;
mod tensor_specs;
mod url;

pub use body::RESERVED_BYTES_MAX;
pub use compression::read_body;
pub use errors::{ErrorBody, add_hints, error_reply, method_not_allowed, methods, no_such_path, status_of};
pub use headers::{accepts, header, header_lookup, is_get, is_media_type};
pub use json::{in_plain_words, parse_json, parse_object, parse_with, without_bom};
pub use reply::{
    Reply, ReplyContent, empty, health, json, json_of, metrics, not_ready, reply, sandbox, sandboxed, sign,
    text,
};
pub use request_body::RequestBody;
pub use request_id::{REQUEST_ID, request_id, request_id_or};
pub use tensor_specs::tensor_specs;
pub use url::{decode_segment, query_pairs, query_value};
