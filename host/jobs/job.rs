//! A job as a store keeps it: what was requested, and its status.
//!
//! Plain values. A store keeps them and `run` changes them; nothing here waits or reads a clock.

use super::step_summary::StepSummary;
use super::store_time::StoreTime;
use super::webhooks::{DeliveryStatus, Webhook};
use crate::error::{Error, did_you_mean};
use crate::policy::plan::ModelName;
use crate::predict::{Parameter, Parameters, Payload, Priority};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bytes that a job takes besides its input, result and errors.
const OVERHEAD_BYTES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Waits for a slot, for its executor to admit an attempt, or for the time it was submitted
    /// for.
    Pending,
    /// An attempt runs, or an earlier one still holds its worker.
    Running,
    Succeeded,
    Failed,
    Cancelled,
    /// All attempts timed out, or the total runtime has passed.
    Timeout,
}

impl State {
    pub const ALL: [State; 6] =
        [State::Pending, State::Running, State::Succeeded, State::Failed, State::Cancelled, State::Timeout];

    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Running => "running",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Timeout => "timeout",
        }
    }

    pub fn parse(text: &str) -> Result<Self, Error> {
        State::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let names = State::ALL.map(State::as_str);
            let text: String = text.chars().take(80).collect();
            let hint = did_you_mean(&text, names);
            Error::invalid(format!("no state \"{text}\"{hint}; states: {}", names.join(", "))).field("state")
        })
    }

    /// Returns true for the states that a job never leaves.
    pub fn is_final(self) -> bool {
        !matches!(self, State::Pending | State::Running)
    }
}

/// What a job may spend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budgets {
    pub max_attempts: u32,
    /// The timeout of one attempt. Without it, the timeout of the model or of the server applies.
    pub max_runtime: Option<Duration>,
    /// The time from submission to the end.
    pub max_total_runtime: Duration,
}

/// What was requested. Never changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Who may see the job. Empty for everybody.
    pub owner: Arc<str>,
    /// On whose account it runs. Empty where callers are not told apart.
    pub tenant: Arc<str>,
    /// Which of its tenant's jobs come first.
    pub priority: Priority,
    /// The version is chosen at submission and kept.
    pub model: ModelName,
    pub parameters: Parameters,
    pub budgets: Budgets,
    /// The time of the wall clock, which is only shown.
    pub created_at: SystemTime,
    /// The id of the request that submitted the job.
    pub request_id: Arc<str>,
    /// The job whose work this one repeats.
    pub retry_of: Option<Arc<str>>,
    /// Describes the form of the result to the interface that the job was submitted over. `None`
    /// for the plain interface.
    pub reply: Option<Arc<str>>,
    /// Where the end of the job is reported.
    pub webhook: Option<Webhook>,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub id: Arc<str>,
    /// The store's number of the job: larger than that of every earlier job.
    pub number: u64,
    /// 1 when the job is created; each change of the record increments it.
    pub revision: u64,
    /// How many times the job was claimed. Identifies the claim that may renew its lease.
    pub fence: u64,
    pub spec: Arc<Spec>,
    pub status: Status,
    /// The progress of the delivery to the webhook, once an attempt has been made.
    pub delivery: Option<Box<DeliveryStatus>>,
    /// Bytes of the input, while the job has one.
    pub input_bytes: usize,
    /// Bytes of the result, once the job has one.
    pub result_bytes: usize,
    /// Bytes of the outputs of steps that are kept for the next attempt.
    pub kept_bytes: usize,
}

/// The progress of a job.
#[derive(Clone, Debug)]
pub struct Status {
    pub state: State,
    pub started_at: Option<SystemTime>,
    pub ended_at: Option<SystemTime>,
    /// When a pending job may be claimed.
    pub run_at: StoreTime,
    /// When the total runtime has passed.
    pub deadline: StoreTime,
    /// When the job may be forgotten. Set when the job ends.
    pub expires: Option<StoreTime>,
    pub attempts: Vec<Attempt>,
    /// How many attempts were not admitted. Such attempts are not in `attempts`.
    pub refusals: u64,
    pub last_refusal: Option<Error>,
    /// How many attempts ended because the process of the host did.
    pub interruptions: u32,
    pub error: Option<Error>,
    /// The steps of the last attempt, once it has ended, if the model is a pipeline.
    pub steps: Vec<StepSummary>,
}

