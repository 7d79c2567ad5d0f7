//! Pipelines: graphs of models, served as models.

#[path = "../support/mod.rs"]
mod support;

mod copies;
mod elsewhere;
mod examples;
mod faults;
mod flow;
mod hostile;
mod interfaces;
mod limits;
mod optional;
mod random;
mod ranks;
mod repeats;
mod rows;
mod streams;
mod swaps;
