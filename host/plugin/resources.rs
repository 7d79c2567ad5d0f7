//! The host types behind the handles that guests hold, except tensors. Plain data: the host calls
//! on them are in [`host_calls`](super::host_calls).

use crate::metrics::Family;
use std::sync::Arc;

/// A request of the call in progress. The number of the handle is its index in the batch, or 0
/// without a batch; in a streaming model it is the key of the call.
pub struct Request;

/// A model that the guest may call. The number of the handle is the key in
/// `InvocationTable::targets`.
pub struct CallableHandle;

/// A call in flight. The number of the handle is the key in `InvocationTable::invocations`.
pub struct Invocation;

/// Where the responses to a request go. The number of the handle is the key of the call.
pub struct Sink;

/// A counter that the guest has defined.
pub struct Counter(pub Arc<Family>);

pub struct Gauge(pub Arc<Family>);

pub struct Histogram(pub Arc<Family>);
