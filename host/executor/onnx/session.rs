//! ONNX models: sessions of ONNX Runtime, and tensors in and out of them.
//!
//! A session runs one call at a time (its `Run` is not safe to share), so a model has several. A run ends
//! at its deadline at the next node of the graph; until then its worker is held.

use super::source::load_error;
use super::own_stack::{AbandonedRun, OwnStack};
use super::run_error::{Dimensions, run_error};
use super::unsafe_ops::UnsafeOps;
use super::source::OnnxSource;
use super::{division, strings, unload};
use crate::executor::callable::{BoxFuture, CallProfile, Callable};
use crate::executor::sink::Sink;
use crate::error::{Error, Result};
use crate::predict::{
    CallContext, Datatype, Metadata, Origin, Shape, Tensor, TensorSpec, element_count, format_shape,
};
use bytes::Bytes;
use ort::ep::{CUDA, ExecutionProvider};
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// Where sessions run.
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

/// How sessions are made. Models loaded with equal settings can be shared between executors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionConfig {
    pub device: Device,
    /// Sessions of one model: calls of it that run at once. Each has its own copy of the weights.
    pub sessions: usize,
    /// Threads that one run may use.
    pub intra_threads: usize,
}

pub(in crate::executor) struct OnnxModel {
    metadata: Metadata,
    dimensions: Dimensions,
    intra_threads: usize,
    unsafe_ops: UnsafeOps,
    /// Each with the stack that its runs use.
    sessions: Mutex<Vec<(Session, OwnStack)>>,
    free: Semaphore,
    /// Runs that the runtime ended with `std::terminate`, and the bytes of their inputs that are kept for ever.
    given_up: AtomicU32,
    given_up_bytes: AtomicUsize,
}

/// Each run that is given up keeps memory for ever, so a model has no more of them than this.
const GIVEN_UP_MAX: u32 = 256;
const GIVEN_UP_BYTES_MAX: usize = 16 << 20;

