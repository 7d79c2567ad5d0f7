//! Several calls of one model in one run of it: put together by rows, run once, cut apart again.
//!
//! Each call keeps what is its own: pre- and postprocess, deadline, answer. A call that fails before the run
//! fails alone; a run that fails is repeated for each call alone, so that only the bad one fails. Which calls
//! come together is the queue's business.

use super::metrics::BatchMetrics;
use crate::executor::batching::{Batching, rows};
use crate::executor::call::Call;
use crate::executor::callable::{self, CallProfile, Callable};
use crate::executor::runs::Runs;
use crate::executor::sink::Sink;
use crate::error::{Error, Result};
use crate::predict::{CallContext, Metadata, Payload, Response, Service, Tensor, format_shape};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{Ordering};
use std::time::{Duration, Instant};

/// Refuses a model whose inputs and outputs are not made of rows, and one whose calls wait for other models.
pub fn check_batching(batching: Batching, callable: &dyn Callable) -> Result<()> {
    if callable.profile() == CallProfile::Suspending {
        return Err(Error::invalid(format!(
            "max_batch_size is {}, but the plugin calls other models, each request for itself; take \
             max_batch_size away here, and give one to the models that it calls",
            batching.max_size
        )));
    }
    let metadata = callable.metadata();
    let inputs = metadata.inputs.iter().filter(|spec| !spec.optional).map(|spec| ("input", spec));
    let outputs = metadata.outputs.iter().map(|spec| ("output", spec));
    match inputs.chain(outputs).find(|(_, spec)| spec.shape.first() != Some(&-1)) {
        None => Ok(()),
        Some((what, spec)) => Err(Error::invalid(format!(
            "max_batch_size is {}, which needs a free first dimension (-1) of every input and output, but \
             {what} \"{}\" has shape {}; export the model with one, or take max_batch_size away",
            batching.max_size,
            spec.name,
            format_shape(&spec.shape)
        ))),
    }
}

/// Whether two calls may share a run, as far as is known before they are preprocessed.
pub(super) fn goes_with(a: &Call, b: &Call) -> bool {
    a.batching.is_some() && a.batching == b.batching && Arc::ptr_eq(&a.callable, &b.callable)
}

/// The rows of a call whose input is the model's; of others one is expected.
pub(super) fn expected_rows(call: &Call) -> usize {
    match (&call.transformer, &call.input) {
        (None, Payload::Tensors(inputs)) => rows(inputs),
        _ => 1,
    }
}

/// Calls that a worker has taken together.
pub(super) struct Batch<'a> {
    pub members: Vec<Member>,
    pub callable: Arc<dyn Callable>,
    pub rows_max: usize,
    /// Workers of the executor.
    pub workers: usize,
    pub metrics: &'a BatchMetrics,
    /// Frees the places of calls that are about to have their answer.
    pub leave: &'a dyn Fn(&[usize]),
    /// Hears why a call has none.
    pub failed: &'a dyn Fn(&Error),
}

/// One call of a batch.
pub(super) struct Member {
    context: Arc<CallContext>,
    input: Option<Payload>,
    /// Preprocessed.
    inputs: Vec<Tensor>,
    /// None if its inputs cannot be put together with others.
    rows: Option<usize>,
    /// None once it has its answer.
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

    /// Whether its answer is what the model gave.
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

    /// The input of the same name. Callers may send them in any order.
    fn named(&self, tensor: &Tensor) -> Option<&Tensor> {
        self.inputs.iter().find(|own| own.name() == tensor.name())
    }
}

/// Places of members that share a run.
struct Group {
    places: Vec<usize>,
    rows: usize,
}

