//! The gRPC form of the Open Inference Protocol: messages, service and client, generated from
//! `proto/inference.proto` when the host is built; and the limits on decoding them.
//!
//! Wire types only: `server::grpc` converts them to the types of `predict`, and nothing passes them
//! further.

pub mod codec;
pub mod growth;
pub mod wire;

/// `inference.GRPCInferenceService` and its messages.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod inference {
    tonic::include_proto!("inference");
}

/// The memory that each message takes.
mod shapes {
    include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
}

pub(crate) use shapes::INFER_PARAMETERS_ENTRY;

/// The file as descriptors, for clients that use reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
