//! Host calls for tensors, the request, assets, configuration and logging.

use crate::error::{Error, Kind};
use crate::plugin::bindings::{assets, logging, store, types};
use crate::plugin::resources::Request;
use crate::plugin::store_data::StoreData;
use crate::predict::{CallContext, Datatype, Origin, Parameter, Tensor};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::component::Resource;

/// Maximum bytes of one note, as the contract says.
const NOTE_BYTES_MAX: usize = 1 << 20;

type Trappable<T> = wasmtime::Result<T>;

impl types::Host for StoreData {}

impl types::HostTensor for StoreData {
    fn create(
        &mut self,
        name: String,
        datatype: types::Datatype,
        shape: Vec<i64>,
        data: Vec<u8>,
    ) -> Trappable<Result<Resource<Tensor>, types::Error>> {
        self.spend(name.len() + data.len())?;
        Ok(match Tensor::new(name, datatype.into(), shape.into(), data.into()) {
            Ok(tensor) => self.push(tensor.made_by(self.origin()))?,
            Err(error) => Err(self.give_error(error)),
        })
    }

    fn name(&mut self, tensor: Resource<Tensor>) -> Trappable<String> {
        Ok(self.handles.get(&tensor)?.name().to_owned())
    }

    fn datatype(&mut self, tensor: Resource<Tensor>) -> Trappable<types::Datatype> {
        Ok(self.handles.get(&tensor)?.datatype().into())
    }

    fn shape(&mut self, tensor: Resource<Tensor>) -> Trappable<Vec<i64>> {
        Ok(self.handles.get(&tensor)?.shape().to_vec())
    }

    fn byte_length(&mut self, tensor: Resource<Tensor>) -> Trappable<u64> {
        Ok(self.handles.get(&tensor)?.data().len() as u64)
    }

    fn read(&mut self, tensor: Resource<Tensor>, offset: u64, length: u64) -> Trappable<Vec<u8>> {
        Ok(range(self.handles.get(&tensor)?.data(), offset, length).to_vec())
    }

    fn renamed(&mut self, tensor: Resource<Tensor>, name: String) -> Trappable<Resource<Tensor>> {
        // The bytes are shared; the name is not.
        self.spend(name.len())?;
        let renamed = self.handles.get(&tensor)?.renamed(name);
        // The guest cannot be told of the error, so it is stopped.
        Ok(self.handles.push(renamed)??)
    }

    fn reshaped(
        &mut self,
        tensor: Resource<Tensor>,
        shape: Vec<i64>,
    ) -> Trappable<Result<Resource<Tensor>, types::Error>> {
        let tensor = self.handles.get(&tensor)?;
        let is_same = tensor.shape() == &shape[..];
        Ok(match tensor.reshaped(shape.into()) {
            Ok(tensor) if is_same => self.push(tensor)?,
            Ok(tensor) => self.push(tensor.made_by(self.origin()))?,
            Err(error) => Err(self.give_error(error)),
        })
    }

    fn drop(&mut self, tensor: Resource<Tensor>) -> Trappable<()> {
        self.handles.take(tensor)?;
        Ok(())
    }
}

impl StoreData {
    /// Converts an error for the guest, and remembers it: see
    /// [`HostErrors`](crate::plugin::host_errors::HostErrors).
    pub(in crate::plugin) fn give_error(&mut self, error: Error) -> types::Error {
        match &self.registry {
            Some(registry) => registry.record_error(error),
            None => self.host_errors.record(error),
        }
    }

    /// Adds a handle of a tensor. Returns the error for the guest if the instance would hold too
    /// much.
    fn push(&mut self, tensor: Tensor) -> Trappable<Result<Resource<Tensor>, types::Error>> {
        Ok(self.handles.push(tensor)?.map_err(|error| self.give_error(error)))
    }

    /// Returns the origin of tensors that this guest makes.
    pub(in crate::plugin) fn origin(&self) -> Origin {
        Origin::Plugin(Arc::clone(&self.spec.name))
    }

    fn context(&mut self, request: Resource<Request>) -> Trappable<Arc<CallContext>> {
        if let Some(registry) = &self.registry {
            let call = registry.by_key(request.rep()).call();
            let call =
                call.ok_or_else(|| wasmtime::Error::msg("used a request after its execute returned"))?;
            return Ok(Arc::clone(&call.context));
        }
        let call = self.call()?;
        Ok(Arc::clone(call.calls.batch.get(request.rep() as usize).unwrap_or(&call.context)))
    }
}

impl types::HostRequest for StoreData {
    fn id(&mut self, request: Resource<Request>) -> Trappable<String> {
        Ok(self.context(request)?.id.to_string())
    }

    fn model(&mut self, request: Resource<Request>) -> Trappable<String> {
        Ok(self.context(request)?.model.to_string())
    }

    fn version(&mut self, request: Resource<Request>) -> Trappable<String> {
        Ok(self.context(request)?.version.to_string())
    }