impl Batch<'_> {
    /// Answers every member.
    pub async fn run(&mut self) {
        self.preprocess().await;
        for group in self.groups() {
            self.run_group(group.places).await;
        }
    }

    /// For what a panic has left unanswered.
    pub fn fail_rest(&mut self, error: impl Fn() -> Error) {
        for place in 0..self.members.len() {
            self.answer(place, Err(error()));
        }
    }

    fn answer(&mut self, place: usize, last: Result<Option<Response>>) {
        (self.leave)(&[place]);
        self.finish(place, last);
    }

    /// For one whose place is free: whoever asks after its answer sees it free.
    fn finish(&mut self, place: usize, last: Result<Option<Response>>) {
        if let Some(sink) = self.members[place].sink.take() {
            last.as_ref().err().inspect(|error| (self.failed)(error));
            sink.finish(last);
        }
    }

    async fn preprocess(&mut self) {
        let mut kept = 0;
        for place in 0..self.members.len() {
            let member = &mut self.members[place];
            let (Some(sink), Some(input)) = (&mut member.sink, member.input.take()) else { continue };
            match sink.preprocess(input, self.callable.metadata()).await {
                Ok(inputs) => {
                    if let Some(session) = &mut sink.session {
                        if kept < session.reusable_max(self.workers) {
                            kept += 1
                        } else {
                            session.release_instance()
                        }
                    }
                    member.rows = common_rows(&inputs, self.callable.metadata());
                    member.inputs = inputs;
                }
                Err(error) => self.answer(place, Err(error)),
            }
        }
    }

    /// Who runs with whom: the same tensors but for their rows, and no more rows than allowed.
    fn groups(&self) -> Vec<Group> {
        let reads_request = self.callable.reads_request();
        let mut groups: Vec<Group> = Vec::new();
        for (place, member) in self.members.iter().enumerate().filter(|(_, member)| member.sink.is_some()) {
            let rows = member.rows.unwrap_or(0);
            let open = groups.iter_mut().find(|group| {
                let first = &self.members[group.places[0]];
                let has_room = group.rows + rows <= self.rows_max;
                has_room && member.rows.is_some() && first.rows.is_some() && first.fits(member, reads_request)
            });
            match open {
                Some(group) => {
                    group.places.push(place);
                    group.rows += rows;
                }
                None => {
                    let mut places = Vec::with_capacity(self.members.len() - place);
                    places.push(place);
                    groups.push(Group { places, rows });
                }
            }
        }
        groups
    }

    async fn run_group(&mut self, mut places: Vec<usize>) {
        // Preprocess of the others, or another group, took its time: who has left meanwhile is not computed.
        let now = Instant::now();
        places.retain(|&place| match self.members[place].context.check_at(now) {
            Ok(()) => true,
            Err(reason) => {
                self.answer(place, Err(reason));
                false
            }
        });
        if places.is_empty() {
            return;
        }
        self.metrics.size.observe(places.len() as f64);
        if let [place] = places[..] {
            return self.run_alone(place).await;
        }
        match self.run_together(&places, now).await {
            Ok(parts) => {
                let answering = Instant::now();
                let rows = self.count_run(&places, answering - now);
                let runs = self.runs(&places);
                // Those that have no part of the work left leave together, and the worker with the last of all.
                let last = places.last().copied();
                let early = |batch: &Self, place| Some(place) != last && batch.members[place].is_plain();
                let together: SmallVec<[usize; 32]> =
                    places.iter().copied().filter(|&place| early(self, place)).collect();
                if !together.is_empty() {
                    (self.leave)(&together);
                }
                for (place, outputs) in places.into_iter().zip(parts) {
                    let has_left = early(self, place);
                    let last = self.respond(place, outputs, answering).await;
                    if has_left { self.finish(place, last) } else { self.answer(place, last) }
                }
                if let Some(runs) = runs {
                    runs.record_output(rows, answering.elapsed());
                }
            }
            // A batch with one bad request costs one run and one more for each of its requests: the price of
            // a bad request is paid by those beside it in time, never in answers.
            Err(_) => {
                let stopped = |&place: &usize| self.members[place].context.check().is_err();
                if !places.iter().all(stopped) {
                    self.metrics.reruns.inc();
                }
                for place in places {
                    self.run_alone(place).await;
                }
            }
        }
    }

    /// Where a run of these is counted: with the first of them.
    fn runs(&self, places: &[usize]) -> Option<Arc<Runs>> {
        self.members[places[0]].sink.as_ref()?.runs.clone()
    }

    /// Counts a run of these and gives its rows. Nobody has an answer yet who could ask for the count.
    fn count_run(&self, places: &[usize], infer: Duration) -> usize {
        let members = || places.iter().map(|&place| &self.members[place]);
        let rows = members().filter_map(|member| member.rows).sum();
        // One after the other on this worker: the last one has waited for all.
        let input = members().filter_map(|member| Some(member.sink.as_ref()?.service.input)).max();
        let run = Service { input: input.unwrap_or_default(), infer, output: Duration::ZERO, rows };
        self.runs(places).inspect(|runs| runs.record(run));
        rows
    }

    async fn run_alone(&mut self, place: usize) {
        let member = &mut self.members[place];
        let inputs = std::mem::take(&mut member.inputs);
        let Some(sink) = &mut member.sink else { return };
        // Others have run before it.
        let last = match member.context.check() {
            Ok(()) => callable::run(sink, &*self.callable, inputs).await,
            Err(reason) => Err(reason),
        };
        self.answer(place, last);
    }

    async fn respond(
        &mut self,
        place: usize,
        outputs: Vec<Tensor>,
        answering: Instant,
    ) -> Result<Option<Response>> {
        let member = &mut self.members[place];
        let Some(sink) = &mut member.sink else { return Ok(None) };
        member.context.check_at(answering)?;
        let now = if sink.session.is_some() { Instant::now() } else { answering };
        sink.respond_at(now, outputs).await.map(Some)
    }

    /// The outputs of each.
    async fn run_together(&self, places: &[usize], now: Instant) -> Result<Vec<Vec<Tensor>>> {
        let members = || places.iter().map(|&place| &self.members[place]);
        let first = &self.members[places[0]];
        let reads_request = self.callable.reads_request();
        // The run stops when nobody waits for it any more, and not before.
        let (context, _leaving) = CallContext::joint(members().map(|member| &member.context), |context| {
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
            .ok_or_else(|| Error::failed("the model gave no response to a batch"))
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
                "a batch does not come out in rows, so its requests run alone: take max_batch_size away"
            );
        }
    }
}

/// The rows that all inputs have. None if they differ, or if one has a first dimension of its own.
fn common_rows(inputs: &[Tensor], metadata: &Metadata) -> Option<usize> {
    let rows = inputs.first()?.rows()?;
    let fixed = |tensor: &Tensor| {
        let mut optional = metadata.inputs.iter().filter(|spec| spec.optional);
        optional.any(|spec| *spec.name == *tensor.name() && spec.shape.first() != Some(&-1))
    };
    inputs.iter().all(|tensor| tensor.rows() == Some(rows) && !fixed(tensor)).then_some(rows)
}

/// From the outputs of all to those of each.
fn cut(outputs: &[Tensor], rows: &[usize]) -> Result<Vec<Vec<Tensor>>> {
    let mut parts: Vec<Vec<Tensor>> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for output in outputs {
        for (part, tensor) in parts.iter_mut().zip(output.cut(rows)?) {
            part.push(tensor);
        }
    }
    Ok(parts)
}
