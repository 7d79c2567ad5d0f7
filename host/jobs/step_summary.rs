//! What a job shows of a step of its pipeline.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Has not begun. In a job that has ended: was not needed, or the job ended before.
    Pending,
    Running,
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
}

impl StepState {
    pub const ALL: [StepState; 6] = [
        StepState::Pending,
        StepState::Running,
        StepState::Succeeded,
        StepState::Failed,
        StepState::Skipped,
        StepState::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            StepState::Pending => "pending",
            StepState::Running => "running",
            StepState::Succeeded => "succeeded",
            StepState::Failed => "failed",
            StepState::Skipped => "skipped",
            StepState::Cancelled => "cancelled",
        }
    }
}

/// What a step has done in one attempt, over all its rows and items.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSummary {
    /// The pipeline and the step, such as `scoring.big`.
    pub step: String,
    pub state: StepState,
    /// How often the step has run to its end.
    pub runs: u64,
    /// How often the outputs of an earlier attempt stood for a run.
    pub reused: u64,
    /// The time of all runs together, without `queue`.
    pub time: Duration,
    /// The time for which runs waited for capacity.
    pub queue: Duration,
}
