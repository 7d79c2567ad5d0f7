//! Compiles a graph and the models of its steps to a program, or returns all faults.

mod compiler;
mod conditions;
mod link;
mod models;
mod scopes;
mod types;

use super::absence;
use super::definition::{Graph, StepModel};
use super::fault::Fault;
use super::program::Program;
use super::structure::wire;
use compiler::Compiler;
use std::sync::Arc;

/// Checks everything that needs the models. `models` are those of the steps, in the order of the
/// steps.
pub fn compile(graph: &Arc<Graph>, models: &[StepModel]) -> Result<Program, Vec<Fault>> {
    let wiring = wire(graph)?;
    let mut compiler = Compiler::new(graph, &wiring, models);
    compiler.models();
    compiler.done()?;
    compiler.scopes();
    compiler.done()?;
    compiler.inputs();
    compiler.done()?;
    compiler.edges();
    compiler.outputs();
    compiler.done()?;
    compiler.conditions();
    compiler.done()?;
    let program = compiler.program();
    let faults = absence::check(&program, &wiring.order);
    if faults.is_empty() { Ok(program) } else { Err(faults) }
}
