//! Unit tests of plugins with `cargo test`, without a host and without WebAssembly.
//!
//! On every target but `wasm32`, the functions of this crate work on a stand-in for the host, which
//! is in memory. A test creates a [`Host`], which says what the manifest would say: configuration,
//! assets, the models and servers that the plugin may call. It then calls the plugin's own
//! functions and looks at what they returned and did.
//!
//! ```
//! use hostler_plugin::testing::{Host, predict};
//! use hostler_plugin::{Datatype, Error, Model, ModelMetadata, Request, Tensor};
//! use hostler_plugin::{config, models, tensor};
//!
//! /// Calls the model `simple` and multiplies its output.
//! struct Scaled;
//!
//! impl Model for Scaled {
//!     fn metadata() -> ModelMetadata {
//!         let spec = |name| tensor::spec(name, Datatype::Fp32, &[-1]);
//!         ModelMetadata { inputs: vec![spec("x")], outputs: vec![spec("y")] }
//!     }
//!
//!     fn predict(_: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
//!         let factor: f32 = config::number("factor", 1.0, 0.0..=100.0)?;
//!         let outputs = models::get("simple", None)?.call(&inputs)?;
//!         let y: Vec<f32> = tensor::named(&outputs, "y")?.to_f32()?.iter().map(|y| y * factor).collect();
//!         Ok(vec![tensor::fp32("y", &[y.len() as i64], &y)?])
//!     }
//! }
//!
//! # fn main() -> Result<(), Error> {
//! let host = Host::new()
//!     .config("factor", "3")
//!     .model("simple", |inputs| Ok(vec![inputs[0].renamed("y")]));
//! let x = tensor::fp32("x", &[2], &[1.0, 2.0])?;
//! let outputs = predict::<Scaled>(&host.request(), vec![x])?;
//! assert_eq!(outputs[0].to_f32()?, [3.0, 6.0]);
//! assert_eq!(host.calls("simple").len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # One host for each test
//!
//! A host belongs to the thread that created it, so tests run in parallel and do not see each
//! other. It is in use until it is dropped; keep it in a variable until the end of the test. Of
//! several hosts on one thread, the one created last is in use. Tensors need no host. A function
//! that needs one panics without it.
//!
//! Statics of the plugin are shared by all tests of a process. Use
//! [`InstanceCell`](crate::InstanceCell) for what an instance reads once: each host has its own
//! value of it.
//!
//! # Time
//!
//! The host has a clock of its own, which starts at zero and moves only when the plugin waits:
//! a sleep of an hour takes no time. Calls to models take no time unless their [`Reply`] says so.
//! `std::time` is not affected.
//!
//! # What differs from a host
//!
//! Limits of memory, log and time for computing are not enforced. HTTP requests are not compared
//! with the manifest. Errors of host calls reach the test as the plugin returned them; a host
//! converts them, so that a client does not receive an error about a call that it did not make.
//! After its deadline a request is not stopped: waits end at the deadline, and those that can fail
//! return `deadline`.

mod calls;
mod check;
mod clock;
mod data;
mod drive;
mod host;
mod metrics;
mod request;
mod sink;
mod state;

pub use calls::Reply;
pub use check::{check_inputs, check_outputs};
pub use clock::block_on;
pub use drive::{Streamed, execute, predict, predict_optional, stream, transform};
pub use host::Host;
pub use sink::{Sent, sink};

pub use crate::bindings::logging::Level;
pub use data::LogLine;

pub(crate) use calls::{CallInFlight, ModelHandle};
pub(crate) use clock::{Wait, current_time, sleep_until, time_limit};
pub(crate) use data::{answer_http, try_with_host, with_host};
pub(crate) use metrics::{Change, Definition, MetricKind};
pub(crate) use request::RequestData;
pub(crate) use sink::SinkData;
pub(crate) use state::StateValue;
