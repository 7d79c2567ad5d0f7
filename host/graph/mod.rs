//! Graphs of models: how a pipeline is defined, checked and compiled.
//!
//! A [`Graph`] is the manifest's definition, without positions in files. [`structure`] checks what
//! needs no models; [`compile`] checks the rest and returns the [`Program`] that
//! `executor::pipeline` runs. All of it is pure: no I/O, no clocks, no threads.

mod absence;
mod compile;
pub mod condition;
mod definition;
mod fault;
mod layout;
mod picture;
mod program;
mod structure;
mod svg;
mod types;
mod wiring;

pub use compile::compile;
pub use definition::{Choose, Each, Gather, Graph, InputSpec, Loop, Member, Retry, Source, Step, StepModel};
pub use fault::Fault;
pub use picture::{dot, mermaid, text};
pub use program::{
    Choice, Gathered, InputProgram, Need, OutputProgram, Program, Reader, Scope, StepProgram, ValueRef,
};
pub use structure::structure;
pub use svg::svg;
