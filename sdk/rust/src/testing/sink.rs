//! Where the responses of a streaming model go in a test.

use crate::bindings::types::copies;
use crate::concurrent::Sink;
use crate::{Error, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct SinkData {
    sent: Vec<Vec<Tensor>>,
    /// Whether the model has exactly one response.
    is_single: bool,
    has_ended: bool,
}

impl SinkData {
    pub fn send(&mut self, outputs: Vec<Tensor>) -> Result<(), Error> {
        if self.has_ended {
            return Err(Error::unsupported("the responses ended when execute returned"));
        }
        if self.is_single && !self.sent.is_empty() {
            return Err(Error::unsupported(
                "a second response was sent, but the metadata say `streaming: false`: exactly one",
            ));
        }
        self.sent.push(outputs);
        Ok(())
    }
}

/// The responses that went into a sink.
#[derive(Debug)]
pub struct Sent(Arc<Mutex<SinkData>>);

/// Creates a sink for `execute` of a streaming model, and what reads it.
/// [`execute`](super::execute) and [`stream`](super::stream) do so themselves; use this function to
/// look at responses while the request runs. `streaming` is that of the metadata: if it is false, a
/// second response is an error.
pub fn sink(streaming: bool) -> (Sink, Sent) {
    let data = Arc::new(Mutex::new(SinkData { is_single: !streaming, ..SinkData::default() }));
    (Sink(Arc::clone(&data)), Sent(data))
}

impl Sent {
    /// Returns the responses so far, each with its tensors.
    pub fn responses(&self) -> Vec<Vec<Tensor>> {
        let data = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        data.sent.iter().map(copies).collect()
    }

    /// Ends the responses, as the host does when `execute` returns: what is sent later is an error.
    pub fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).has_ended = true;
    }
}
