//! The `pipeline` executor: runs graphs of models.
//!
//! From the top: the executor admits requests, `run` drives each one, `decide`, `frames` and their
//! neighbours change its state, and `rounds` runs a single step.

mod account;
mod admission_queue;
mod attempts;
mod callable;
mod decide;
mod endings;
mod frame;
mod frames;
mod items;
mod limits;
mod metrics;
mod model;
mod nested;
mod outputs;
mod parts;
mod pipeline_executor;
mod records;
mod response_sink;
mod reusability;
mod reuse;
mod rounds;
mod rows;
mod run;
mod run_state;
mod snapshot;
mod step;
mod streams;
mod values;
mod view;

pub use limits::{PipelineLimits, StepLimit};
pub use metrics::{StepMetrics, StepOutcome};
pub use model::{Binding, Bucket, Pick, PipelineModel, StepRoute, StepTarget};
pub use pipeline_executor::PipelineExecutor;
