//! Why a manifest has not become a plan.

use crate::policy::diagnostic::Diagnostics;

/// Why there is no plan.
pub enum Unplanned {
    /// The manifest or a file that it names has faults.
    Faulty(Box<Diagnostics>),
    /// A pinned file does not have its digest yet.
    Pending(Vec<String>),
}

impl Unplanned {
    /// Whether reading the same files may succeed later, because the cause is a shortage and not
    /// their content.
    pub fn is_transient(&self) -> bool {
        match self {
            Unplanned::Faulty(diagnostics) => diagnostics.faults.iter().any(|fault| fault.transient),
            Unplanned::Pending(_) => false,
        }
    }

    /// Returns one line for each fault.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Unplanned::Faulty(diagnostics) => diagnostics.lines(),
            Unplanned::Pending(files) => files.clone(),
        }
    }
}