    fn time_left(&mut self, request: Resource<Request>) -> Trappable<Option<u64>> {
        let deadline = match &self.registry {
            Some(registry) => {
                registry.by_key(request.rep()).call().map_or_else(Instant::now, |call| call.deadline)
            }
            None => self.call()?.deadline,
        };
        Ok(Some(deadline.saturating_duration_since(Instant::now()).as_millis() as u64))
    }

    fn cancelled(&mut self, request: Resource<Request>) -> Trappable<bool> {
        Ok(self.context(request)?.cancellation.is_cancelled())
    }

    fn parameter(&mut self, request: Resource<Request>, name: String) -> Trappable<Option<types::Parameter>> {
        Ok(self.context(request)?.parameter(&name).map(Into::into))
    }

    fn parameter_names(&mut self, request: Resource<Request>) -> Trappable<Vec<String>> {
        Ok(self.context(request)?.parameters.iter().map(|(name, _)| name.clone()).collect())
    }

    fn note(&mut self, request: Resource<Request>) -> Trappable<Vec<u8>> {
        Ok(self.context(request)?.note().to_vec())
    }

    fn set_note(&mut self, request: Resource<Request>, data: Vec<u8>) -> Trappable<()> {
        if data.len() > NOTE_BYTES_MAX {
            wasmtime::bail!("set a note of {} bytes; at most {NOTE_BYTES_MAX} are allowed", data.len());
        }
        self.spend(data.len())?;
        if let Some(registry) = &self.registry {
            let call = registry.by_key(request.rep()).call();
            let call =
                call.ok_or_else(|| wasmtime::Error::msg("used a request after its execute returned"))?;
            call.set_note(data.into());
            return Ok(());
        }
        self.context(request)?.set_note(data.into());
        Ok(())
    }

    fn drop(&mut self, _: Resource<Request>) -> Trappable<()> {
        Ok(())
    }
}

impl assets::Host for StoreData {
    fn names(&mut self) -> Trappable<Vec<String>> {
        Ok(self.spec.assets.keys().cloned().collect())
    }

    fn size(&mut self, name: String) -> Trappable<Result<u64, types::Error>> {
        Ok(self.asset(&name).map(|data| data.len() as u64).map_err(|error| self.give_error(error)))
    }

    fn read(&mut self, name: String, offset: u64, length: u64) -> Trappable<Result<Vec<u8>, types::Error>> {
        let data = self.asset(&name).map_err(|error| self.give_error(error));
        Ok(data.map(|data| range(&data, offset, length).to_vec()))
    }
}

impl StoreData {
    fn asset(&self, name: &str) -> Result<Bytes, Error> {
        self.spec.assets.get(name).cloned().ok_or_else(|| {
            let known = self.spec.assets.keys().map(String::as_str);
            let hint = crate::error::did_you_mean(name, known);
            let plugin = &self.spec.name;
            Error::not_found(format!("no asset \"{name}\"{hint}; add it under [plugins.{plugin}.assets]"))
        })
    }
}

impl store::Host for StoreData {
    fn get(&mut self, key: String) -> Trappable<Result<Option<String>, store::Error>> {
        Ok(Ok(self.spec.config.get(&key).cloned()))
    }

    fn get_all(&mut self) -> Trappable<Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(self.spec.config.clone().into_iter().collect()))
    }
}

impl logging::Host for StoreData {
    fn log(&mut self, level: logging::Level, context: String, message: String) -> Trappable<()> {
        self.log.message(level, &context, &message);
        Ok(())
    }
}

/// Returns `length` bytes from `offset`, or as many as there are.
fn range(data: &Bytes, offset: u64, length: u64) -> Bytes {
    let end = data.len() as u64;
    let from = offset.min(end);
    let to = from.saturating_add(length).min(end);
    data.slice(from as usize..to as usize)
}

/// `$only_ours` are cases that the contract does not have, with the case that a guest sees instead.
macro_rules! same_cases {
    ($ours:ty, $theirs:ty, [$($case:ident),* $(,)?] $(, $only_ours:ident => $instead:ident)*) => {
        impl From<$ours> for $theirs {
            fn from(value: $ours) -> Self {
                match value {
                    $(<$ours>::$case => <$theirs>::$case,)*
                    $(<$ours>::$only_ours => <$theirs>::$instead,)*
                }
            }
        }

        impl From<$theirs> for $ours {
            fn from(value: $theirs) -> Self {
                match value { $(<$theirs>::$case => <$ours>::$case,)* }
            }
        }
    };
}

same_cases!(
    Datatype,
    types::Datatype,
    [Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64, Bytes,]
);
same_cases!(
    Kind,
    types::ErrorKind,
    [InvalidInput, NotFound, Unsupported, TooLarge, Overloaded, Unavailable, Deadline, Cancelled, Failed,],
    Conflict => Failed,
    Forbidden => Failed,
    Unauthenticated => Failed
);

impl From<&Parameter> for types::Parameter {
    fn from(parameter: &Parameter) -> Self {
        match parameter {
            Parameter::Boolean(value) => types::Parameter::Boolean(*value),
            Parameter::Integer(value) => types::Parameter::Integer(*value),
            Parameter::Number(value) => types::Parameter::Number(*value),
            Parameter::Text(value) => types::Parameter::Text(value.clone()),
        }
    }
}
