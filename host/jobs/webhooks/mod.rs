//! Webhooks: the host reports the end of a job to a URL.
//!
//! - `webhook` is what a job has, and `delivery` what the outbox of a store has.
//! - `message` is what is sent, and `signature` signs it.
//! - `attempt` sends a message, and decides what follows from the answer.
//! - `receivers` shares the connections among receivers.
//! - `dispatch` claims deliveries that are due, and starts their attempts.

mod attempt;
mod delivery;
mod dispatch;
mod message;
mod receivers;
mod signature;
mod webhook;

pub use delivery::{Delivery, DeliveryClaim, DeliveryOutcome, ReceiverCapacity, Settlement};
pub(super) use dispatch::{deliver, drained};
pub(super) use receivers::Receivers;
pub use webhook::{DeliveryState, DeliveryStatus, Webhook};
