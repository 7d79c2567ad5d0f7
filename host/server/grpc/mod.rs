//! The gRPC listener: `inference.GRPCInferenceService`, `grpc.health.v1` and reflection, over
//! HTTP/2.
//!
//! `ModelInfer` and `ModelStreamInfer` are framed here, all other calls by tonic. An inference
//! itself is defined in `oip`, which HTTP shares.

mod body;
mod calls;
mod connection;
mod contents;
mod control;
mod decode;
mod encode;
mod endpoint;
mod frame;
mod guarded;
mod health;
mod infer;
mod message;
mod messages;
mod metadata;
mod readable_status;
mod received;
mod send_turn;
mod service;
mod state;
mod status;
mod stream;
mod stream_replies;
mod text;
mod timeout;

pub(in crate::server) use body::Body as GrpcBody;
pub use calls::GrpcCalls;
pub(in crate::server) use calls::is_grpc;
pub use state::Grpc;
