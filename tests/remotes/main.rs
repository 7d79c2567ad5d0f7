//! Models on a Triton server.

#[path = "../support/mod.rs"]
mod support;

mod calls_remote;
mod triton;
mod triton_streams;
mod triton_swaps;
