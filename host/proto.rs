//! The messages, the service and the client of the Open Inference Protocol over gRPC, made from
//! `proto/inference.proto` when the host is built; how their bytes are read, and what they may become.
//!
//! Wire types only: `server::grpc` turns them into what `predict` knows, and nothing passes them further down.

pub mod codec;
pub mod growth;
pub mod wire;

/// `inference.GRPCInferenceService` and its messages.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod inference {
    tonic::include_proto!("inference");
}

/// What each message takes in memory.
mod shapes {
    include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
}

pub(crate) use shapes::INFER_PARAMETERS_ENTRY;

/// The same file as descriptors, for clients that ask by reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
