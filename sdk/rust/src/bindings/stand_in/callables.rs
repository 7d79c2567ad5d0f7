//! The interface `callables`: calls in blocking style.

use super::types::{Error, Tensor, copies};
use crate::testing::{CallInFlight, ModelHandle, sleep_until, time_limit, with_host};
use std::sync::Mutex;
use std::time::Duration;

#[derive(Debug)]
pub struct Callable(pub(crate) ModelHandle);

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

    pub fn call(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, Error> {
        self.call_limited(inputs, None)
    }

    pub fn call_within(&self, inputs: &[&Tensor], timeout_us: u64) -> Result<Vec<Tensor>, Error> {
        self.call_limited(inputs, Some(timeout_us))
    }

    fn call_limited(&self, inputs: &[&Tensor], timeout_us: Option<u64>) -> Result<Vec<Tensor>, Error> {
        self.0.one_response()?;
        let timeout = timeout_us.map(Duration::from_micros);
        let mut call = self.0.start(copies(inputs.iter().copied()), timeout)?;
        sleep_until(call.next_at());
        call.only()
    }

    pub fn start(&self, inputs: &[&Tensor]) -> Result<Invocation, Error> {
        let call = self.0.start(copies(inputs.iter().copied()), None)?;
        Ok(Invocation(Mutex::new(call)))
    }

    pub fn start_within(&self, inputs: &[&Tensor], timeout_us: u64) -> Result<Invocation, Error> {
        let timeout = Some(Duration::from_micros(timeout_us));
        let call = self.0.start(copies(inputs.iter().copied()), timeout)?;
        Ok(Invocation(Mutex::new(call)))
    }
}

impl Invocation {
    fn get(&self) -> std::sync::MutexGuard<'_, CallInFlight> {
        self.0.lock().expect("invariant: nothing panics while it holds the lock")
    }

    pub fn outcome(&self) -> Option<Result<Vec<Tensor>, Error>> {
        self.get().outcome()
    }

    pub fn next(&self) -> Option<Result<Vec<Tensor>, Error>> {
        let mut call = self.get();
        sleep_until(call.next_at());
        call.next()
    }
}

pub fn wait_any(invocations: &[&Invocation], timeout_us: Option<u64>) -> Option<u32> {
    assert!(
        timeout_us.is_some() || !invocations.is_empty(),
        "wait_any would wait forever: it has neither an invocation nor a timeout"
    );
    let timeout = timeout_us.map(Duration::from_micros);
    let limit = timeout.and_then(time_limit);
    let first = invocations.iter().enumerate().map(|(index, call)| (call.get().next_at(), index)).min();
    match (first, limit) {
        (Some((at, index)), limit) if limit.is_none_or(|limit| at <= limit) => {
            sleep_until(at);
            Some(index as u32)
        }
        (_, Some(limit)) => {
            sleep_until(limit);
            None
        }
        (_, None) => None,
    }
}

pub fn answer(outputs: &[&Tensor]) -> Result<(), Error> {
    with_host("answer", |host| {
        if host.early_answer.is_some() {
            let message = "cannot answer the request: it was already answered, or it is an item of a batch";
            return Err(Error::unsupported(message));
        }
        host.early_answer = Some(copies(outputs.iter().copied()));
        Ok(())
    })
}
