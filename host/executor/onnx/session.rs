//! ONNX models: their sessions of ONNX Runtime, and how calls run in them.
//!
//! A session runs one call at a time (its `Run` is not safe to share), so a model has several. A
//! run whose deadline passes ends at the next node of the graph; its worker is held until then.

use super::own_stack::{AbandonedRun, OwnStack};
use super::plain_message::plain_error;
use super::run_error::{Dimensions, run_error};
use super::source::{OnnxSource, load_error};
use super::unsafe_ops::UnsafeOps;
use super::values::{AlignedInputs, is_copied, metadata, output_tensor};
use super::{division, unload};
use crate::error::{Error, Result};
use crate::executor::callable::{BoxFuture, CallProfile, Callable};
use crate::executor::sink::Sink;
use crate::lock::LockUnpoisoned;
use crate::predict::{CallContext, Metadata, Origin, Tensor, format_shape};
use ort::ep::{CUDA, ExecutionProvider};
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session, SessionInputValue};
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// The device on which sessions run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    Cpu,
    Cuda(i32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// The settings of sessions. Executors can share a model that was loaded with equal settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionConfig {
    pub device: Device,
    /// The number of sessions of a model: its maximum number of concurrent calls. Each session has
    /// its own copy of the weights.
    pub sessions: usize,
    /// The number of threads that one run may use.
    pub intra_threads: usize,
}

pub(in crate::executor) struct OnnxModel {
    metadata: Metadata,
    dimensions: Dimensions,
    intra_threads: usize,
    unsafe_ops: UnsafeOps,
    /// Idle sessions, each with the stack that its runs use.
    sessions: Mutex<Vec<(Session, OwnStack)>>,
    free: Semaphore,
    /// The number of runs that the runtime ended with `std::terminate`, and the bytes of their
    /// inputs and of copies of these, which are never freed.
    abandoned: AtomicU32,
    abandoned_bytes: AtomicUsize,
}

/// The maximum number of abandoned runs of a model, and of bytes of their inputs. An abandoned run
/// never frees its memory.
const ABANDONED_MAX: u32 = 256;
const ABANDONED_BYTES_MAX: usize = 16 << 20;

impl OnnxModel {
    /// Creates the sessions.
    pub fn load(
        environment: &ort::environment::Environment,
        source: &OnnxSource,
        config: SessionConfig,
    ) -> Result<Self> {
        // Trims after a failed load, too.
        let _trimmed = Trimmed;
        check_device(config.device)?;
        let unsafe_ops = UnsafeOps::of(&source.bytes);
        if let Some((op, why)) = unsafe_ops.refused {
            return Err(Error::unsupported(format!(
                "its operator {op} is not supported, because that of ONNX Runtime {why}"
            )));
        }
        let sessions: Vec<(Session, OwnStack)> = (0..config.sessions.max(1))
            .map(|_| {
                let builder = with_device(config.device, builder(environment, config).map_err(load_error)?)?;
                let mut builder = source.external.apply_to(builder)?;
                let canceler = builder.canceler();
                // Takes effect at the next step of the load. Until then, nothing bounds its time;
                // nothing bounds its memory.
                let stop = move || drop(canceler.cancel());
                let mut stack = OwnStack::default();
                let load = || match stack.run(|| builder.commit_from_memory(&source.bytes))? {
                    Ok(loaded) => loaded.map_err(load_error),
                    Err(AbandonedRun) => Err(load_abandoned(source)),
                };
                let session = source.limit.run(stop, load)?;
                Ok((session, stack))
            })
            .collect::<Result<Vec<_>>>()?;
        if !source.is_readable {
            return Err(Error::unsupported(
                "ONNX Runtime loads it, but the host cannot read which files with external data it names; save it \
                 again with the onnx package",
            ));
        }
        let (first, _) = &sessions[0];
        let metadata = metadata(first)?;
        let optional = first.overridable_initializers();
        let required = first.inputs().iter().map(|input| (input.name(), input.dtype()));
        let inputs = required.chain(optional.iter().map(|input| (input.name(), input.dtype())));
        let dimensions = Dimensions::of(inputs);
        let intra_threads = config.intra_threads;
        Ok(OnnxModel {
            metadata,
            dimensions,
            intra_threads,
            unsafe_ops,
            free: Semaphore::new(sessions.len()),
            sessions: Mutex::new(sessions),
            abandoned: AtomicU32::new(0),
            abandoned_bytes: AtomicUsize::new(0),
        })
    }

