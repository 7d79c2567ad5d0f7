//! The executor kind `custom`: a plugin in front of another executor.

mod custom_executor;
mod inner_model;

pub use custom_executor::{CustomConfig, CustomExecutor, OnFailure};
