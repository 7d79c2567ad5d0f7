//! What a caller may be allowed to do.

/// What a caller may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Send requests to a model and get the answers.
    Predict,
    /// Submit jobs for a model, and see and end one's own.
    Jobs,
    /// See which models there are, their metadata and statistics.
    Read,
    /// Load and unload models.
    Load,
    /// Read metrics.
    Metrics,
    /// Everything under `/admin`, and the jobs of all.
    Admin,
}

impl Verb {
    pub const ALL: [Verb; 6] =
        [Verb::Predict, Verb::Jobs, Verb::Read, Verb::Load, Verb::Metrics, Verb::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Predict => "predict",
            Verb::Jobs => "jobs",
            Verb::Read => "read",
            Verb::Load => "load",
            Verb::Metrics => "metrics",
            Verb::Admin => "admin",
        }
    }

    /// Returns a mask with one bit for each verb.
    pub(super) fn bit(self) -> u8 {
        1 << self as u8
    }
}
