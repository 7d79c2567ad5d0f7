//! The interface `hostler:concurrent/models`: calls that a future waits for.

use super::types::{Error, Tensor, copies};
use crate::testing::{CallInFlight, ModelHandle, Wait, with_host};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug)]
pub struct Callable(ModelHandle);

#[derive(Debug)]
pub struct Invocation(Mutex<CallInFlight>);

impl Callable {
    pub fn model(&self) -> String {
        self.0.model.clone()
    }

    pub fn version(&self) -> String {
        self.0.version.clone()
    }

    pub fn streaming(&self) -> bool {
        self.0.is_streaming
    }

    pub async fn call(&self, inputs: Vec<&Tensor>, timeout_us: Option<u64>) -> Result<Vec<Tensor>, Error> {
        self.0.one_response()?;
        let mut call = self.0.start(copies(inputs), timeout_us.map(Duration::from_micros))?;
        Wait::until(call.next_at()).await?;
        call.only()
    }

    pub fn start(&self, inputs: &[&Tensor], timeout_us: Option<u64>) -> Result<Invocation, Error> {
        let timeout = timeout_us.map(Duration::from_micros);
        let call = self.0.start(copies(inputs.iter().copied()), timeout)?;
        Ok(Invocation(Mutex::new(call)))
    }
}

impl Invocation {
    pub async fn next(&self) -> Option<Result<Vec<Tensor>, Error>> {
        let at = self.get().next_at();
        if let Err(error) = Wait::until(at).await {
            return Some(Err(error));
        }
        self.get().next()
    }

    fn get(&self) -> std::sync::MutexGuard<'_, CallInFlight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn get(model: &str, version: Option<&str>) -> Result<Callable, Error> {
    with_host("concurrent::model", |host| host.model(model, version)).map(Callable)
}
