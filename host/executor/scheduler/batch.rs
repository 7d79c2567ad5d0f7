//! Runs several calls of one model as one run: concatenates their rows, runs the model once, and
//! splits the outputs.
//!
//! Each call keeps its own preprocess and postprocess, deadline and answer. A call that fails
//! before the run fails alone. A run that fails is repeated for each call alone, so that only the
//! bad one fails. The queue decides which calls form a batch.

use super::metrics::BatchMetrics;
use crate::error::{Error, Result};
use crate::executor::batching::{Batching, request_rows};
use crate::executor::call::Call;
use crate::executor::callable::{self, CallProfile, Callable};
use crate::executor::runs::Runs;
use crate::executor::sink::Sink;
use crate::predict::{CallContext, Metadata, Payload, Response, Service, Tensor};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Fails if the model's inputs and outputs are not made of rows, or if its calls wait for other
/// models.
pub fn check_batching(batching: Batching, callable: &dyn Callable) -> Result<()> {
    if callable.profile() == CallProfile::Suspending {
        return Err(Error::invalid(format!(
            "max_batch_size is {}, but the plugin calls other models, separately for each request; \
             remove max_batch_size here, and set it for the models that it calls",
            batching.max_size
        )));
    }
    let metadata = callable.metadata();
    let inputs = metadata.inputs.iter().filter(|spec| !spec.optional).map(|spec| ("input", spec));
    let outputs = metadata.outputs.iter().map(|spec| ("output", spec));
    match inputs.chain(outputs).find(|(_, spec)| !spec.shape.has_free_rows()) {
        None => Ok(()),
        Some((what, spec)) => Err(Error::invalid(format!(
            "max_batch_size is {}, which needs a free first dimension (-1) of every input and output, but \
             {what} \"{}\" has shape {}; export the model with one, or remove max_batch_size",
            batching.max_size, spec.name, spec.shape
        ))),
    }
}

/// Returns true if two calls may share a run, as far as is known before preprocess.
pub(super) fn goes_with(a: &Call, b: &Call) -> bool {
    a.batching.is_some() && a.batching == b.batching && Arc::ptr_eq(&a.callable, &b.callable)
}

/// Returns the rows of a call, as far as they are known before preprocess.
pub(super) fn expected_rows(call: &Call) -> usize {
    request_rows(call.callable.metadata(), call.transformer.is_some(), &call.input)
}

/// Calls that a worker took together.
pub(super) struct Batch<'a> {
    pub members: Vec<Member>,
    pub callable: Arc<dyn Callable>,
    pub rows_max: usize,
    /// Workers of the executor.
    pub workers: usize,
    pub metrics: &'a BatchMetrics,
    /// Frees the slots of calls that are about to be answered.
    pub release: &'a dyn Fn(&[usize]),
    /// Called with the error of each call that fails.
    pub failed: &'a dyn Fn(&Error),
}

/// One call of a batch.
pub(super) struct Member {
    context: Arc<CallContext>,
    input: Option<Payload>,
    /// The model's inputs, after preprocess.
    inputs: Vec<Tensor>,
    /// `None` if its inputs cannot be concatenated with those of others.
    rows: Option<usize>,
    /// `None` once it is answered.
    sink: Option<Sink>,
}

impl Member {
    pub fn new(call: Call, sink: Sink) -> Self {
        Member {
            context: call.context,
            input: Some(call.input),
            inputs: Vec::new(),
            rows: None,
            sink: Some(sink),
        }
    }

    /// Returns true if its answer is the model's outputs, without postprocess.
    fn is_plain(&self) -> bool {
        self.sink.as_ref().is_none_or(|sink| sink.session.is_none())
    }

    fn fits(&self, other: &Member, reads_request: bool) -> bool {
        let same_request = || {
            self.context.parameters == other.context.parameters && self.context.note() == other.context.note()
        };
        self.inputs.len() == other.inputs.len()
            && self
                .inputs
                .iter()
                .all(|tensor| other.named(tensor).is_some_and(|their| their.stacks_on(tensor)))
            && (!reads_request || same_request())
    }

    /// Returns the input of the same name. Clients may send inputs in any order.
    fn named(&self, tensor: &Tensor) -> Option<&Tensor> {
        self.inputs.iter().find(|own| own.name() == tensor.name())
    }
}

/// The indices of members that share a run.
struct Group {
    indices: Vec<usize>,
    rows: usize,
}

