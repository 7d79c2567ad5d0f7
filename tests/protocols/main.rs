//! The Open Inference Protocol over REST and gRPC, and its model control.

#[path = "../support/mod.rs"]
mod support;

mod alignment;
mod control;
mod control_start;
mod control_views;
mod early_answers;
mod grpc;
mod grpc_deadlines;
mod grpc_stream;
mod message_memory;
mod numbers;
mod oip;
mod oip_extensions;
mod oip_fields;
mod openapi;
mod ranks;
mod traces;
mod tritonclient;
