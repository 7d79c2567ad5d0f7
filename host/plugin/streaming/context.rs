//! The data that the thread of a replica works with.

use super::replica::{QueuedCall, Replica};
use crate::error::Result;
use crate::plugin::bindings::streaming::StreamingModelPluginPre;
use crate::plugin::engine::Engine;
use crate::plugin::instance_pool::InstanceMetrics;
use crate::plugin::spec::PluginSpec;
use crate::plugin::store_data::StoreData;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// What all instances of a plugin share.
pub(super) struct Shared {
    pub engine: Arc<Engine>,
    pub spec: Arc<PluginSpec>,
    pub pre: StreamingModelPluginPre<StoreData>,
    pub metrics: InstanceMetrics,
}

/// A replica, for the code that runs on its thread.
#[derive(Clone)]
pub(super) struct ReplicaContext {
    pub shared: Arc<Shared>,
    pub replica: Arc<Replica>,
    pub index: usize,
    /// Starts another thread that takes calls from the queue. A function pointer, so that the event
    /// loop does not depend on the code that starts it.
    pub start_thread: fn(ReplicaContext, UnboundedReceiver<QueuedCall>) -> Result<()>,
}
