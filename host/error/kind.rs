//! Kinds of errors, and who chose them.

/// What went wrong, with the names of the plugin contract (`wit/hostler.wit`, `error-kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    InvalidInput,
    NotFound,
    Unsupported,
    TooLarge,
    Overloaded,
    Unavailable,
    Deadline,
    Cancelled,
    Failed,
    /// The request conflicts with the current state. Only the host returns it; guests see `Failed`.
    Conflict,
    /// The caller is not allowed to do this. Only the host returns it, never a plugin.
    Forbidden,
    /// The caller has not shown who it is, or what it has shown is not valid. Only the host returns
    /// it, never a plugin.
    Unauthenticated,
}

impl Kind {
    pub const ALL: [Kind; 12] = [
        Kind::InvalidInput,
        Kind::NotFound,
        Kind::Unsupported,
        Kind::TooLarge,
        Kind::Overloaded,
        Kind::Unavailable,
        Kind::Deadline,
        Kind::Cancelled,
        Kind::Failed,
        Kind::Conflict,
        Kind::Forbidden,
        Kind::Unauthenticated,
    ];

    /// Returns true if the kind says that the request is wrong, not what processed it.
    pub fn is_about_request(self) -> bool {
        matches!(self, Kind::InvalidInput | Kind::NotFound | Kind::Unsupported | Kind::TooLarge)
    }

    /// Returns the name in answers, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::InvalidInput => "invalid_input",
            Kind::NotFound => "not_found",
            Kind::Unsupported => "unsupported",
            Kind::TooLarge => "too_large",
            Kind::Overloaded => "overloaded",
            Kind::Unavailable => "unavailable",
            Kind::Deadline => "deadline",
            Kind::Cancelled => "cancelled",
            Kind::Failed => "failed",
            Kind::Conflict => "conflict",
            Kind::Forbidden => "forbidden",
            Kind::Unauthenticated => "unauthenticated",
        }
    }
}

/// Who chose the kind of an error, and about what. Decides how an error is reported that a plugin
/// returns, and which errors a rollout counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultOwner {
    /// The host, about what it was asked to do.
    #[default]
    Host,
    /// The host, about a call that no plugin should make, whatever the request is.
    Misuse,
    /// The host, about data that came from the caller unchanged.
    Caller,
    /// The host, about tensors that a plugin made; the error names the plugin.
    Maker,
    /// A plugin.
    Plugin,
}
