//! Whether the outputs of an earlier attempt can be used; see `reuse`.

/// Whether the outputs of an earlier attempt can stand for runs of the steps that depend on a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reuse {
    /// Nothing before them has run in this attempt.
    Possible,
    /// Something before them has run again. What they compute is kept for the next attempt.
    NextAttempt,
    /// Something before them runs in every attempt.
    Never,
}
