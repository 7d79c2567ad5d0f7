//! Who made a tensor.

use std::sync::Arc;

/// Who made a tensor.
#[derive(Clone, Debug, Default)]
pub enum Origin {
    #[default]
    Unknown,
    /// The tensor came with the request and was not changed.
    Caller,
    /// An output of a model that was not changed.
    Model,
    Plugin(Arc<str>),
}
