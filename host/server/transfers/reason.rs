//! The direction of a transfer, and the reasons for which the host aborts one.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Answer,
}

impl Direction {
    /// Returns the label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Request => "request",
            Direction::Answer => "answer",
        }
    }
}

/// Why the host aborts a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A request arrives more slowly than `min_bytes_per_s`.
    Slow,
    /// The client has read nothing of an answer for `write_timeout_ms`.
    Stalled,
    /// The budget is used up, and this transfer would take longest to end.
    Limit,
}

impl Reason {
    pub const ALL: [Reason; 3] = [Reason::Slow, Reason::Stalled, Reason::Limit];

    /// Returns the label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Slow => "slow",
            Reason::Stalled => "stalled",
            Reason::Limit => "limit",
        }
    }
}