impl OnnxModel {
    /// Makes the sessions.
    pub fn load(
        environment: &ort::environment::Environment,
        source: &OnnxSource,
        config: SessionConfig,
    ) -> Result<Self> {
        // Also what is given up half-way is freed.
        let _trimmed = Trimmed;
        check_device(config.device)?;
        let unsafe_ops = UnsafeOps::of(&source.bytes);
        if let Some((op, why)) = unsafe_ops.refused {
            return Err(Error::unsupported(format!(
                "its operator {op} is not run: that of ONNX Runtime {why}"
            )));
        }
        let sessions: Vec<(Session, OwnStack)> = (0..config.sessions.max(1))
            .map(|_| {
                let builder = on(config.device, builder(environment, config).map_err(load_error)?)?;
                let mut builder = source.external.give_to(builder)?;
                let canceler = builder.canceler();
                // Takes effect at the next step of the load; until then, and for its memory, there is no bound.
                let stop = move || drop(canceler.cancel());
                let mut stack = OwnStack::default();
                let load = || match stack.run(|| builder.commit_from_memory(&source.bytes))? {
                    Ok(loaded) => loaded.map_err(load_error),
                    Err(AbandonedRun) => Err(load_given_up(source)),
                };
                let session = source.limit.run(stop, load)?;
                Ok((session, stack))
            })
            .collect::<Result<Vec<_>>>()?;
        if !source.is_readable {
            return Err(Error::unsupported(
                "ONNX Runtime loads it, but its form does not show which files with external data it names; save it \
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
            given_up: AtomicU32::new(0),
            given_up_bytes: AtomicUsize::new(0),
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
        // Given back also when a run panics: the permit is released after the session is back.
        let mut lease = Lease { model: self, session: Some(session) };
        let (session, stack) = lease.session.as_mut().expect("invariant: leased until dropped");
        let outputs = self.run_on(session, stack, context, inputs);
        drop(lease);
        drop(permit);
        outputs
    }

    /// Refuses what would end the process.
    fn check_safe(&self, context: &CallContext, inputs: &[Tensor]) -> Result<()> {
        if let Some(op) = self.unsafe_ops.needs_elements
            && let Some(input) = inputs.iter().find(|input| input.shape().contains(&0))
        {
            let message = format!(
                "model \"{}:{}\": input \"{}\" has the shape {}; the model has the operator {op}, which takes no \
                 dimension of 0",
                context.model,
                context.version,
                input.name(),
                format_shape(input.shape())
            );
            return Err(Error::invalid(message).field(input.name()).graph_refusal());
        }
        let runs = self.given_up.load(Ordering::Relaxed);
        if runs >= GIVEN_UP_MAX || self.given_up_bytes.load(Ordering::Relaxed) >= GIVEN_UP_BYTES_MAX {
            return Err(Error::unavailable(format!(
                "model \"{}:{}\": ONNX Runtime gave up {runs} runs in the middle, each of which keeps its memory, so \
                 there are no more; reload the model, and keep the inputs from it that the log names",
                context.model, context.version
            )));
        }
        Ok(())
    }

    /// An error for a run that has ended with `std::terminate`.
    fn run_given_up(&self, context: &CallContext, inputs: &[Tensor]) -> Error {
        let runs = self.given_up.fetch_add(1, Ordering::Relaxed) + 1;
        let shapes: Vec<String> =
            inputs.iter().map(|input| format!("{} {}", input.name(), format_shape(input.shape()))).collect();
        let (model, version, shapes) = (&context.model, &context.version, shapes.join(", "));
        tracing::warn!(%model, %version, shapes, runs, "run given up: ONNX Runtime called std::terminate");
        if self.intra_threads > 1 {
            // Threads of the runtime may still read them.
            self.given_up_bytes.fetch_add(Tensor::bytes_kept(inputs), Ordering::Relaxed);
            std::mem::forget(inputs.to_vec());
        }
        let message = format!(
            "model \"{model}:{version}\": ONNX Runtime gave up in the middle of the run: an operator of the graph cannot \
             take inputs of these sizes ({shapes})"
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
        let values = inputs
            .iter()
            .map(|tensor| Ok((tensor.name(), input_value(tensor)?)))
            .collect::<Result<Vec<(&str, SessionInputValue<'_>)>>>()?;
        let options = RunOptions::new().map_err(|error| Error::failed(error.to_string()))?;
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
            return Err(self.run_given_up(context, inputs));
        };
        let outputs = outputs.map_err(|error| {
            // A stopped run says "terminate flag"; the reason for it is the context's.
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
        self.sessions.lock().expect("invariant: no panic under the lock")
    }
}

impl Drop for OnnxModel {
    fn drop(&mut self) {
        unload::free(std::mem::take(&mut *self.lock()));
    }
}

/// Loading a model takes a multiple of the memory that it keeps.
struct Trimmed;

impl Drop for Trimmed {
    fn drop(&mut self) {
        unload::trim_soon();
    }
}

struct Lease<'a> {
    model: &'a OnnxModel,
    session: Option<(Session, OwnStack)>,
}

impl Drop for Lease<'_> {
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

/// Has what is built run on this device.
fn on(device: Device, builder: SessionBuilder) -> Result<SessionBuilder> {
    let Device::Cuda(index) = device else { return Ok(builder) };
    let provider = CUDA::default().with_device_id(index).build().error_on_failure();
    builder.with_execution_providers([provider]).map_err(|error| {
        let text = error.to_string();
        Error::unavailable(format!(
            "device \"{device}\" cannot be used; it must be one that nvidia-smi -L lists, with CUDA and cuDNN where the \
             loader finds them (LD_LIBRARY_PATH), or device = \"cpu\": {}",
            text.lines().next().unwrap_or_default()
        ))
        .with_detail(text.clone())
    })
}

/// A device that is not there is an error, never a silent fall-back to the CPU.
fn check_device(device: Device) -> Result<()> {
    let Device::Cuda(_) = device else { return Ok(()) };
    match CUDA::is_available() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::unavailable(format!(
            "device \"{device}\": this build of ONNX Runtime has no CUDA; use the library of PyPI's \
             onnxruntime-gpu, or device = \"cpu\""
        ))),
        Err(error) => Err(Error::unavailable(format!("device \"{device}\": {error}"))),
    }
}

/// The runtime has called `std::terminate` while it made a session. What it had made stays in memory.
fn load_given_up(source: &OnnxSource) -> Error {
    std::mem::forget(source.bytes.clone());
    Error::invalid(
        "ONNX Runtime gave up in the middle of loading it (std::terminate): a node of its graph has inputs of sizes or \
         ranks that its operator does not take",
    )
}

/// Code of the runtime has divided by zero and was given 0, so its outputs cannot be trusted.
fn division_by_zero(context: &CallContext) -> Error {
    let (model, version) = (&context.model, &context.version);
    Error::invalid(format!(
        "model \"{model}:{version}\": the graph divides an integer by zero for these inputs"
    ))
    .graph_refusal()
}

fn metadata(session: &Session) -> Result<Metadata> {
    let required = session.inputs().iter().map(|input| spec("input", input.name(), input.dtype(), false));
    let initializers = session.overridable_initializers();
    let optional = initializers.iter().map(|input| spec("input", input.name(), input.dtype(), true));
    let outputs = session.outputs().iter().map(|output| spec("output", output.name(), output.dtype(), false));
    Ok(Metadata {
        inputs: required.chain(optional).collect::<Result<_>>()?,
        outputs: outputs.collect::<Result<_>>()?,
        streaming: false,
    })
}

fn spec(what: &str, name: &str, ty: &ValueType, optional: bool) -> Result<TensorSpec> {
    let refused = |reason: &str| Err(Error::unsupported(format!("{what} \"{name}\" {reason}")));
    match ty {
        ValueType::Tensor { ty, shape, .. } => match datatype(*ty) {
            Some(datatype) => {
                let shape: Shape = shape.iter().map(|&dimension| dimension.max(-1)).collect();
                Ok(TensorSpec { name: name.into(), datatype, shape, optional })
            }
            None => refused(&format!("has elements of type {ty}, which the Open Inference Protocol lacks")),
        },
        ValueType::Sequence(inner) if matches!(**inner, ValueType::Map { .. }) => {
            refused("is a sequence of maps, not a tensor; export the classifier with the option zipmap=False")
        }
        ValueType::Sequence(_) => {
            refused("is a sequence, not a tensor; export the model with tensor outputs")
        }
        ValueType::Map { .. } => refused("is a map, not a tensor; export the model with tensor outputs"),
        ValueType::Optional(_) => refused("is of an optional type; export the model with plain tensors"),
    }
}

fn datatype(ty: TensorElementType) -> Option<Datatype> {
    Some(match ty {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}

/// A view of the tensor's bytes where they are aligned, a copy where not.
fn input_value(tensor: &Tensor) -> Result<SessionInputValue<'_>> {
    fn typed<T>(tensor: &Tensor) -> Result<SessionInputValue<'_>>
    where
        T: bytemuck::CheckedBitPattern
            + bytemuck::NoUninit
            + PrimitiveTensorElementType
            + fmt::Debug
            + 'static,
    {
        let shape = ort::value::Shape::new(tensor.shape().iter().copied());
        match bytemuck::checked::try_cast_slice::<u8, T>(tensor.data()) {
            Ok(elements) => TensorRef::from_array_view((shape, elements)).map(Into::into),
            Err(_) => {
                let size = size_of::<T>();
                let elements: Vec<T> =
                    tensor.data().chunks_exact(size).map(bytemuck::checked::pod_read_unaligned).collect();
                ort::value::Tensor::from_array((shape, elements)).map(Into::into)
            }
        }
        .map_err(|error| Error::invalid(format!("input \"{}\": {error}", tensor.name())).field(tensor.name()))
    }
    match tensor.datatype() {
        Datatype::Bool => typed::<bool>(tensor),
        Datatype::Uint8 => typed::<u8>(tensor),
        Datatype::Uint16 => typed::<u16>(tensor),
        Datatype::Uint32 => typed::<u32>(tensor),
        Datatype::Uint64 => typed::<u64>(tensor),
        Datatype::Int8 => typed::<i8>(tensor),
        Datatype::Int16 => typed::<i16>(tensor),
        Datatype::Int32 => typed::<i32>(tensor),
        Datatype::Int64 => typed::<i64>(tensor),
        Datatype::Fp16 => typed::<half::f16>(tensor),
        Datatype::Bf16 => typed::<half::bf16>(tensor),
        Datatype::Fp32 => typed::<f32>(tensor),
        Datatype::Fp64 => typed::<f64>(tensor),
        Datatype::Bytes => {
            let value = strings::value(tensor).map(Into::into);
            value.map_err(|error| {
                Error::invalid(format!("input \"{}\": {error}", tensor.name())).field(tensor.name())
            })
        }
    }
}

fn output_tensor(spec: &TensorSpec, value: &DynValue) -> Result<Tensor> {
    fn typed<T>(value: &DynValue) -> ort::Result<(Shape, Bytes)>
    where
        T: bytemuck::NoUninit + PrimitiveTensorElementType,
    {
        let (shape, elements) = value.try_extract_tensor::<T>()?;
        Ok((shape.iter().copied().collect(), Bytes::copy_from_slice(bytemuck::cast_slice(elements))))
    }
    let extracted = match spec.datatype {
        Datatype::Bool => typed::<bool>(value),
        Datatype::Uint8 => typed::<u8>(value),
        Datatype::Uint16 => typed::<u16>(value),
        Datatype::Uint32 => typed::<u32>(value),
        Datatype::Uint64 => typed::<u64>(value),
        Datatype::Int8 => typed::<i8>(value),
        Datatype::Int16 => typed::<i16>(value),
        Datatype::Int32 => typed::<i32>(value),
        Datatype::Int64 => typed::<i64>(value),
        Datatype::Fp16 => typed::<half::f16>(value),
        Datatype::Bf16 => typed::<half::bf16>(value),
        Datatype::Fp32 => typed::<f32>(value),
        Datatype::Fp64 => typed::<f64>(value),
        Datatype::Bytes => match value.dtype() {
            ValueType::Tensor { ty: TensorElementType::String, shape, .. } => {
                let shape: Shape = shape.iter().copied().collect();
                let (bytes, places) = strings::elements(value, element_count(&shape)?)
                    .map_err(|error| Error::failed(format!("output \"{}\": {error}", spec.name)))?;
                let elements = places.windows(2).map(|place| &bytes[place[0]..place[1]]);
                return Tensor::from_elements(spec.name.clone(), shape, elements);
            }
            other => {
                return Err(Error::failed(format!("output \"{}\" is {other:?}, not strings", spec.name)));
            }
        },
    };
    let (shape, data) =
        extracted.map_err(|error| Error::failed(format!("output \"{}\": {error}", spec.name)))?;
    Tensor::new(spec.name.clone(), spec.datatype, shape, data)
}