impl Batch<'_> {
    /// Answers every member.
    pub async fn run(&mut self) {
        self.preprocess().await;
        for group in self.groups() {
            self.run_group(group.indices).await;
        }
    }

    /// Answers the members that a panic left unanswered.
    pub fn fail_rest(&mut self, error: impl Fn() -> Error) {
        for index in 0..self.members.len() {
            self.answer(index, Err(error()));
        }
    }

    fn answer(&mut self, index: usize, last: Result<Option<Response>>) {
        (self.release)(&[index]);
        self.finish(index, last);
    }

    /// Answers a member whose slot was freed before, so that a client that has its answer sees the
    /// slot free.
    fn finish(&mut self, index: usize, last: Result<Option<Response>>) {
        if let Some(sink) = self.members[index].sink.take() {
            last.as_ref().err().inspect(|error| (self.failed)(error));
            sink.finish(last);
        }
    }

    async fn preprocess(&mut self) {
        let mut kept = 0;
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            let (Some(sink), Some(input)) = (&mut member.sink, member.input.take()) else { continue };
            match sink.preprocess(input, self.callable.metadata()).await {
                Ok(inputs) => {
                    if let Some(session) = &mut sink.session {
                        if kept < session.reusable_max(self.workers) {
                            kept += 1;
                        } else {
                            session.release_instance();
                        }
                    }
                    member.rows = common_rows(&inputs, self.callable.metadata());
                    member.inputs = inputs;
                }
                Err(error) => self.answer(index, Err(error)),
            }
        }
    }

    /// Groups the members that can share a run: their tensors differ only in rows, and the rows of
    /// a group are limited.
    fn groups(&self) -> Vec<Group> {
        let reads_request = self.callable.reads_request();
        let mut groups: Vec<Group> = Vec::new();
        for (index, member) in self.members.iter().enumerate().filter(|(_, member)| member.sink.is_some()) {
            let rows = member.rows.unwrap_or(0);
            let open = groups.iter_mut().find(|group| {
                let first = &self.members[group.indices[0]];
                let has_room = group.rows + rows <= self.rows_max;
                has_room && member.rows.is_some() && first.rows.is_some() && first.fits(member, reads_request)
            });
            match open {
                Some(group) => {
                    group.indices.push(index);
                    group.rows += rows;
                }
                None => {
                    let mut indices = Vec::with_capacity(self.members.len() - index);
                    indices.push(index);
                    groups.push(Group { indices, rows });
                }
            }
        }
        groups
    }

    async fn run_group(&mut self, mut indices: Vec<usize>) {
        // Preprocess and the runs of other groups took time: members that were cancelled meanwhile
        // are dropped.
        let now = Instant::now();
        indices.retain(|&index| match self.members[index].context.check_at(now) {
            Ok(()) => true,
            Err(reason) => {
                self.answer(index, Err(reason));
                false
            }
        });
        if indices.is_empty() {
            return;
        }
        self.metrics.size.observe(indices.len() as f64);
        if let [index] = indices[..] {
            return self.run_alone(index).await;
        }
        match self.run_together(&indices, now).await {
            Ok(parts) => {
                let answering = Instant::now();
                let rows = self.count_run(&indices, answering - now);
                let runs = self.runs(&indices);
                // Members without postprocess are released together. The last member of all keeps
                // the worker busy until its own answer.
                let last = indices.last().copied();
                let early = |batch: &Self, index| Some(index) != last && batch.members[index].is_plain();
                let together: SmallVec<[usize; 32]> =
                    indices.iter().copied().filter(|&index| early(self, index)).collect();
                if !together.is_empty() {
                    (self.release)(&together);
                }
                let calls = indices.len();
                for (index, outputs) in indices.into_iter().zip(parts) {
                    if let Some(sink) = &mut self.members[index].sink {
                        sink.batch = Some((calls, rows));
                    }
                    let is_released = early(self, index);
                    let last = self.respond(index, outputs, answering).await;
                    if is_released { self.finish(index, last) } else { self.answer(index, last) }
                }
                if let Some(runs) = runs {
                    runs.record_output(rows, answering.elapsed());
                }
            }
            // A batch with one bad request costs one run, and one more for each of its requests.
            // The bad request costs the others time, but never their answers.
            Err(_) => {
                let stopped = |&index: &usize| self.members[index].context.check().is_err();
                if !indices.iter().all(stopped) {
                    self.metrics.reruns.inc();
                }
                for index in indices {
                    self.run_alone(index).await;
                }
            }
        }
    }

    /// Returns the counters for a run of these members: those of the first one.
    fn runs(&self, indices: &[usize]) -> Option<Arc<Runs>> {
        self.members[indices[0]].sink.as_ref()?.runs.clone()
    }

    /// Counts a run of these members and returns its rows. Called before any of them is answered,
    /// so that a client that has its answer sees the run counted.
    fn count_run(&self, indices: &[usize], infer: Duration) -> usize {
        let members = || indices.iter().map(|&index| &self.members[index]);
        let rows = members().filter_map(|member| member.rows).sum();
        // Preprocess runs one after another on this worker: the time of the last includes all
        // others.
        let input = members().filter_map(|member| Some(member.sink.as_ref()?.service.input)).max();
        let run = Service { input: input.unwrap_or_default(), infer, rows, ..Service::default() };
        self.runs(indices).inspect(|runs| runs.record(run));
        rows
    }

    async fn run_alone(&mut self, index: usize) {
        let member = &mut self.members[index];
        let inputs = std::mem::take(&mut member.inputs);
        let Some(sink) = &mut member.sink else { return };
        // Other members ran before it, so it may have been cancelled.
        let last = match member.context.check() {
            Ok(()) => callable::run(sink, &*self.callable, inputs).await,
            Err(reason) => Err(reason),
        };
        self.answer(index, last);
    }

    async fn respond(
        &mut self,
        index: usize,
        outputs: Vec<Tensor>,
        answering: Instant,
    ) -> Result<Option<Response>> {
        let member = &mut self.members[index];
        let Some(sink) = &mut member.sink else { return Ok(None) };
        member.context.check_at(answering)?;
        let now = if sink.session.is_some() { Instant::now() } else { answering };
        sink.respond_at(now, outputs).await.map(Some)
    }

    /// Runs the members together and returns the outputs of each.
    async fn run_together(&self, indices: &[usize], now: Instant) -> Result<Vec<Vec<Tensor>>> {
        let members = || indices.iter().map(|&index| &self.members[index]);
        let first = &self.members[indices[0]];
        let reads_request = self.callable.reads_request();
        // The run stops when all members are cancelled, and not before.
        let (context, _guards) = CallContext::joint(members().map(|member| &member.context), |context| {
            if reads_request {
                context.parameters.clone_from(&first.context.parameters);
                context.set_note(first.context.note());
            }
        });
        let stack = |tensor: &Tensor| Tensor::stacked(members().filter_map(|member| member.named(tensor)));
        let inputs = first.inputs.iter().map(stack).collect::<Result<Vec<_>>>()?;
        let rows: Vec<usize> = members().filter_map(|member| member.rows).collect();
        let mut sink = Sink::shared(&context, now);
        let outputs = self.callable.call(&context, inputs, &mut sink).await?;
        let parts = outputs
            .ok_or_else(|| Error::failed("the model returned no response to a batch"))
            .and_then(|outputs| cut(&outputs, &rows))
            .inspect_err(|error| self.warn(&context, error))?;
        if reads_request {
            members().for_each(|member| member.context.set_note(context.note()));
        }
        Ok(parts)
    }

    fn warn(&self, context: &CallContext, error: &Error) {
        if !self.metrics.warned.swap(true, Ordering::Relaxed) {
            let (model, version) = (&*context.model, &*context.version);
            tracing::warn!(
                model,
                version,
                %error,
                "batch not divisible into rows, so its requests run alone: remove max_batch_size"
            );
        }
    }
}

/// Returns the rows that all inputs have. `None` if they differ, or if an optional input has a
/// fixed first dimension.
fn common_rows(inputs: &[Tensor], metadata: &Metadata) -> Option<usize> {
    let rows = inputs.first()?.rows()?;
    let fixed = |tensor: &Tensor| {
        let mut optional = metadata.inputs.iter().filter(|spec| spec.optional);
        optional.any(|spec| *spec.name == *tensor.name() && !spec.shape.has_free_rows())
    };
    inputs.iter().all(|tensor| tensor.rows() == Some(rows) && !fixed(tensor)).then_some(rows)
}

/// Splits the outputs of a run into those of each member.
fn cut(outputs: &[Tensor], rows: &[usize]) -> Result<Vec<Vec<Tensor>>> {
    let mut parts: Vec<Vec<Tensor>> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for output in outputs {
        for (part, tensor) in parts.iter_mut().zip(output.cut(rows)?) {
            part.push(tensor);
        }
    }
    Ok(parts)
}
