//! The messages, the service and the client of the Open Inference Protocol over gRPC, made from
//! `proto/inference.proto` when the host is built.
//!
//! Wire types only: `server::grpc` turns them into what `predict` knows, and nothing passes them further down.

/// `inference.GRPCInferenceService` and its messages.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod inference {
    tonic::include_proto!("inference");
}

/// The same file as descriptors, for clients that ask by reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
