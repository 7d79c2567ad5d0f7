//! Who may do what: the names of callers, the rules, and the files that both are read from.
//!
//! Without a file of rules everything is allowed. With one, a caller may do what a rule says, and
//! nothing else. The rules apply to all policies at once: they are no part of a policy, and are
//! neither rolled out nor rolled back with one.

#[allow(clippy::module_inception, reason = "each file is named after its type")]
mod access;
mod caller;
mod keys;
mod names;
mod requester;
mod ring_provider;
mod rules;
mod rules_file;
mod source;
mod tokens;
mod verb;
mod watch;

pub use access::{Access, Presented};
pub use caller::{Caller, CallerMemo};
pub use keys::{ApiKey, KEY_PREFIX};
pub use names::ANONYMOUS;
pub use requester::Requester;
pub use rules_file::check;
pub use verb::Verb;
pub use watch::watch;
