//! The role `streaming-model`: plugins whose calls run concurrently in one instance.
//!
//! Each replica is one long-lived instance with a thread that runs its event loop. Permits bound
//! the calls in its queue; responses go straight to the callers. When the instance is lost, the
//! thread replaces it immediately. This module does not know through which executor a call arrived.

mod active_call;
mod call_registry;
mod context;
mod driver;
mod event_loop;
mod health;
mod instance;
mod model;
pub(super) mod model_handles;
mod permit;
mod replica;
mod replica_thread;

pub(super) use active_call::ActiveCall;
pub(super) use call_registry::{CallRegistry, CallerState};
pub use health::ReplicaStatus;
pub use model::{EventLoopGuards, StreamingModel};
pub use permit::Permit;
