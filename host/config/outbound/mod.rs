//! Which HTTP servers a plugin may call, and with what limits. Makes no connections.

mod address;
mod allowed;
mod limits;
mod origin;

pub use allowed::Allowed;
pub use limits::OutboundLimits;
pub use origin::{Host, Origin};
