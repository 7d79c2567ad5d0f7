//! The bytes that the host holds for its clients: requests that are being received, requests at
//! work, answers that are being sent.
//!
//! All of them share one budget. A slow client holds its bytes longer than others. So if the budget
//! is used up, the transfer that would take longest to end is aborted in favor of a new one;
//! refusing the new one would let slow clients shut out the rest. A transfer below the minimum rate
//! is aborted at any time.
//!
//! Over HTTP, requests that arrive in one piece and answers up to 64 KiB are not counted: the limit
//! of connections bounds them. Over gRPC, where a connection has many calls, the same holds for
//! messages and answers up to 4 KiB.

mod abort;
mod budget;
mod pace;
mod reason;
mod receive;
mod send;
mod state;
mod transfer;

pub(super) use abort::Abort;
pub use budget::Transfers;
pub use receive::Receiving;
pub(super) use send::{Outgoing, PIECE_BYTES};
pub(super) use transfer::{Hold, Transfer};

#[cfg(test)]
mod tests;
