//! ONNX models: sessions of ONNX Runtime, and tensors in and out of them.
//!
//! A session runs one call at a time (its `Run` is not safe to share), so a model has several. A run ends
//! at its deadline at the next node of the graph; until then its worker is held.

use super::refusal::{Dimensions, run_error};
use super::{BoxFuture, Callable, LoadLimit, PrivateFolder, Sink, division, texts, unload};
use crate::error::{Error, Result};
use crate::predict::{Context, Datatype, Metadata, Origin, Shape, Tensor, TensorSpec, element_count};
use bytes::Bytes;
use ort::ep::{CUDA, ExecutionProvider};
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};
use std::fmt;
use std::path::PathBuf;
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

/// An ONNX model as it was read, before it is loaded.
pub struct OnnxSource {
    /// Where the file is, for messages. It is not read again.
    pub path: PathBuf,
    pub bytes: Bytes,
    pub external: ExternalFiles,
    /// False if the host could not tell which external data the file names.
    pub is_readable: bool,
    /// For each session.
    pub limit: LoadLimit,
}

/// Where ONNX Runtime finds a model's external data. It finds none elsewhere.
pub enum ExternalFiles {
    None,
    /// Copies under the names that the model gives them. May go once the sessions are made.
    Folder(PrivateFolder),
    Memory(Vec<(PathBuf, Arc<[u8]>)>),
}

impl ExternalFiles {
    /// A path that cannot exist: without a folder ONNX Runtime would look in the process's working folder.
    const NO_FOLDER: &str = "/dev/null/no-external-data";

    /// Has sessions find these files and no others.
    fn give_to(&self, builder: SessionBuilder) -> Result<SessionBuilder> {
        let folder = match self {
            ExternalFiles::Folder(folder) => folder
                .path()
                .to_str()
                .ok_or_else(|| Error::unavailable(format!("{} is not UTF-8", folder.path().display())))?,
            ExternalFiles::None | ExternalFiles::Memory(_) => Self::NO_FOLDER,
        };
        let key = "session.model_external_initializers_file_folder_path";
        let mut builder = builder.with_config_entry(key, folder).map_err(load_error)?;
        if let ExternalFiles::Memory(files) = self {
            for (name, content) in files {
                let content = Arc::clone(content);
                builder =
                    builder.with_external_initializer_file_in_memory(name, content).map_err(load_error)?;
            }
        }
        Ok(builder)
    }
}

pub(super) struct OnnxModel {
    metadata: Metadata,
    dimensions: Dimensions,
    intra_threads: usize,
    sessions: Mutex<Vec<Session>>,
    free: Semaphore,
}

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
        let sessions = (0..config.sessions.max(1))
            .map(|_| {
                let builder = on(config.device, builder(environment, config).map_err(load_error)?)?;
                let mut builder = source.external.give_to(builder)?;
                let canceler = builder.canceler();
                // Takes effect at the next step of the load; until then, and for its memory, there is no bound.
                let stop = move || drop(canceler.cancel());
                source.limit.run(stop, || builder.commit_from_memory(&source.bytes).map_err(load_error))
            })
            .collect::<Result<Vec<_>>>()?;
        if !source.is_readable {
            return Err(Error::unsupported(
                "ONNX Runtime loads it, but its form does not show which files with external data it names; save it \
                 again with the onnx package",
            ));
        }
        let metadata = metadata(&sessions[0])?;
        let optional = sessions[0].overridable_initializers();
        let required = sessions[0].inputs().iter().map(|input| (input.name(), input.dtype()));
        let inputs = required.chain(optional.iter().map(|input| (input.name(), input.dtype())));
        let dimensions = Dimensions::of(inputs);
        let intra_threads = config.intra_threads;
        Ok(OnnxModel {
            metadata,
            dimensions,
            intra_threads,
            free: Semaphore::new(sessions.len()),
            sessions: Mutex::new(sessions),
        })
    }

    async fn run(&self, context: &Arc<Context>, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
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
        let session = lease.session.as_mut().expect("invariant: leased until dropped");
        let outputs = self.run_on(session, context, inputs);
        drop(lease);
        drop(permit);
        outputs
    }

    fn run_on(
        &self,
        session: &mut Session,
        context: &Arc<Context>,
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
        let outputs = session.run_with_options(values, &*options).map_err(|error| {
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
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
    session: Option<Session>,
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

    fn holds_thread(&self) -> bool {
        true
    }

    fn call<'a>(
        &'a self,
        context: &'a Arc<Context>,
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
        .source(text.clone())
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

fn load_error(error: impl fmt::Display) -> Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    Error::invalid(format!("ONNX Runtime cannot load it: {first}")).source(text.clone())
}

/// Code of the runtime has divided by zero and was given 0, so its outputs cannot be trusted.
fn division_by_zero(context: &Context) -> Error {
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
            let value = texts::value(tensor).map(Into::into);
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
                let (bytes, places) = texts::elements(value, element_count(&shape)?)
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
