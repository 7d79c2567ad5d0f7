//! The gRPC listener: `inference.GRPCInferenceService`, `grpc.health.v1` and reflection, over
//! HTTP/2.
//!
//! `ModelInfer` and `ModelStreamInfer` are framed here, all other calls by tonic. An inference
//! itself is defined in `oip`, which HTTP shares. TLS is left to a proxy in front of the host.

mod body;
mod call;
mod call_body;
mod calls;
mod connection;
mod contents;
mod control;
mod counted_body;
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
mod received;
mod send_turn;
mod service;
mod state;
mod status;
mod stream;
mod stream_replies;
mod text;
mod timeout;

pub use calls::GrpcCalls;
pub use state::Grpc;
