//! The functions and types of `wit/`. In a component, they are generated and call the host. On
//! every other target, a stand-in in memory has the same names, so that `cargo test` needs no host.
//! Authors do not use this module directly; `lib.rs` re-exports what they need.

#[cfg(target_arch = "wasm32")]
mod component;
#[cfg(target_arch = "wasm32")]
mod guests;
#[cfg(not(target_arch = "wasm32"))]
mod stand_in;

#[cfg(target_arch = "wasm32")]
pub use component::*;
#[cfg(not(target_arch = "wasm32"))]
pub use stand_in::*;