    async fn run(&self, context: &Arc<CallContext>, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.check_safe(context, inputs)?;
        let permit = tokio::select! {
            biased;
            permit = self.free.acquire() => permit.expect("invariant: the semaphore is never closed"),
            () = context.cancellation.cancelled() => {
                return Err(context.check().expect_err("invariant: it was cancelled"));
            }
        };
        let session = self.lock().pop().expect("invariant: a permit stands for a session");
        // Returns the session also when a run panics. The permit is released after that.
        let mut lease = SessionLease { model: self, session: Some(session) };
        let (session, stack) = lease.session.as_mut().expect("invariant: leased until dropped");
        let outputs = self.run_on(session, stack, context, inputs);
        drop(lease);
        drop(permit);
        outputs
    }

    /// Refuses inputs that would end the process, and runs of a model with too many abandoned ones.
    fn check_safe(&self, context: &CallContext, inputs: &[Tensor]) -> Result<()> {
        if let Some(op) = self.unsafe_ops.needs_elements
            && let Some(input) = inputs.iter().find(|input| input.shape().contains(&0))
        {
            let message = format!(
                "model \"{}:{}\": input \"{}\" has the shape {}; the model has the operator {op}, which does not \
                 support a dimension of 0",
                context.model,
                context.version,
                input.name(),
                format_shape(input.shape())
            );
            return Err(Error::invalid(message).field(input.name()).graph_refusal());
        }
        let runs = self.abandoned.load(Ordering::Relaxed);
        if runs >= ABANDONED_MAX || self.abandoned_bytes.load(Ordering::Relaxed) >= ABANDONED_BYTES_MAX {
            return Err(Error::unavailable(format!(
                "model \"{}:{}\": ONNX Runtime aborted {runs} runs, whose memory stays allocated, so no more are \
                 started; reload the model, and do not send it the inputs that the log names",
                context.model, context.version
            )));
        }
        Ok(())
    }

    /// Counts a run that has ended with `std::terminate`, and returns its error.
    fn run_abandoned(&self, context: &CallContext, inputs: &[Tensor]) -> Error {
        let runs = self.abandoned.fetch_add(1, Ordering::Relaxed) + 1;
        let shapes: Vec<String> =
            inputs.iter().map(|input| format!("{} {}", input.name(), format_shape(input.shape()))).collect();
        let (model, version, shapes) = (&context.model, &context.version, shapes.join(", "));
        tracing::warn!(%model, %version, shapes, runs, "run aborted: ONNX Runtime called std::terminate");
        let copied = inputs.iter().filter(|input| is_copied(input)).map(|input| input.data().len()).sum();
        self.abandoned_bytes.fetch_add(copied, Ordering::Relaxed);
        if self.intra_threads > 1 {
            // Threads of the runtime may still read the inputs.
            self.abandoned_bytes.fetch_add(Tensor::bytes_kept(inputs), Ordering::Relaxed);
            std::mem::forget(inputs.to_vec());
        }
        let message = format!(
            "model \"{model}:{version}\": ONNX Runtime aborted the run: an operator of the graph does not support inputs of \
             these sizes ({shapes})"
        );
        Error::invalid(message).graph_refusal()
    }