#[derive(Clone, Debug)]
pub struct Attempt {
    /// The generation of the policy that the attempt used. Each process counts from 1.
    pub generation: u64,
    /// The digest of that policy, which is the same in each process.
    pub policy: Arc<str>,
    pub started_at: SystemTime,
    /// When the work released its worker. This is later than its deadline if the work did not stop
    /// immediately.
    pub ended_at: Option<SystemTime>,
    /// `None` while the attempt runs.
    pub outcome: Option<AttemptOutcome>,
    pub error: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    Succeeded,
    Failed,
    Timeout,
    Cancelled,
    /// The host ended during the attempt.
    Interrupted,
}

impl AttemptOutcome {
    pub const ALL: [AttemptOutcome; 5] = [
        AttemptOutcome::Succeeded,
        AttemptOutcome::Failed,
        AttemptOutcome::Timeout,
        AttemptOutcome::Cancelled,
        AttemptOutcome::Interrupted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            AttemptOutcome::Succeeded => "succeeded",
            AttemptOutcome::Failed => "failed",
            AttemptOutcome::Timeout => "timeout",
            AttemptOutcome::Cancelled => "cancelled",
            AttemptOutcome::Interrupted => "interrupted",
        }
    }
}

/// What an attempt records when it begins.
#[derive(Clone, Debug)]
pub struct AttemptStart {
    pub generation: u64,
    pub policy: Arc<str>,
    pub now: SystemTime,
}

/// How a job ends.
#[derive(Clone, Debug)]
pub enum End {
    Succeeded(Payload),
    Failed(Error),
    Cancelled(Error),
    /// Cancelled because the host stops.
    Stopped(Error),
    Timeout(Error),
}

impl End {
    /// The end of jobs that have not ended when the host does.
    pub fn stopping() -> Self {
        End::Stopped(Error::cancelled("the host stopped before the job had ended"))
    }
}

impl Job {
    /// Returns when the job was submitted.
    pub fn submitted(&self) -> StoreTime {
        let total = u64::try_from(self.spec.budgets.max_total_runtime.as_millis()).unwrap_or(u64::MAX);
        StoreTime(self.status.deadline.0.saturating_sub(total))
    }

    /// Returns the bytes that the job takes in a store.
    pub fn bytes(&self) -> usize {
        let errors = self.status.attempts.iter().filter_map(|attempt| attempt.error.as_ref());
        let errors = errors.chain(&self.status.error).chain(&self.status.last_refusal);
        let parameters = self.spec.parameters.iter().map(|(name, value)| match value {
            Parameter::Text(text) => name.len() + text.len(),
            _ => name.len() + size_of::<Parameter>(),
        });
        let delivery_error = self.delivery.as_ref().and_then(|delivery| delivery.last_error.as_ref());
        OVERHEAD_BYTES
            + self.spec.webhook.as_ref().map_or(0, Webhook::bytes)
            + delivery_error.map_or(0, |error| error.len())
            + self.input_bytes
            + self.result_bytes
            + self.kept_bytes
            + self.status.steps.iter().map(|step| size_of::<StepSummary>() + step.step.len()).sum::<usize>()
            + self.status.attempts.len() * size_of::<Attempt>()
            + errors.map(|error| error.message().len()).sum::<usize>()
            + parameters.sum::<usize>()
            + self.spec.reply.as_ref().map_or(0, |reply| reply.len())
    }
}

impl Status {
    pub fn new(run_at: StoreTime, deadline: StoreTime) -> Self {
        Status {
            state: State::Pending,
            started_at: None,
            ended_at: None,
            run_at,
            deadline,
            expires: None,
            attempts: Vec::new(),
            refusals: 0,
            last_refusal: None,
            interruptions: 0,
            error: None,
            steps: Vec::new(),
        }
    }

    /// Begins an attempt.
    pub fn begin(&mut self, by: &AttemptStart) {
        let AttemptStart { generation, policy, now } = by;
        self.state = State::Running;
        self.started_at.get_or_insert(*now);
        self.steps.clear();
        self.attempts.push(Attempt {
            generation: *generation,
            policy: Arc::clone(policy),
            started_at: *now,
            ended_at: None,
            outcome: None,
            error: None,
        });
    }

    /// Records the policy that the running attempt uses.
    pub fn use_policy(&mut self, generation: u64, digest: &str) {
        if let Some(attempt) = self.attempts.last_mut().filter(|attempt| attempt.generation != generation) {
            attempt.generation = generation;
            attempt.policy = digest.into();
        }
    }

    /// Removes the attempt that has just begun, because it was not admitted. The job may be claimed
    /// again at `run_at`.
    pub fn refuse(&mut self, error: &Error, run_at: StoreTime) {
        self.state = State::Pending;
        self.run_at = run_at;
        self.attempts.pop();
        if self.attempts.is_empty() {
            self.started_at = None;
        }
        self.refusals += 1;
        self.last_refusal = Some(without_detail(error));
    }

    /// Records the outcome of the running attempt. The job may go on.
    pub fn answer(&mut self, outcome: AttemptOutcome, error: Option<&Error>) {
        if let Some(attempt) = self.attempts.last_mut().filter(|attempt| attempt.outcome.is_none()) {
            attempt.outcome = Some(outcome);
            attempt.error = error.map(without_detail);
        }
    }

    /// Records that the work of the last attempt has released its worker.
    pub fn release(&mut self, now: SystemTime) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended_at.get_or_insert(now);
        }
    }

    /// Returns true if the last attempt may still hold a worker.
    pub fn is_held(&self) -> bool {
        self.attempts.last().is_some_and(|attempt| attempt.ended_at.is_none())
    }

    /// Records that the host ended during the attempt, and makes the job pending again.
    pub fn interrupt(&mut self, why: &Error, now: SystemTime, run_at: StoreTime) {
        self.answer(AttemptOutcome::Interrupted, Some(why));
        self.release(now);
        self.state = State::Pending;
        self.run_at = run_at;
    }

    /// Returns how many attempts count towards the budget: those that the host did not interrupt.
    pub fn attempts_made(&self) -> usize {
        let interrupted = |attempt: &&Attempt| attempt.outcome != Some(AttemptOutcome::Interrupted);
        self.attempts.iter().filter(interrupted).count()
    }

    /// Ends the job, and the attempt that has no outcome yet.
    pub fn end(&mut self, end: &End, now: SystemTime, expires: StoreTime) {
        let (state, outcome) = match end {
            End::Succeeded(_) => (State::Succeeded, AttemptOutcome::Succeeded),
            End::Failed(_) => (State::Failed, AttemptOutcome::Failed),
            End::Cancelled(_) | End::Stopped(_) => (State::Cancelled, AttemptOutcome::Cancelled),
            End::Timeout(_) => (State::Timeout, AttemptOutcome::Timeout),
        };
        match end {
            End::Succeeded(_) => self.answer(outcome, None),
            End::Failed(error) | End::Cancelled(error) | End::Stopped(error) | End::Timeout(error) => {
                self.answer(outcome, Some(error));
                self.error = Some(without_detail(error));
            }
        }
        self.state = state;
        self.ended_at = Some(now);
        self.expires = Some(expires);
    }
}

/// Drops the error's detail, which is for the log: a job keeps only what its caller may see.
fn without_detail(error: &Error) -> Error {
    let mut kept = Error::new(error.kind(), error.message());
    if let Some(field) = error.field_name() {
        kept = kept.field(field);
    }
    if let Some(model) = error.model_name() {
        kept = kept.model(model);
    }
    if let Some(step) = error.step_name() {
        kept = kept.step(step);
    }
    match error.plugin_name() {
        Some(plugin) => kept.plugin(plugin),
        None => kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status::new(StoreTime(0), StoreTime(1000))
    }

    fn start(now: SystemTime) -> AttemptStart {
        AttemptStart { generation: 1, policy: "digest".into(), now }
    }

    #[test]
    fn a_refused_attempt_leaves_only_its_reason() {
        let (mut status, now) = (status(), SystemTime::now());
        status.begin(&start(now));
        status.refuse(&Error::overloaded("full").with_detail("backtrace"), StoreTime(7));
        assert_eq!((status.state, status.attempts.len(), status.refusals), (State::Pending, 0, 1));
        assert!(status.started_at.is_none());
        let refusal = status.last_refusal.unwrap();
        assert_eq!((refusal.message(), refusal.detail()), ("full", None));
    }

    #[test]
    fn the_end_of_a_job_is_the_end_of_the_attempt_that_runs_and_of_no_other() {
        let (mut status, now) = (status(), SystemTime::now());
        status.begin(&start(now));
        status.answer(AttemptOutcome::Timeout, Some(&Error::deadline("late")));
        status.release(now);
        status.begin(&start(now));
        assert!(status.is_held());
        status.end(&End::Cancelled(Error::cancelled("enough")), now, StoreTime(5));
        let outcomes: Vec<_> = status.attempts.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, [Some(AttemptOutcome::Timeout), Some(AttemptOutcome::Cancelled)]);
        assert!(status.is_held(), "its worker may not know yet");
        assert_eq!(status.expires, Some(StoreTime(5)));
    }

    #[test]
    fn states_have_names() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()).unwrap(), state);
        }
        let error = State::parse("suceeded").unwrap_err();
        assert!(error.message().contains("did you mean \"succeeded\"?"), "{error}");
    }
}