    fn run_on(
        &self,
        session: &mut Session,
        stack: &mut OwnStack,
        context: &Arc<CallContext>,
        inputs: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        let aligned = AlignedInputs::of(inputs);
        let values = inputs
            .iter()
            .enumerate()
            .map(|(index, tensor)| Ok((tensor.name(), aligned.value(index, tensor)?)))
            .collect::<Result<Vec<(&str, SessionInputValue<'_>)>>>()?;
        let options = RunOptions::new().map_err(|error| Error::failed(plain_error(&error)))?;
        let options = Arc::new(options);
        let stop = Arc::clone(&options);
        let _stopped = context.cancellation.on_cancel(move || {
            if let Err(error) = stop.terminate() {
                tracing::warn!(%error, "cannot stop a run of ONNX Runtime");
            }
        });
        let zeros = division::zeros();
        let Ok(outputs) = stack.run(|| session.run_with_options(values, &*options))? else {
            std::mem::forget(Arc::clone(&options));
            std::mem::forget(aligned);
            return Err(self.run_abandoned(context, inputs));
        };
        let outputs = outputs.map_err(|error| {
            // A stopped run fails with "terminate flag". The context has the reason.
            let failed = || run_error(context, &self.dimensions, inputs, &error);
            context.check().err().unwrap_or_else(failed)
        })?;
        if zeros.have_changed(self.intra_threads) {
            return Err(division_by_zero(context));
        }
        self.metadata
            .outputs
            .iter()
            .zip(outputs.values())
            .map(|(spec, value)| Ok(output_tensor(spec, &value)?.made_by(Origin::Model)))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Session, OwnStack)>> {
        self.sessions.lock_unpoisoned()
    }
}

impl Drop for OnnxModel {
    fn drop(&mut self) {
        unload::free(std::mem::take(&mut *self.lock()));
    }
}

/// Trims the heap when dropped. Loading a model takes a multiple of the memory that it keeps.
struct Trimmed;

impl Drop for Trimmed {
    fn drop(&mut self) {
        unload::trim_soon();
    }
}

struct SessionLease<'a> {
    model: &'a OnnxModel,
    session: Option<(Session, OwnStack)>,
}

impl Drop for SessionLease<'_> {
    fn drop(&mut self) {
        self.model.lock().extend(self.session.take());
    }
}

impl Callable for OnnxModel {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn profile(&self) -> CallProfile {
        CallProfile::Blocking
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        _sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        Box::pin(async move { self.run(context, &inputs).await.map(Some) })
    }
}

fn builder(
    environment: &ort::environment::Environment,
    config: SessionConfig,
) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(environment)?
        .with_intra_threads(config.intra_threads)?
        .with_inter_threads(1)?
        // Spinning threads would take the cores that other requests need.
        .with_intra_op_spinning(false)?;
    Ok(builder)
}

/// Configures a session to run on a device.
fn with_device(device: Device, builder: SessionBuilder) -> Result<SessionBuilder> {
    let Device::Cuda(index) = device else { return Ok(builder) };
    let provider = CUDA::default().with_device_id(index).build().error_on_failure();
    builder.with_execution_providers([provider]).map_err(|error| {
        let text = error.to_string();
        Error::unavailable(format!(
            "device \"{device}\" cannot be used; choose one that nvidia-smi -L lists, with CUDA and cuDNN on the loader's \
             path (LD_LIBRARY_PATH), or device = \"cpu\": {}",
            plain_error(&text)
        ))
        .with_detail(text.clone())
    })
}

/// Fails if the device is not available. There is no silent fallback to the CPU.
fn check_device(device: Device) -> Result<()> {
    let Device::Cuda(_) = device else { return Ok(()) };
    match CUDA::is_available() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::unavailable(format!(
            "device \"{device}\": this build of ONNX Runtime has no CUDA; use the library of PyPI's \
             onnxruntime-gpu, or device = \"cpu\""
        ))),
        Err(error) => Err(Error::unavailable(format!("device \"{device}\": {}", plain_error(&error)))),
    }
}

/// Returns the error of a load that has ended with `std::terminate`. What it had allocated stays in
/// memory.
fn load_abandoned(source: &OnnxSource) -> Error {
    std::mem::forget(source.bytes.clone());
    Error::invalid(
        "ONNX Runtime aborted while loading it (std::terminate): a node of its graph has inputs of sizes or ranks that \
         its operator does not support",
    )
}

/// Returns the error of a run that has divided by zero. The result was replaced by 0, so the
/// outputs cannot be trusted.
fn division_by_zero(context: &CallContext) -> Error {
    let (model, version) = (&context.model, &context.version);
    Error::invalid(format!(
        "model \"{model}:{version}\": the graph divides an integer by zero for these inputs"
    ))
    .graph_refusal()
}
